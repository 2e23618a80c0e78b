"""Tweaks side by side: every clustering of a partition is listed, and a person's choice of one stays."""

import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import click
import dagster as dg
import pytest
from click.testing import CliRunner, Result

from audience_explorer_dagster import definitions as loaded
from audience_explorer_dagster.cli.runs import promote, runs
from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.records import history as record_keeping
from audience_explorer_dagster.records.history import History, Record, as_record, storage_ids
from audience_explorer_dagster.records.variants import as_metadata, beside, side_by_side
from audience_explorer_dagster.store import Current, Store
from spark_jobs.config import ClusteringInputsConfig, KMeansConfig
from tests.project import LAUNCHES, Project, why

pytestmark = pytest.mark.filterwarnings("ignore")

TEA = Partition("2024-01", "tea")
START = datetime(2024, 2, 1, tzinfo=timezone.utc)
MADE_UP = Store(root="/root")


@pytest.fixture(autouse=True)
def home(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", project.instance.root_directory)
    monkeypatch.setenv("AUDIENCE_EXPLORER_ROOT", str(project.root))
    monkeypatch.setattr(loaded, "defs", project.definitions)


def run(project: Project, command: click.Command, *arguments: str) -> Result:
    partition = ("--month", "2024-01", "--category", "tea")
    return CliRunner().invoke(command, [*partition, *arguments, "--root", str(project.root)])


def listed(project: Project) -> list[dict[str, Any]]:
    result = run(project, runs, "--json")
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def tweak(project: Project, **config: Any) -> str:
    """Run the pipeline of a partition; the folder of its clustering."""
    outcome = project.pipeline(["2024-01"], ["tea"], **config)["kmeans tea|2024-01"]
    assert outcome.folder is not None
    return outcome.folder


def promote_by_job(project: Project, **config: Any) -> dg.ExecuteInProcessResult:
    """Run the job `promote`, as the UI does."""
    return project.definitions.resolve_job_def("promote").execute_in_process(
        instance=project.instance,
        run_config={"ops": {"promotion": {"config": {"month": "2024-01", "category": "tea", **config}}}},
        raise_on_error=False,
    )


def current(project: Project) -> str:
    found = project.store.current("kmeans", TEA)
    assert found is not None
    return found.folder


def log(project: Project) -> str:
    """What the newest run logged."""
    run = project.instance.get_runs(limit=1)[0]
    return "\n".join(str(entry.user_message) for entry in project.instance.all_logs(run.run_id))


def rows(table: dg.TableMetadataValue) -> list[dict[str, Any]]:
    """The rows of a record's table."""
    return [dict(row.data) for row in table.records]


def at(folder: str, promoted: bool = False) -> Current:
    """A made-up output that is current."""
    return Current(f"{MADE_UP.outputs('kmeans', TEA)}/{folder}", promoted)


def record(folder: str, place: int = 0, label: str | None = None, **details: Any) -> Record:
    """A made-up record, the newer the larger its place."""
    metadata = {
        "fingerprint": "f",
        "folder": dg.MetadataValue.path(at(folder).folder),
        "config": dg.MetadataValue.json(KMeansConfig(k=2).model_dump()),
        "clustering_inputs": dg.MetadataValue.json(ClusteringInputsConfig().model_dump()),
        "k": 2,
        "requested_k": 2,
        "min_people": 10,
        "users": 10,
        "sizes": dg.MetadataValue.text("10, few"),
        "wssse": 0.5,
        **({"label": label} if label else {}),
        **details,
    }
    event = dg.AssetMaterialization("kmeans", partition=TEA.key, metadata=metadata)
    made = as_record(event, "run", START + timedelta(hours=place), MADE_UP)
    assert made is not None
    return made


class Known(History):
    """A history of given records, of which it counts how many were asked for."""

    def __init__(self, *known: Record):
        self.store = MADE_UP
        self.given = known
        self.asked = 0

    def all(self, partition: Partition) -> Iterator[Record]:
        assert partition == TEA
        for known in self.given:
            self.asked += 1
            yield known


# --- side by side ----------------------------------------------------------------------------------------------------


def test_all_clusterings_of_a_partition_are_listed_the_last_computed_first(project: Project) -> None:
    first = tweak(project)
    second = tweak(project, kmeans={"k": 2, "params": "random,5,0.1", "seed": 7, "label": "two"})
    third = tweak(project, kmeans={"k": 50}, clustering_inputs={"scaling": "none", "action_weights": {"page_like": 2}})

    assert [found["folder"] for found in listed(project)] == [third, second, first]
    newest, labelled, oldest = listed(project)
    assert (labelled["labels"], labelled["k"], labelled["users"]) == (["two"], 2, 10)
    assert labelled["sizes"] == [None, None], "of a dozen people, which are two clusters"
    assert [found["current"] for found in (newest, labelled, oldest)] == [False, False, True], "the tweaks stand beside"
    assert {"wssse", "silhouette", "config", "clustering_inputs", "computed_at", "there"} <= newest.keys()

    header, *lines = run(project, runs).stdout.splitlines()
    assert header.split("  ")[0] == "current"
    assert header.endswith(f"folder below {project.root}/kmeans/month=2024-01/category=tea")
    assert re.match(r" .* of 50 +kmeans\|\|,100,0.001; page_like 2.0; scaling none +10 ", lines[0])
    assert re.match(r" +two +2 +random,5,0.1; seed 7 +10 ", lines[1])
    assert re.match(r"yes +1 \(too few people\) +kmeans\|\|,100,0.001 +10 ", lines[2]), "12 can't show segments"


def test_an_output_that_was_reused_is_listed_once_with_all_labels_and_its_own_date(project: Project) -> None:
    tweak(project)
    (before,) = listed(project)
    for label in ("old", "new", "old"):
        tweak(project, kmeans={"label": label})
    (found,) = listed(project)
    assert found["labels"] == ["old", "new"], "the last one first"
    assert found["computed_at"] == before["computed_at"]


def test_an_output_that_is_gone_says_so(project: Project) -> None:
    project.delete(tweak(project))
    (found,) = listed(project)
    assert found["there"] is False
    assert run(project, runs).stdout.rstrip().endswith(" (gone)")


def test_a_partition_without_records_has_an_empty_list(project: Project) -> None:
    assert listed(project) == []
    assert "kmeans of tea|2024-01 was never materialized here" in run(project, runs).stderr


def test_without_a_month_or_category_the_current_output_of_each_partition_is_listed(project: Project) -> None:
    project.pipeline(["2024-01"], ["coffee"])
    first = tweak(project)
    second = tweak(project, kmeans={"k": 2, "label": "two"})
    of_february = project.pipeline(["2024-02"], ["tea"])["kmeans tea|2024-02"].folder

    def partitions(*arguments: str) -> list[tuple[str, str, bool]]:
        result = CliRunner().invoke(runs, [*arguments, "--root", str(project.root), "--json"])
        assert result.exit_code == 0, result.output
        return [(found["partition"], found["folder"], found["current"]) for found in json.loads(result.stdout)]

    current_tea = ("tea|2024-01", current(project), True)
    assert [found[0] for found in partitions()] == ["coffee|2024-01", "tea|2024-01", "tea|2024-02"]
    assert partitions("--category", "tea") == [current_tea, ("tea|2024-02", of_february, True)]
    assert partitions("--month", "2024-01")[1:] == [current_tea]
    every = partitions("--month", "2024-01", "--all")[1:]
    assert {folder for _, folder, _ in every} == {first, second}

    table = CliRunner().invoke(runs, ["--root", str(project.root)]).stdout.splitlines()
    assert len(table) == 4
    assert re.match(r"partition +current +label +k ", table[0])
    assert re.match(r"tea\|2024-02 +yes ", table[3])


def test_a_list_of_all_refuses_what_is_no_category_and_says_where_there_is_nothing(project: Project) -> None:
    result = CliRunner().invoke(runs, ["--category", "nope", "--root", str(project.root)])
    assert "There is no category 'nope'" in " ".join(result.output.split())
    result = CliRunner().invoke(runs, ["--root", str(project.root)])
    assert (result.exit_code, result.stderr) == (0, "kmeans was never materialized here\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--category", "nope"], "There is no category 'nope'. Known: coffee, games, tea."),
        (["--month", "January"], "'January' is no month"),
    ],
)
def test_what_is_no_partition_is_refused(project: Project, arguments: list[str], says: str) -> None:
    result = run(project, runs, *arguments)
    assert result.exit_code == 2
    assert says in " ".join(result.output.split())


