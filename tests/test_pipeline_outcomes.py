"""What a pipeline starts, and what it says became of each target: without jobs and Dagster's database."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import Target
from audience_explorer_dagster.records import metadata
from audience_explorer_dagster.run_config import MonthRunConfig
from audience_explorer_dagster.running import pipeline
from audience_explorer_dagster.running.in_this_process import Result
from audience_explorer_dagster.running.pipeline import INTERRUPTED, Outcome
from spark_jobs.config import KMeansConfig
from spark_jobs.errors import InputError

TEA, MILK = Partition("2024-01", "tea"), Partition("2024-01", "milk")
USERS = Target("grouped_users", Partition("2024-01"))
OF_CATEGORY = ("clustering_inputs", "k_selection", "kmeans", "segments", "audience_report")
KNOWN = ["2023-11", "2023-12", "2024-01"]


@pytest.fixture(autouse=True)
def months(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    found = SimpleNamespace(keys=KNOWN, get_partition_keys=lambda: found.keys)
    monkeypatch.setattr(pipeline, "months", found)
    return found


# --- which months


def test_months_are_taken_in_order_and_once_and_without_any_the_last_one_is() -> None:
    assert pipeline.check_months(["2024-01", "2023-11", "2024-01"]) == ["2023-11", "2024-01"]
    assert pipeline.check_months([]) == ["2024-01"]


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("2024-13", r"^'2024-13' is no month; one is named YYYY-MM, such as 2024-01\.$"),
        ("january", r"^'january' is no month"),
        ("2024-02", r"^2024-02 is no partition: they go from 2023-11 .* to 2024-01, the last month that ended\.$"),
    ],
)
def test_what_is_no_month_and_what_is_no_partition_are_refused(key: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        pipeline.check_months(["2023-12", key])


def test_before_the_first_month_has_ended_there_is_nothing_to_run(months: SimpleNamespace) -> None:
    months.keys = []
    with pytest.raises(InputError, match=r"^No month has ended since AUDIENCE_EXPLORER_START_MONTH"):
        pipeline.check_months(["2024-01"])


def test_months_between_have_both_ends_and_are_in_order() -> None:
    assert pipeline.months_between("2023-11", "2023-12") == ["2023-11", "2023-12"]
    assert pipeline.months_between("2023-12", "2023-12") == ["2023-12"]
    assert pipeline.months_between("2023-12", None) == ["2023-12", "2024-01"]
    with pytest.raises(InputError, match=r"^2023-12 comes after 2023-11, so there is no month"):
        pipeline.months_between("2023-12", "2023-11")


def test_a_pipeline_is_for_users_and_all_assets_of_each_category_month_by_month() -> None:
    found = pipeline.targets_of(["2023-12", "2024-01"], ["tea", "milk"], MonthRunConfig())
    assert found[:11] == [
        Target("grouped_users", Partition("2023-12")),
        *(Target(asset, Partition("2023-12", name)) for name in ("tea", "milk") for asset in OF_CATEGORY),
    ]
    assert len(found) == 22
    with_k = MonthRunConfig(kmeans=KMeansConfig(k=2).model_dump())
    assert "k_selection" not in {target.asset for target in pipeline.targets_of(["2024-01"], ["tea"], with_k)}


# --- what became of a run


def recorded(target: Target, **details: Any) -> dg.AssetMaterialization:
    known = {"folder": dg.MetadataValue.path(f"{target.asset}/x"), "root": dg.MetadataValue.path("/root")}
    return dg.AssetMaterialization(target.asset, partition=target.partition.key, metadata={**known, **details})


def failure(message: str = "", name: str = "Failure", cause: str | None = None, **targets: str) -> Any:
    """A step's failure: with an error, or the targets that failed."""
    failed = {Target("kmeans", Partition("2024-01", category)): why for category, why in targets.items()}
    data = SimpleNamespace(metadata=metadata.of_failures(failed)) if targets else None
    of_cause = None if cause is None else SimpleNamespace(message=f" {message}\n", cls_name=cause, cause=None)
    error = SimpleNamespace(message=f" {message}\n", cls_name=name, cause=of_cause) if message else None
    return SimpleNamespace(step_failure_data=SimpleNamespace(user_failure_data=data, error=error))


def ended(success: bool, *events: dg.AssetMaterialization, failures: Sequence[Any] = ()) -> pipeline._Ended:
    def all_logs(run_id: str, of_type: Any) -> list[Any]:
        assert (run_id, of_type) == ("r", dg.DagsterEventType.ASSET_MATERIALIZATION)
        return [SimpleNamespace(asset_materialization=event) for event in (*events, None)]

    instance: Any = SimpleNamespace(all_logs=all_logs)
    return pipeline._ended(instance, Result("r", success, failures))


