"""What runs by itself: months whose raw data is complete, categories whose file changes, and the month that ended."""

import importlib
import json
import logging
import os
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import dagster as dg
import pytest
import yaml

from audience_explorer_dagster.automation import category_files, complete_months, new_data, schedule
from audience_explorer_dagster.partitions import categories, months
from audience_explorer_dagster.store import Store
from spark_jobs import storage
from spark_jobs.errors import InputError
from spark_jobs.storage.s3 import _split
from spark_jobs.vectors.category_files import BadCategory
from tests.project import Project
from tests.test_s3 import bucket

__all__ = ["bucket"]  # a fixture

JANUARY, FEBRUARY = "2024-01", "2024-02"
BOTH = {JANUARY: "all", FEBRUARY: "all"}


class Daemon:
    """Looks at a project whenever it is told to, by a clock of its own."""

    def __init__(self, project: Project, monkeypatch: pytest.MonkeyPatch):
        self.project = project
        self.now = time.time()
        self.cursor: str | None = None
        self.requests: list[dg.RunRequest] = []
        self.skipped = ""
        self.warnings: list[str] = []
        log = logging.Logger("sensor")
        log.addHandler(handler := logging.Handler(logging.WARNING))
        monkeypatch.setattr(handler, "emit", lambda record: self.warnings.append(record.getMessage()))
        monkeypatch.setattr(dg.SensorEvaluationContext, "log", log)
        monkeypatch.setattr(new_data, "time", SimpleNamespace(time=lambda: self.now))

    def look(self, sensor: dg.SensorDefinition = complete_months, after: float = 30) -> dict[str, Any]:
        """Let a sensor look some seconds later; the months asked for, each with its categories."""
        self.now += after
        context = dg.build_sensor_context(
            self.project.instance,
            cursor=self.cursor,
            definitions=self.project.definitions,
            resources={"store": self.project.store},
        )
        tick = sensor.evaluate_tick(context)
        self.cursor, self.skipped = tick.cursor, tick.skip_message or ""
        self.requests = list(tick.run_requests or ())
        return {str(request.partition_key): config_of(request).get("categories", "all") for request in self.requests}

    def mark(self, *marked: str, at: float = 0) -> None:
        """Write the marker of months, some seconds from now."""
        for month in marked:
            marker = self.raw(month) / "_SUCCESS"
            marker.touch()
            os.utime(marker, (time.time() + at,) * 2)

    def bring_late(self, month: str) -> Path:
        """Let another raw file land."""
        late = self.raw(month) / f"late-{len(list(self.raw(month).iterdir()))}.jsonl"
        late.write_text('{"user_id": "u1", "page_id": "tea-1", "action": "page_like"}\n')
        return late

    def raw(self, month: str) -> Path:
        return self.project.root / "raw" / f"month={month}"

    def category(self, name: str) -> Path:
        return self.project.root / "categories" / f"{name}.json"


def config_of(request: dg.RunRequest) -> dict[str, Any]:
    config: dict[str, Any] = request.run_config["ops"]["month"]["config"]
    return config


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """A daemon that never looked before."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield Daemon(Project(tmp_path / "root", instance), monkeypatch)


@pytest.fixture
def run_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with the config of runs that nobody starts by hand."""
    file = tmp_path / "run.yaml"
    monkeypatch.setenv("AUDIENCE_EXPLORER_RUN_CONFIG", str(file))
    return file


def test_a_month_with_a_marker_runs_at_once_and_the_run_makes_every_category(daemon: Daemon) -> None:
    daemon.mark(JANUARY)
    assert daemon.look() == {JANUARY: "all"}
    [request] = daemon.requests
    assert request.tags["dagster/partition"] == JANUARY
    assert daemon.look() == {}, "nothing is asked for twice"
    job = daemon.project.definitions.resolve_job_def("whole_month")
    ended = job.execute_in_process(
        run_config=dict(request.run_config), partition_key=JANUARY, instance=daemon.project.instance
    )
    assert ended.success
    for category in daemon.project.categories:
        assert daemon.project.records("kmeans", f"{category}|{JANUARY}")