def test_a_clustering_without_users_is_listed(project: Project) -> None:
    project.write_category("tea", "nobody-was-here")
    tweak(project)
    (found,) = listed(project)
    assert (found["users"], found["k"], found["sizes"], found["silhouette"]) == (0, 0, [], None)


def test_a_record_that_is_all_that_is_left_of_an_output_knows_when_it_was_computed() -> None:
    (found,) = side_by_side([record("a", 9, computed_at=dg.MetadataValue.timestamp(START))], None)
    assert found.computed_at == START


def test_a_clustering_of_an_earlier_version_is_listed_with_what_makes_it_again() -> None:
    """Before code version 3, k-means learned from everybody, and vectors were scaled by `max`."""
    old = KMeansConfig().model_dump(exclude={"fit_min_actions"})
    inputs = {**ClusteringInputsConfig().model_dump(), "scaling": "max"}
    (found,) = side_by_side(
        [record("a", config=dg.MetadataValue.json(old), clustering_inputs=dg.MetadataValue.json(inputs))], None
    )
    assert found.parameters == "kmeans||,100,0.001; fit_min_actions 1; scaling max"
    (shown,) = rows(as_metadata([found], Current(found.folder))["tweaks"])
    assert (shown["k"], shown["solidity"]) == ("2 chosen", "")