def test_what_was_recorded_is_launched_or_reused_and_has_what_a_person_asks_first() -> None:
    target = Target("kmeans", TEA)
    full = {"reused": True, "users": 120, "min_people": 10, "k": 3, "verdict": "segments", "standing": "current"}
    reused = Outcome("kmeans", TEA, "reused", "/root/kmeans/x", None, 120, 3, "segments", "current")
    assert ended(True, recorded(target, **full)).recorded == {target: reused}
    launched = Outcome("kmeans", TEA, "launched", "/root/kmeans/x")
    assert ended(True, recorded(target)).recorded == {target: launched}
    assert reused.as_json() == {
        **{"asset": "kmeans", "partition": "tea|2024-01", "status": "reused", "folder": "/root/kmeans/x"},
        **{"error": None, "users": 120, "k": 3, "verdict": "segments", "standing": "current"},
    }


@pytest.mark.parametrize(
    ("success", "failures", "failed", "otherwise"),
    [
        (True, [], {}, "it was not recorded"),
        (False, [], {}, "its run failed"),
        (False, [failure("no disk")], {}, "no disk"),
        (False, [failure("no disk", cause="OSError")], {}, "no disk"),
        (False, [failure("stop", "DagsterExecutionInterruptedError")], {}, INTERRUPTED),
        (False, [failure("stop", cause="DagsterExecutionInterruptedError")], {}, INTERRUPTED),
        (False, [failure("two failed", tea="bad", milk="worse")], {"tea": "bad", "milk": "worse"}, "its run failed"),
        (False, [failure()], {}, "its run failed"),
        (False, [failure(tea="bad"), failure("no disk")], {"tea": "bad"}, "no disk"),
    ],
)
def test_what_is_not_done_has_its_own_reason_or_that_of_its_run(
    success: bool, failures: Sequence[Any], failed: dict[str, str], otherwise: str
) -> None:
    found = ended(success, failures=failures)
    assert found.failed == {Target("kmeans", Partition("2024-01", name)): why for name, why in failed.items()}
    assert (found.otherwise, found.recorded) == (otherwise, {})