def test_a_month_without_a_marker_runs_once_it_was_left_unchanged(daemon: Daemon) -> None:
    assert daemon.look() == {}
    assert f"{JANUARY} has no new _SUCCESS, and is complete if it is left unchanged for 3600 s more" in daemon.skipped
    assert daemon.look(after=3599) == {}
    daemon.bring_late(JANUARY)
    assert daemon.look(after=1) == {FEBRUARY: "all"}, "a change starts the wait anew"
    assert daemon.look(after=3599) == {}
    assert daemon.look(after=1) == {JANUARY: "all"}


def test_how_long_a_month_must_be_left_unchanged_is_a_setting(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIENCE_EXPLORER_SETTLE_SECONDS", "60")
    daemon.look()
    assert daemon.look(after=60) == BOTH
    for wrong in ("an hour", "-1", "nan", "inf"):
        monkeypatch.setenv("AUDIENCE_EXPLORER_SETTLE_SECONDS", wrong)
        with pytest.raises(InputError, match=f"AUDIENCE_EXPLORER_SETTLE_SECONDS is '{wrong}'"):
            new_data.settle_seconds()


def test_a_marker_older_than_another_file_is_none(daemon: Daemon) -> None:
    daemon.mark(JANUARY, at=-1000)
    assert daemon.look() == {}
    daemon.mark(JANUARY, at=1)
    assert daemon.look() == {JANUARY: "all"}


def test_a_month_is_complete_only_with_data_and_files_in_the_making_are_none(daemon: Daemon) -> None:
    for month, name in (("2024-03", "_SUCCESS"), ("2024-04", ".actions.jsonl.part")):
        daemon.raw(month).mkdir()
        (daemon.raw(month) / name).touch()
    (daemon.raw("2024-05") / "_temporary").mkdir(parents=True)
    (daemon.raw("2024-05") / "_temporary" / "actions.jsonl").touch()
    daemon.look()
    assert daemon.look(after=3600) == BOTH


def test_only_folders_of_months_that_ended_are_looked_at(daemon: Daemon) -> None:
    running = f"{datetime.now(timezone.utc):%Y-%m}"
    assert running not in months.get_partition_keys()
    for folder in (f"month={running}", "month=2024-13", "2024-01", "month=2017-12"):
        (daemon.project.root / "raw" / folder).mkdir()
        (daemon.project.root / "raw" / folder / "actions.jsonl").touch()
    (daemon.project.root / "raw" / "README.md").touch()
    daemon.look()
    assert daemon.look(after=3600) == BOTH


def test_late_data_runs_a_month_again_when_it_has_settled_and_so_does_going_back(daemon: Daemon) -> None:
    daemon.mark(JANUARY)
    daemon.look()
    keys = [daemon.requests[0].run_key]
    late = daemon.bring_late(JANUARY)
    os.utime(late, (time.time() + 10,) * 2)
    daemon.look()
    assert daemon.look(after=3600) == BOTH
    keys.append(daemon.requests[0].run_key)
    late.unlink()
    assert daemon.look() == {JANUARY: "all"}, "its marker is the newest again"
    keys.append(daemon.requests[0].run_key)
    assert len(set(keys)) == 3, "Dagster fulfils a run key once"


def test_a_tick_that_is_repeated_after_a_crash_asks_for_the_same(daemon: Daemon) -> None:
    daemon.mark(JANUARY)
    before = daemon.cursor
    daemon.look()
    asked = daemon.requests[0].run_key
    daemon.cursor = before
    daemon.look()
    assert daemon.requests[0].run_key == asked


def test_a_run_that_failed_is_not_repeated_until_its_input_changes(daemon: Daemon) -> None:
    (daemon.raw(JANUARY) / "actions.jsonl").write_text("no JSON\n")
    daemon.mark(JANUARY)
    assert daemon.look() == {JANUARY: "all"}
    assert not daemon.project.run_month(JANUARY).success
    assert daemon.look() == {}
    assert daemon.look(after=7200) == {FEBRUARY: "all"}
    daemon.project.write_raw(JANUARY)
    daemon.mark(JANUARY, at=1)
    assert daemon.look() == {JANUARY: "all"}


def test_a_new_category_runs_in_every_complete_month_and_alone(daemon: Daemon) -> None:
    daemon.mark(JANUARY)
    daemon.look()
    daemon.project.write_category("water", "water-1")
    assert daemon.look() == {JANUARY: ["water"]}
    assert daemon.look() == {}
    assert daemon.look(after=3600) == {FEBRUARY: "all"}


def test_a_month_that_still_runs_is_asked_for_when_its_run_is_over(daemon: Daemon) -> None:
    daemon.mark(JANUARY, FEBRUARY)
    daemon.look()
    instance, job = daemon.project.instance, daemon.project.definitions.resolve_job_def("whole_month")
    run = instance.create_run_for_job(job, tags={"dagster/partition": JANUARY}, status=dg.DagsterRunStatus.STARTED)
    daemon.project.write_category("water", "water-1")
    assert daemon.look() == {FEBRUARY: ["water"]}
    assert daemon.look() == {}
    assert daemon.skipped == f"{JANUARY} will run again when its run is over."
    instance.report_run_failed(run)
    assert daemon.look() == {JANUARY: ["water"]}


def test_a_changed_category_runs_alone_and_one_that_was_only_touched_does_not(daemon: Daemon) -> None:
    daemon.mark(JANUARY, FEBRUARY)
    daemon.look()
    daemon.project.write_category("tea", "tea-1", "tea-3")
    os.utime(daemon.category("coffee"), (1, 1))
    assert daemon.look() == {JANUARY: ["tea"], FEBRUARY: ["tea"]}
    keys = {request.run_key for request in daemon.requests}
    daemon.category("tea").unlink()
    assert daemon.look() == {}
    daemon.project.write_category("tea", "tea-1", "tea-3")
    assert daemon.look() == {JANUARY: ["tea"], FEBRUARY: ["tea"]}, "months may have come while it was away"
    assert not keys & {request.run_key for request in daemon.requests}


def test_months_and_categories_that_change_together_are_asked_for_once(daemon: Daemon) -> None:
    daemon.mark(JANUARY, FEBRUARY)
    daemon.look()
    daemon.bring_late(JANUARY)
    daemon.mark(JANUARY, at=10)
    daemon.project.write_category("tea", "tea-1", "tea-3")
    assert daemon.look() == {JANUARY: "all", FEBRUARY: ["tea"]}


def test_a_bad_category_file_is_told_once_and_keeps_back_no_other(daemon: Daemon) -> None:
    daemon.mark(JANUARY)
    daemon.category("coffee").write_text("{")
    assert daemon.look() == {JANUARY: "all"}
    [warning] = daemon.warnings
    assert "coffee.json is not JSON" in warning
    daemon.project.write_category("tea", "tea-1", "tea-3")
    assert daemon.look() == {JANUARY: ["tea"]}
    assert daemon.look() == {}
    assert "Bad category files: coffee." in daemon.skipped
    assert len(daemon.warnings) == 1
    daemon.project.write_category("coffee", "coffee-1")
    assert daemon.look() == {JANUARY: ["coffee"]}


def test_months_wait_for_the_first_good_category_file(daemon: Daemon) -> None:
    for name in daemon.project.categories:
        daemon.category(name).unlink()
    daemon.category("bad name").write_text("{}")
    daemon.mark(JANUARY)
    assert daemon.look() == {}
    assert f"{JANUARY} will run as soon as there is a good category file" in daemon.skipped
    daemon.project.write_category("tea", "tea-1")
    assert daemon.look() == {JANUARY: "all"}


def test_a_tick_asks_for_few_months_the_oldest_first_and_the_next_for_more(daemon: Daemon) -> None:
    for number in range(1, 13):
        daemon.project.write_raw(f"2019-{number:02}", users=1)
        daemon.mark(f"2019-{number:02}")
    daemon.mark(JANUARY, FEBRUARY)
    assert list(daemon.look()) == [f"2019-{number:02}" for number in range(1, 13)]
    daemon.project.write_category("tea", "tea-1", "tea-3")
    assert len(daemon.look()) == 12
    assert daemon.look() == BOTH, "of a month that waits with all its categories, one is not asked for by itself"
    assert daemon.look() == {}
    assert len(daemon.cursor or "") < 2000


def test_a_month_that_is_gone_is_not_asked_for(daemon: Daemon) -> None:
    daemon.mark(JANUARY)
    daemon.look()
    daemon.raw(JANUARY).rename(daemon.project.root / "elsewhere")
    daemon.project.write_category("tea", "tea-1", "tea-3")
    assert daemon.look() == {}
    (daemon.project.root / "elsewhere").rename(daemon.raw(JANUARY))
    assert daemon.look() == {JANUARY: ["tea"]}


def test_looking_reads_no_raw_file(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> None:
        raise AssertionError("a raw file is read")

    monkeypatch.setattr(storage, "describe", read)
    monkeypatch.setattr(storage, "content_digest", read)
    daemon.mark(JANUARY)
    assert daemon.look() == {JANUARY: "all"}


@pytest.mark.filterwarnings("ignore")
def test_on_s3_a_look_is_one_listing_of_all_months(daemon: Daemon, bucket: str) -> None:
    s3 = boto3.client("s3")
    for key in ("raw/", "raw/month=2024-01/", "raw/month=2024-01/a.jsonl", "raw/month=2024-02/a.jsonl"):
        s3.put_object(Bucket="audience", Key=f"explorer/{key}", Body=b"")
    s3.put_object(Bucket="audience", Key="explorer/categories/tea.json", Body=daemon.category("tea").read_bytes())
    daemon.project.store = Store(root=bucket)
    listed: list[str] = []
    requests = _split(bucket)[0].client.meta.events
    requests.register("before-call.s3.ListObjectsV2", lambda **call: listed.append(call["params"]["query_string"]))
    assert daemon.look() == {}
    s3.put_object(Bucket="audience", Key="explorer/raw/month=2024-01/_SUCCESS", Body=b"")
    assert daemon.look() == {JANUARY: "all"}
    time.sleep(1.1)  # S3 tells whole seconds
    s3.put_object(Bucket="audience", Key="explorer/raw/month=2024-01/a.jsonl", Body=b"other")
    s3.put_object(Bucket="audience", Key="explorer/raw/month=2024-01/_SUCCESS", Body=b"")
    assert daemon.look() == {JANUARY: "all"}
    assert sum("raw" in str(query["prefix"]) for query in map(dict, listed)) == 3


def test_runs_have_the_config_of_the_file_that_is_named(daemon: Daemon, run_config: Path) -> None:
    config = {"categories": ["tea", "coffee"], "kmeans": {"k": 2, "label": "two"}}
    run_config.write_text(yaml.safe_dump(config))
    daemon.mark(JANUARY)
    daemon.look()
    assert config_of(daemon.requests[0]) == config
    daemon.project.write_category("games", "games-1")
    assert daemon.look() == {}, "it is not among those that are named"
    daemon.project.write_category("tea", "tea-1", "tea-3")
    daemon.look()
    assert config_of(daemon.requests[0]) == {**config, "categories": ["tea"]}
    assert daemon.project.run_month(JANUARY, **config_of(daemon.requests[0])).success
    assert daemon.project.records("kmeans", f"tea|{JANUARY}")[0]["label"] == "two"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "run.yaml can't be read: .*No such file"),
        ("kmeans: {k: [", "run.yaml can't be read: "),
        ("- kmeans", "run.yaml holds no mapping"),
        ("kmean: {k: 3}", 'run.yaml is no config of a whole month: .*unexpected config entry "kmean"[^{]*$'),
        ("kmeans: {k: three}", 'config:kmeans:k. Value "three"'),
        ("kmeans: {k: -1}", "kmeans.k: Input should be greater than"),
        ("promote: true", "run.yaml has promote, which is for single runs"),
    ],
)
def test_a_config_file_that_says_nothing_sensible_is_named(
    daemon: Daemon, run_config: Path, content: str | None, why: str
) -> None:
    if content is not None:
        run_config.write_text(content)
    daemon.mark(JANUARY)
    with pytest.raises(InputError, match=f"(?s)AUDIENCE_EXPLORER_RUN_CONFIG: .*{why}"):
        daemon.look()
    assert daemon.cursor is None, "the month is asked for as soon as the file is mended"