def test_the_list_says_how_solid_the_clusters_are_and_where_there_are_no_segments() -> None:
    chosen = dg.MetadataValue.json(KMeansConfig().model_dump())
    known = [
        record("c", 3, config=chosen, verdict="segments", solidity="1 solid, 1 doubtful"),
        record("b", 2, config=chosen, k=1, verdict="none"),
        record("a", 1, config=chosen, k=1, verdict="too_few"),
    ]
    shown = rows(as_metadata(side_by_side(known, None), at("c"))["tweaks"])
    assert [(row["k"], row["solidity"]) for row in shown] == [
        ("2 chosen", "1 solid, 1 doubtful"),
        ("1 (no segments)", ""),
        ("1 (too few people)", ""),
    ]


# --- beside each record ----------------------------------------------------------------------------------------------


def test_each_record_shows_the_tweaks_and_the_current_output(project: Project) -> None:
    first = tweak(project)
    second = tweak(project, kmeans={"k": 1, "label": "one"})
    newest = project.records("kmeans", TEA.key)[0]
    assert newest["current"] == Path(first).name
    assert [(row["current"], row["label"], row["folder"]) for row in rows(newest["tweaks"])] == [
        ("", "one", Path(second).name),
        ("yes", "", Path(first).name),
    ]


def test_a_run_that_finds_nothing_to_do_looks_no_record_up_but_the_newest(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_keeping, "_PAGE", 1)
    for label in ("first", "second", "third"):
        folder = tweak(project, kmeans={"label": label})
    fetched: list[int] = []
    fetch = type(project.instance).fetch_materializations

    def counted(*arguments: Any, **options: Any) -> Any:
        found = fetch(*arguments, **options)
        fetched.extend(record.storage_id for record in found.records if record.asset_key.path == ["kmeans"])
        return found

    monkeypatch.setattr(type(project.instance), "fetch_materializations", counted)
    assert tweak(project) == folder
    assert len(fetched) == 1
    newest, before = project.records("kmeans", TEA.key)[:2]
    assert newest["tweaks"] == before["tweaks"]


def test_beside_a_record_older_ones_are_looked_up_only_if_something_changed() -> None:
    shown = as_metadata(side_by_side([record("b", 2, "new"), record("a", 1)], None), at("b"))
    newest = record("b", 2, "new", **shown)
    same = record("b").metadata
    for details, now, looked_up in (
        (same, at("b"), False),
        (record("b", label="new").metadata, at("b"), False),
        (record("b", label="newer").metadata, at("b"), True),
        (record("a").metadata, at("a"), False),
        (same, at("a", promoted=True), False),
        (record("c").metadata, at("c"), True),
    ):
        history = Known(newest, record("a", 1))
        found = beside(history, TEA, details, now)
        assert found["current"] == Path(now.folder).name
        told = {row.data["folder"]: row.data["current"] for row in found["tweaks"].records}
        assert told.pop(Path(now.folder).name) == ("promoted" if now.promoted else "yes")
        assert set(told.values()) == {""}
        assert (history.asked > 1) is looked_up, (details, now)