class Runs:
    """In place of Dagster: how each run ended, and what was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *endings: pipeline._Ended, success: bool = True):
        self.endings, self.success = list(endings), success
        self.asked: list[tuple[Any, ...]] = []
        monkeypatch.setattr(pipeline, "execute", self._execute)
        monkeypatch.setattr(pipeline, "_ended", lambda *_: self.endings.pop(0))
        monkeypatch.setattr(pipeline, "new_folder_name", lambda: "pipeline-1")

    def _execute(self, job: Any, _: Any, *given: Any) -> Result:
        self.asked.append((job, *given))
        return Result("r", self.success, ())

    def run(self, months_: Sequence[str], names: Sequence[str] = ("tea",)) -> tuple[list[Outcome], list[str]]:
        said: list[str] = []
        definitions: Any = SimpleNamespace(resolve_job_def=lambda name: f"job {name}")
        instance: Any = None
        found = pipeline.run_pipeline(definitions, instance, months_, names, MonthRunConfig(), said.append)
        return found, said


def done(target: Target) -> Outcome:
    return Outcome(target.asset, target.partition, "launched", "/folder")


def test_each_month_is_a_run_of_the_whole_month_and_all_are_one_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = pipeline._Ended({}, {}, "it was not recorded")
    runs = Runs(monkeypatch, nothing, nothing)
    outcomes, said = runs.run(["2023-12", "2024-01"], ["tea", "milk"])
    assert said == ["2023-12: 2 categories", "2024-01: 2 categories"]
    assert Runs(monkeypatch, nothing).run(["2024-01"])[1] == ["2024-01: 1 category"]
    for (job, assets, tags, config, listen), month in zip(runs.asked, ("2023-12", "2024-01"), strict=True):
        assert (job, assets, listen) == ("job whole_month", None, None)
        assert tags == {
            **{"dagster/partition": month, pipeline.PIPELINE_TAG: "pipeline-1"},
            "dagster/partition_set": "whole_month_partition_set",
        }
        assert config["ops"]["month"]["config"]["categories"] == ["tea", "milk"]
    assert len(outcomes) == 22
    assert {(outcome.status, outcome.error) for outcome in outcomes} == {("failed", "it was not recorded")}


def test_each_target_has_an_outcome_and_so_has_what_followed_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    later = Target("segments", Partition("2024-02", "tea"))
    inputs, clusters = Target("clustering_inputs", TEA), Target("kmeans", TEA)
    runs = Runs(
        monkeypatch,
        pipeline._Ended({of: done(of) for of in (USERS, inputs, later)}, {clusters: "bad"}, "its run failed"),
        success=False,
    )
    outcomes, _ = runs.run(["2024-01"])
    errors = {Target(each.asset, each.partition): each.error for each in outcomes}
    assert errors == {
        **{USERS: None, inputs: None, clusters: "bad", later: None},
        **{Target(asset, TEA): "its run failed" for asset in ("k_selection", "segments", "audience_report")},
    }


def test_a_run_that_failed_though_all_is_there_is_a_failure_of_its_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = pipeline.targets_of(["2024-01"], ["tea"], MonthRunConfig())
    everything = pipeline._Ended({of: done(of) for of in targets}, {}, "a message is lost")
    outcomes, _ = Runs(monkeypatch, everything, success=False).run(["2024-01"])
    assert outcomes[-1] == Outcome("launch", Partition("2024-01"), "failed", error="a message is lost")
    assert len(outcomes) == len(targets) + 1
    outcomes, _ = Runs(monkeypatch, everything).run(["2024-01"])
    assert [outcome.status for outcome in outcomes] == ["launched"] * len(targets)


def test_after_an_interrupt_no_further_month_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(monkeypatch, pipeline._Ended({USERS: done(USERS)}, {}, INTERRUPTED), success=False)
    outcomes, said = runs.run(["2023-12", "2024-01"])
    assert said == ["2023-12: 1 category"]
    assert len(runs.asked) == 1
    of_january = [outcome for outcome in outcomes if str(outcome.partition).endswith("2024-01") and outcome.error]
    assert [outcome.error for outcome in of_january] == [INTERRUPTED] * 6


# --- the same run again


@pytest.mark.parametrize(
    ("tag", "repeated"),
    [
        ("dagster/partition", True),
        ("dagster/asset_partition_range_start", True),
        ("dagster/asset_partition_range_end", True),
        ("dagster/partition_set", False),  # or two runs of a partition would be on the job's page
        ("dagster/backfill", False),
        (".dagster/grpc_info", False),
        ("team", True),
    ],
)
def test_a_run_that_repeats_another_has_its_partitions_and_the_tags_of_people(tag: str, repeated: bool) -> None:
    assert pipeline._is_repeated(tag) is repeated


def repeat(root: str | None = None, assets: Sequence[str] | None = ("b", "a"), **tags: str) -> list[Outcome]:
    run: Any = SimpleNamespace(
        **{"run_id": "first", "root_run_id": root, "job_name": "job", "run_config": {"ops": {}}},
        asset_selection=None if assets is None else {dg.AssetKey(name) for name in assets},
        tags={"dagster/partition": "2024-01", "team": "x", "dagster/backfill": "y", **tags},
    )
    definitions: Any = SimpleNamespace(resolve_job_def=lambda name: name)
    instance: Any = None
    return pipeline.run_again(definitions, instance, run, "pipeline-2")


def test_a_run_is_repeated_with_its_config_assets_and_partitions_and_names_the_first_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clusters = Target("kmeans", TEA)
    ending = pipeline._Ended({USERS: done(USERS)}, {clusters: "bad"}, "its run failed")
    runs = Runs(monkeypatch, *[ending] * 4, success=False)
    outcomes = repeat()
    assert outcomes == [done(USERS), Outcome("kmeans", TEA, "failed", error="bad")]
    ((job, assets, tags, config),) = runs.asked
    assert (job, assets, config) == ("job", [dg.AssetKey("a"), dg.AssetKey("b")], {"ops": {}})
    own = {"dagster/partition": "2024-01", "team": "x", pipeline.PIPELINE_TAG: "pipeline-2"}
    assert tags == {**own, "dagster/parent_run_id": "first", "dagster/root_run_id": "first"}
    for root, given in (("older", {}), (None, {"dagster/root_run_id": "older"})):
        repeat(root, **given)
        assert runs.asked[-1][2]["dagster/root_run_id"] == "older"
    repeat(assets=None)
    assert runs.asked[-1][1] is None, "all of the job"


def test_a_repeated_run_that_fails_without_saying_of_which_target_fails_as_its_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nothing = pipeline._Ended({}, {}, "no disk")
    Runs(monkeypatch, nothing, success=False)
    assert repeat() == [Outcome("job", "2024-01", "failed", error="no disk")]
    Runs(monkeypatch, nothing)
    assert repeat() == []