def test_new_months_run_by_themselves_only_if_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert complete_months.default_status == dg.DefaultSensorStatus.STOPPED
    monkeypatch.setenv("AUDIENCE_EXPLORER_AUTOMATIC", "1")
    assert new_data.default_status() == dg.DefaultSensorStatus.RUNNING
    monkeypatch.setenv("AUDIENCE_EXPLORER_AUTOMATIC", "yes")
    with pytest.raises(InputError, match="AUDIENCE_EXPLORER_AUTOMATIC is 'yes'"):
        new_data.default_status()


def test_a_removed_category_is_reported_once_and_stays_a_partition(daemon: Daemon) -> None:
    daemon.category("tea").unlink()
    daemon.category("pi|pe").write_text("{}")
    for _ in range(2):
        daemon.look(category_files)
        assert "tea is a partition, and its file" in daemon.skipped
    assert [warning.split(" ", 1)[0] for warning in daemon.warnings] == ["'pi|pe'", "tea"]
    assert "tea" in daemon.project.instance.get_dynamic_partitions(str(categories.name))
    daemon.project.write_category("tea", "tea-1")
    daemon.look(category_files)
    assert "tea" not in daemon.skipped
    assert json.loads(daemon.cursor or "") == [daemon.warnings[0]]


def test_the_schedule_runs_the_month_that_just_ended(daemon: Daemon, run_config: Path) -> None:
    def scheduled(*at: int) -> list[dg.RunRequest]:
        context = dg.build_schedule_context(
            daemon.project.instance,
            scheduled_execution_time=datetime(*at, tzinfo=timezone.utc),  # type: ignore[arg-type, misc]
            repository_def=daemon.project.definitions.get_repository_def(),
        )
        return list(schedule.monthly.evaluate_tick(context).run_requests or ())

    run_config.write_text("kmeans: {k: 4}")
    [request] = scheduled(2024, 3, 2, 6)
    assert request.tags["dagster/partition"] == "2024-02"
    assert config_of(request) == {"kmeans": {"k": 4}}
    [request] = scheduled(2024, 1, 1, 0)
    assert request.partition_key == "2023-12"
    assert scheduled(2018, 1, 31, 23) == []