def test_a_table_of_an_earlier_version_is_shown_with_the_columns_of_this_one() -> None:
    now = at("a")
    table = as_metadata(side_by_side([record("a", 1)], now), now)["tweaks"]
    old = [{name: value for name, value in row.items() if name != "solidity"} for row in rows(table)]
    columns = dg.TableSchema([dg.TableColumn(name) for name in old[0]])
    before = dg.MetadataValue.table([dg.TableRecord(row) for row in old], columns)
    found = beside(Known(record("a", 1, tweaks=before)), TEA, record("a").metadata, now)
    assert rows(found["tweaks"]) == [{**old[0], "solidity": ""}]


def test_the_table_of_a_record_stays_small_and_has_the_current_one() -> None:
    many = [record(f"t{place}", place) for place in reversed(range(30))]
    now = at("t3", promoted=True)
    shown = rows(as_metadata(side_by_side(many, now), now)["tweaks"])
    assert [row["folder"] for row in shown] == [f"t{place}" for place in range(29, 9, -1)] + ["t3"]
    assert shown[-1]["current"] == "promoted"


def test_of_many_clusters_a_table_has_the_largest() -> None:
    (found,) = side_by_side([record("a", sizes=dg.MetadataValue.text("1,200, 90, 10, few, few, few"))], None)
    (shown,) = rows(as_metadata([found], Current(found.folder))["tweaks"])
    assert shown["sizes"] == "1,200, 90, 10, few, few, …"
    assert found.sizes == (1200, 90, 10, None, None, None)


def test_a_record_of_an_earlier_version_is_listed_with_rounded_people_and_none_of_few() -> None:
    exact = record("a", users=1304, sizes=dg.MetadataValue.text("1,204, 93, 7"))
    del exact.metadata["min_people"]
    (found,) = side_by_side([exact], None)
    assert (found.users, found.sizes) == (1300, (1200, 90, None))
    of_few = record("a", users=7, sizes=dg.MetadataValue.text("7"), silhouette=0.5)
    del of_few.metadata["min_people"]
    (found,) = side_by_side([of_few], None)
    assert (found.users, found.sizes, found.wssse, found.silhouette) == (None, (None,), None, None)
    shown = as_metadata([found], Current(found.folder))
    before = record("a", 1, users=7, **shown)
    del before.metadata["min_people"]
    history = Known(before)
    beside(history, TEA, record("a").metadata, at("a"))
    assert history.asked > 1, "its table may have exact figures"


# --- promoting -------------------------------------------------------------------------------------------------------


def test_promote_makes_another_output_current_and_records_it(project: Project) -> None:
    one = tweak(project, kmeans={"k": 1, "label": "one"})
    two = tweak(project, kmeans={"k": 2})
    for option, folder in (
        (("--label", "one"), one),
        (("--folder", two), two),
        (("--folder", Path(one).name), one),
    ):
        result = run(project, promote, *option)
        assert result.exit_code == 0, result.output
        assert f"current output of kmeans tea|2024-01: {Path(folder).name}, promoted, k " in result.stdout
        named = json.loads((Path(folder).parent / "current.json").read_text())
        assert (named["folder"], named["promoted"]) == (folder, True)

    newest, before = project.records("kmeans", TEA.key)[:2]
    assert (newest["folder"], newest["label"]) == (project.store.place(one), "one")
    assert (newest["promoted"], newest["reused"]) == (True, True)
    assert newest["standing"].startswith("promoted: by a person, ")
    assert "label" not in before, "it was never given one"
    assert rows(newest["tweaks"])[1]["current"] == "promoted"
    assert [(found["current"], found["promoted"]) for found in listed(project)] == [(False, False), (True, True)]
    assert run(project, runs).stdout.splitlines()[2].startswith("promoted ")


def test_a_pipeline_that_finds_nothing_to_do_takes_no_promotion_back(project: Project) -> None:
    promoted = tweak(project, kmeans={"k": 1, "label": "one"})
    other = tweak(project)
    run(project, promote, "--label", "one")
    for _ in range(2):
        assert tweak(project) == other
        assert LAUNCHES == []
        assert current(project) == promoted
        newest = project.records("kmeans", TEA.key)[0]
        assert (newest["folder"], newest["current"]) == (project.store.place(other), Path(promoted).name)
        assert "promoted" not in newest, "that was the record before"
    tweak(project, kmeans={"k": 1})
    assert [found["promoted"] for found in listed(project)] == [False, True], "reusing the promoted one changes nothing"


def test_a_promotion_holds_whatever_is_computed_until_a_person_ends_it(project: Project) -> None:
    first = tweak(project)
    six = tweak(project, kmeans={"k": 6, "label": "six"})
    run(project, promote, "--label", "six")
    tweak(project, kmeans={"k": 9})
    assert current(project) == six
    project.write_raw("2024-01", users=20)
    outcome = project.pipeline(["2024-01"], ["tea"])["kmeans tea|2024-01"]
    assert outcome.status == "launched"
    assert current(project) == six
    says = f"beside {Path(six).name}, which is promoted: newer, and made with the deployment's own parameters."
    assert str(outcome.standing).startswith(says)
    assert project.records("kmeans", TEA.key)[0]["standing"] == outcome.standing
    assert f"kmeans tea|2024-01: {says}" in log(project)

    result = run(project, promote, "--automatic")
    assert result.exit_code == 0, result.output
    assert current(project) == outcome.folder != first
    assert not any(found["promoted"] for found in listed(project))
    newest = project.records("kmeans", TEA.key)[0]
    assert newest["standing"] == "current: made with the deployment's own parameters"
    assert "promoted" not in newest


def test_a_promotion_that_ends_leaves_what_it_made_current_if_there_is_nothing_else(project: Project) -> None:
    six = tweak(project, kmeans={"k": 6, "label": "six"})
    run(project, promote, "--label", "six")
    assert run(project, promote, "--automatic").exit_code == 0
    assert current(project) == six
    own = tweak(project)
    assert current(project) == own


@pytest.mark.parametrize(
    ("config", "foreign"),
    [
        ({"kmeans": {"k": 2}}, "k 2 (the deployment's own: not given)"),
        ({"kmeans": {"k": 2, "label": "two"}}, "label two; k 2 (the deployment's own: not given)"),
        ({"kmeans": {"n_init": 7}}, "n_init 7 (the deployment's own: 5)"),
        ({"k_selection": {"k_max": 3}}, "k_max 3 (the deployment's own: 12)"),
        ({"clustering_inputs": {"scaling": "none"}}, "scaling none (the deployment's own: loglog,idf,l2)"),
        ({"grouped_users": {"max_reject_ratio": 0.5}}, "max_reject_ratio 0.5 (the deployment's own: 0.01)"),
    ],
)
def test_what_is_not_as_the_deployment_has_it_stands_beside_and_says_why(
    project: Project, config: dict[str, Any], foreign: str
) -> None:
    first = tweak(project)
    for _ in range(2):  # computed, and then reused
        outcome = project.pipeline(["2024-01"], ["tea"], **config)["kmeans tea|2024-01"]
        assert outcome.folder != first
        assert outcome.standing == f"beside {Path(first).name}: {foreign}"
        assert current(project) == first
        assert project.records("kmeans", TEA.key)[0]["standing"] == outcome.standing
        assert f"kmeans tea|2024-01: {outcome.standing}" in log(project)
    for asset in ("clustering_inputs", "k_selection"):
        found = project.store.current(asset, TEA)
        assert found is not None
        assert found.why == "made with the deployment's own parameters"


def test_a_run_that_asks_for_it_promotes_what_it_makes(project: Project) -> None:
    first = tweak(project)
    second = tweak(project, kmeans={"k": 2, "label": "two"}, promote=True)
    assert current(project) == second
    newest = project.records("kmeans", TEA.key)[0]
    assert newest["promoted"] is True
    assert newest["standing"].startswith("promoted: by run ")
    assert tweak(project) == first
    assert current(project) == second, "as any promotion, it holds"