def test_the_schedule_is_off_by_default_and_its_cron_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert schedule.monthly.default_status == dg.DefaultScheduleStatus.STOPPED
    assert schedule.monthly.cron_schedule == "0 6 2 * *"
    monkeypatch.setenv("AUDIENCE_EXPLORER_SCHEDULE", "30 4 1 * *")
    assert importlib.reload(schedule).monthly.cron_schedule == "30 4 1 * *"
    monkeypatch.delenv("AUDIENCE_EXPLORER_SCHEDULE")
    importlib.reload(schedule)


# --- what looks as if it were done, and is not ------------------------------------------------------------------------


def test_a_category_file_that_could_not_be_read_just_then_runs_once_it_can(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.mark(JANUARY)
    daemon.look()
    daemon.project.write_category("bread", "tea-1")
    with monkeypatch.context() as out_of_order:
        out_of_order.setattr(new_data, "read_category", lambda _: (_ for _ in ()).throw(BadCategory("S3 said 503")))
        assert daemon.look() == {}
        assert daemon.look() == {}
        assert daemon.warnings == ["S3 said 503"], "told once"
    assert daemon.look() == {JANUARY: ["bread"]}


def test_a_category_that_becomes_wanted_runs_in_the_months_that_are_complete(daemon: Daemon, run_config: Path) -> None:
    run_config.write_text("categories: [tea]\n")
    daemon.mark(JANUARY)
    assert daemon.look() == {JANUARY: ["tea"]}
    run_config.write_text("categories: [tea, coffee]\n")
    assert daemon.look() == {JANUARY: ["coffee"]}
    assert daemon.look() == {}


def test_a_marker_counts_once_so_late_files_with_older_times_must_settle(daemon: Daemon) -> None:
    daemon.mark(JANUARY)
    assert daemon.look() == {JANUARY: "all"}
    late = daemon.bring_late(JANUARY)
    os.utime(late, (time.time() - 86400,) * 2)  # as rsync -t and cp -p do
    assert daemon.look() == {}
    assert "2024-01 has no new _SUCCESS" in daemon.skipped
    assert JANUARY in daemon.look(after=3600)


def test_files_and_folders_that_are_links_are_seen(daemon: Daemon, tmp_path: Path) -> None:
    daemon.raw(JANUARY).rename(tmp_path / "elsewhere")
    daemon.raw(JANUARY).symlink_to(tmp_path / "elsewhere")
    (daemon.raw("2024-02") / "actions.jsonl").rename(tmp_path / "actions.jsonl")
    (daemon.raw("2024-02") / "actions.jsonl").symlink_to(tmp_path / "actions.jsonl")
    daemon.mark(*BOTH)
    assert daemon.look() == BOTH