def test_a_partition_that_has_no_current_output_gets_one_and_the_log_says_so(project: Project) -> None:
    two = tweak(project, kmeans={"k": 2, "label": "two"})
    assert current(project) == two
    says = "current: there was no other; label two; k 2 (the deployment's own: not given)"
    assert project.records("kmeans", TEA.key)[0]["standing"] == says
    assert f"kmeans tea|2024-01: {says}" in log(project)
    tweak(project, kmeans={"k": 1})
    assert current(project) == two
    own = tweak(project)
    assert current(project) == own


def test_kmeans_alone_stands_beside_if_what_it_reads_is_a_tweak(project: Project) -> None:
    first = tweak(project)
    project.pipeline(["2024-01"], ["tea"], clustering_inputs={"scaling": "none"})
    project.write_raw("2024-01", users=13)
    project.pipeline(["2024-01"], ["tea"], clustering_inputs={"scaling": "none"}, kmeans={"k": 1})
    assert project.run(["k_selection", "kmeans"], TEA.key, TEA.key).success
    newest = project.records("kmeans", TEA.key)[0]
    assert newest["standing"] == f"beside {Path(first).name}: scaling none (the deployment's own: loglog,idf,l2)"
    assert current(project) == first


def test_a_small_job_promotes_from_the_ui(project: Project) -> None:
    first = tweak(project)
    two = tweak(project, kmeans={"k": 2, "label": "two"})

    assert promote_by_job(project, label="two").success
    assert current(project) == two
    assert f"current output of kmeans tea|2024-01: {Path(two).name}, promoted, k " in log(project)
    assert project.records("kmeans", TEA.key)[0]["promoted"] is True
    assert promote_by_job(project, automatic=True).success
    assert current(project) == first
    for config, says in (
        ({"label": "six"}, "No output on record has the label 'six'. There are: two."),
        ({}, "Name the output"),
        ({"label": "two", "month": "January"}, "'January' is no month"),
    ):
        assert says in why(promote_by_job(project, **config))
    assert current(project) == first


@pytest.mark.parametrize("way", ["the command", "the job"])
def test_what_was_promoted_shows_its_checks_as_evaluated(project: Project, way: str) -> None:
    first = tweak(project)
    tweak(project, kmeans={"k": 2, "label": "two"})
    tweak(project)
    for choice in ({"label": "two"}, {"folder": Path(first).name}):  # twice: Dagster may refuse a second evaluation
        if way == "the command":
            (option,) = (f"--{name}={value}" for name, value in choice.items())
            result = run(project, promote, option)
            assert result.exit_code == 0, result.output
        else:
            assert promote_by_job(project, **choice).success
        (newest,) = storage_ids(project.instance, "kmeans", [TEA]).values()
        for name, evaluation in project.checks("kmeans", TEA.key).items():
            assert evaluation.passed, name
            target = evaluation.target_materialization_data
            assert target is not None
            assert target.storage_id == newest, f"{name} is shown as not evaluated"


def test_a_promotion_by_a_command_is_a_run_and_a_mistyped_one_is_none(project: Project) -> None:
    tweak(project, kmeans={"k": 2, "label": "two"})
    assert run(project, promote, "--label", "tow").exit_code == 2
    assert run(project, promote, "--label", "two").exit_code == 0
    assert [made.job_name for made in project.instance.get_runs()] == ["promote", "whole_month"]


def test_a_promoted_output_that_is_gone_is_current_no_longer(project: Project) -> None:
    promoted = tweak(project, kmeans={"k": 1, "label": "one"})
    other = tweak(project)
    run(project, promote, "--label", "one")
    tweak(project)
    project.delete(promoted)
    tweak(project)
    assert current(project) == other
    newest = project.records("kmeans", TEA.key)[0]
    assert [row["current"] for row in rows(newest["tweaks"])] == ["yes", ""]


def test_a_label_is_that_of_the_output_that_was_given_it_last(project: Project) -> None:
    tweak(project, kmeans={"k": 1, "label": "best"})
    second = tweak(project, kmeans={"k": 2, "label": "best"})
    tweak(project, kmeans={"k": 1})
    assert run(project, promote, "--label", "best").exit_code == 0
    assert current(project) == second


def test_what_cannot_be_promoted_is_told_with_what_can(project: Project) -> None:
    folder = tweak(project, kmeans={"k": 1, "label": "one", "params": "random,5,0.1"})
    other = tweak(project)
    project.delete(folder)
    for arguments, says in (
        (["--label", "two"], "No output on record has the label 'two'. There are: one."),
        (["--folder", "20000101"], f"has the folder '20000101'. There are: {Path(other).name}, {Path(folder).name}."),
        (["--label", "one"], f"The output {folder} is gone. Make it again, by a pipeline with its parameters: k 1;"),
        (["--label", "one", "--folder", "x"], "by --label or by --folder"),
        (["--label", "one", "--automatic"], "by --label or by --folder"),
        ([], "by --label or by --folder"),
    ):
        result = run(project, promote, *arguments)
        assert result.exit_code == 2
        assert says in " ".join(result.output.split()), arguments
    assert current(project) == other
    assert len(project.records("kmeans", TEA.key)) == 2


# --- the rule --------------------------------------------------------------------------------------------------------


def finished(store: Store, name: str) -> str:
    folder = Path(store.outputs("kmeans", TEA), name)
    folder.mkdir(parents=True)
    manifest = {"step": "kmeans", "fingerprint": name, "files": [], "summary": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return str(folder)


def test_the_newest_of_the_deployments_own_is_current_unless_another_was_promoted(tmp_path: Path) -> None:
    store = Store(root=str(tmp_path))
    a, b = finished(store, "a"), finished(store, "b")

    def point(folder: str, **asked: str) -> Current:
        pointed = store.point_current("kmeans", TEA, folder, "f", **asked)
        assert store.current("kmeans", TEA) == pointed
        return pointed

    assert store.current("kmeans", TEA) is None
    assert point(a, beside="label a") == Current(a), "there is no other"
    assert point(b, beside="label b") == Current(a)
    assert point(b) == Current(b)
    assert point(a, promoted="by me") == Current(a, promoted=True)
    assert point(b) == Current(a, promoted=True)
    assert point(a) == Current(a, promoted=True)
    assert store.end_promotion("kmeans", TEA) == store.current("kmeans", TEA) == Current(a)
    assert point(b) == Current(b)
    assert store.end_promotion("kmeans", TEA) == Current(b)


def test_a_promotion_outlives_the_move_of_its_root_and_its_readers_find_it(tmp_path: Path) -> None:
    before, after = Store(root=str(tmp_path / "before")), Store(root=str(tmp_path / "after"))
    before.point_current("kmeans", TEA, finished(before, "a"), "f", promoted="by me")
    (tmp_path / "before").rename(tmp_path / "after")
    moved = Current(str(Path(after.outputs("kmeans", TEA), "a")), promoted=True)
    assert after.current("kmeans", TEA) == moved
    assert after.point_current("kmeans", TEA, finished(after, "b"), "g") == moved
    named = json.loads(Path(after.outputs("kmeans", TEA), "current.json").read_text())
    assert (named["folder"], named["fingerprint"]) == (moved.folder, "f")


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '"a"'])
def test_a_current_json_that_says_nothing_is_written_anew(tmp_path: Path, text: str) -> None:
    store = Store(root=str(tmp_path))
    folder = finished(store, "a")
    Path(folder).with_name("current.json").write_text(text)
    assert store.current("kmeans", TEA) is None
    assert store.point_current("kmeans", TEA, folder, "f") == Current(folder)


def test_records_are_all_found_page_by_page_whatever_else_is_asked_meanwhile(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_keeping, "_PAGE", 1)
    for place in range(3):
        for category in ("tea", "coffee"):
            partition = Partition("2024-01", category)
            details = {"fingerprint": str(place), "folder": f"{project.store.outputs('kmeans', partition)}/{place}"}
            project.instance.report_runless_asset_event(
                dg.AssetMaterialization("kmeans", partition=partition.key, metadata=details)
            )
    coffee = Partition("2024-01", "coffee")
    history = History(project.instance, project.store, "kmeans", [TEA, coffee])
    seen = []
    for found in history.all(TEA):
        seen.append(found.fingerprint)
        assert len(list(history.all(coffee))) == 3
    assert seen == ["2", "1", "0"]
