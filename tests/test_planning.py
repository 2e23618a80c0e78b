"""Plans as values: what is reused, what is computed and why, and what is not possible. No Dagster instance, no job."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import (
    AUDIENCE_REPORT,
    CLUSTERING_INPUTS,
    GROUPED_USERS,
    K_SELECTION,
    KMEANS,
    SEGMENTS,
    Target,
)
from audience_explorer_dagster.planning.decisions import Source
from audience_explorer_dagster.planning.explain import Recipe, why_not_reused
from audience_explorer_dagster.planning.following import Following
from audience_explorer_dagster.planning.plan import Plan, plan_following, plan_grouping, plan_month, plan_segments
from audience_explorer_dagster.records.history import Record
from audience_explorer_dagster.run_config import GroupingRunConfig, MonthRunConfig, SegmentsRunConfig
from audience_explorer_dagster.running.inputs import category_fingerprints, list_raw_files, raw_fingerprints
from audience_explorer_dagster.store import Store
from spark_jobs import follow_segments, group_by_user, kmeans, make_clustering_inputs, make_report, select_k
from spark_jobs.config import GroupedUsersConfig, KMeansConfig
from spark_jobs.errors import InputError
from spark_jobs.following.edits import PinK, Rename
from spark_jobs.job_configs import FollowSegments, GroupByUser, KMeans, MakeClusteringInputs, MakeReport, SelectK

JOBS = (group_by_user, make_clustering_inputs, select_k, kmeans, follow_segments, make_report)
STEPS: dict[str, Any] = {job.STEP: job for job in JOBS}
OF_A_CATEGORY = (CLUSTERING_INPUTS, K_SELECTION, KMEANS, SEGMENTS, AUDIENCE_REPORT)
MONTH = Partition("2024-01")
TEA = Partition("2024-01", "tea")


@dataclass
class Records:
    """The records of an asset, the newest first."""

    made: list[Record] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)  # folders

    def newest(self, partition: Partition) -> Record | None:
        return next((record for record in self.made if record.partition == partition), None)

    def reusable(self, partition: Partition, fingerprint: str) -> Record | None:
        wanted = (partition, fingerprint)
        found = (record for record in self.made if (record.partition, record.fingerprint) == wanted)
        return next((record for record in found if record.folder not in self.gone), None)

    def damage_of(self, record: Record) -> str:
        return "" if record.folder in self.gone else "a file of it is cut"

    def made_from(self, partition: Partition, fingerprint: str | None) -> Record | None:
        found = (record for record in self.made if record.partition == partition and fingerprint in record.inputs)
        return next((record for record in found if record.folder not in self.gone), None)


class World:
    """Inputs by their fingerprints, and what is on record of them."""

    def __init__(self) -> None:
        self.store = Store(root="/root")
        self.raw: dict[str, str | Exception] = {"2024-01": "raw 1", "2024-02": "raw 2"}
        self.categories: dict[str, str | Exception] = {"coffee": "c", "games": "g", "tea": "t"}
        self.records = {asset: Records() for asset in STEPS}
        self.edits: dict[str, Any] = {}
        self.runs = 0

    def month(self, month: str = "2024-01", categories: Sequence[str] = ("tea",), **config: Any) -> Plan:
        """The plan of a whole month."""
        wanted = {name: self.categories[name] for name in categories}
        self.runs += 1
        return plan_month(
            Partition(month),
            self.raw[month],
            wanted,
            MonthRunConfig(**config),
            self.records,
            Following(self.before(Partition(month, name) for name in categories), self.edits),
            self.store,
            f"run-{self.runs}",
        )

    def segments(self, *partitions: Partition, assets: Sequence[str] = OF_A_CATEGORY, **config: Any) -> Plan:
        """The plan of a run over a block of partitions."""
        self.runs += 1
        asked = SegmentsRunConfig(**config)
        return plan_segments(
            partitions,
            set(assets),
            self.categories,
            asked,
            self.records,
            Following(self.before(partitions), self.edits),
            self.store,
            f"run-{self.runs}",
        )

    def before(self, partitions: Iterable[Partition]) -> dict[Partition, Source]:
        """The newest segments of the last month before each partition."""
        found = {}
        for partition in partitions:
            earlier = [
                record
                for record in self.records[SEGMENTS].made
                if record.partition.category == partition.category and record.partition.month < partition.month
            ]
            if earlier:
                last = max(earlier, key=lambda record: record.partition.month)
                found[partition] = Source(Target(SEGMENTS, last.partition), last.fingerprint, last.folder)
        return found

    def run(self, month: str = "2024-01", categories: Sequence[str] = ("tea",), **config: Any) -> Plan:
        """Put on record what the plan of a month comes to."""
        plan = self.month(month, categories, **config)
        for target, reuse in plan.reused.items():
            self.records[target.asset].made.insert(0, reuse.record)
        for target, computation in plan.computed.items():
            read = [source for source in computation.sources if not _is_along(target, source)]
            inputs = tuple(source.fingerprint for source in read)
            if target.asset == GROUPED_USERS:
                inputs = (str(self.raw[month]),)
            elif target.asset == CLUSTERING_INPUTS:
                inputs += (str(self.categories[str(target.partition.category)]),)
            made_with: Any = computation.config
            record = Record(
                target.partition,
                computation.fingerprint,
                computation.folder,
                inputs,
                f"run-{self.runs}",
                datetime(2024, 3, 1, tzinfo=timezone.utc),
                {"config": made_with.config.model_dump(mode="json"), "code_version": STEPS[target.asset].CODE_VERSION},
            )
            self.records[target.asset].made.insert(0, record)
        return plan


def _is_along(target: Target, source: Source) -> bool:
    """Whether a job reads an output that decides nothing by itself: its fingerprint is in that of another one."""
    along = {SEGMENTS: CLUSTERING_INPUTS, AUDIENCE_REPORT: K_SELECTION}
    return along.get(target.asset) == source.target.asset


@pytest.fixture
def world() -> World:
    return World()


def computed(plan: Plan) -> dict[str, str]:
    """Why, by target."""
    assert not plan.impossible
    return {str(target): computation.why for target, computation in plan.computed.items()}


def impossible(plan: Plan) -> dict[str, str]:
    return {str(target): decision.why for target, decision in plan.impossible.items()}


# --- what is reused --------------------------------------------------------------------------------------------------


def test_the_assets_are_named_after_the_steps_of_their_jobs() -> None:
    assert list(STEPS) == [GROUPED_USERS, *OF_A_CATEGORY]


def test_a_target_is_restored_from_its_name() -> None:
    for target in (Target(KMEANS, TEA), Target(GROUPED_USERS, MONTH)):
        assert Target.parse(str(target)) == target
    assert str(Target(KMEANS, TEA)) == "kmeans tea|2024-01"


def test_what_was_never_made_is_computed_and_a_rerun_launches_nothing(world: World) -> None:
    assert computed(world.run()) == dict.fromkeys(
        ("grouped_users 2024-01", *(f"{asset} tea|2024-01" for asset in OF_A_CATEGORY)), "never made"
    )
    again = world.run()
    assert (again.computed, again.jobs) == ({}, ())
    assert {str(target): reuse.folder for target, reuse in again.reused.items()}["kmeans tea|2024-01"] == (
        "/root/kmeans/month=2024-01/category=tea/run-1"
    )


def test_changed_kmeans_parameters_launch_kmeans_and_its_report_and_going_back_nothing(world: World) -> None:
    world.run()
    tweaked = world.run(kmeans={"params": "random,5,0.1", "label": "tweak"})
    assert computed(tweaked) == {
        "kmeans tea|2024-01": "params kmeans||,100,0.001 → random,5,0.1",
        "segments tea|2024-01": "kmeans changed",
        "audience_report tea|2024-01": "kmeans changed, segments changed",
    }
    assert [job.id for job in tweaked.jobs] == [
        "kmeans tea|2024-01",
        "follow_segments tea|2024-01",
        "make_report tea|2024-01",
    ]
    assert computed(world.run()) == {}
    assert computed(world.run(kmeans={"params": "random,5,0.1"})) == {}


def test_params_that_mean_the_same_and_a_label_compute_nothing(world: World) -> None:
    world.run(kmeans={"params": "kmeans||,100,0.001"})
    again = world.month(kmeans={"params": "k-means++,100,1e-3", "label": "final"})
    assert computed(again) == {}
    assert again.label == "final"


def test_with_a_given_k_the_choice_of_k_is_no_input(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first = world.run(kmeans={"k": 2})
    assert {target.asset for target in first.decisions} == {GROUPED_USERS, *OF_A_CATEGORY} - {K_SELECTION}
    monkeypatch.setattr(select_k, "CODE_VERSION", "new")
    assert computed(world.month(kmeans={"k": 2})) == {}
    assert computed(world.month(kmeans={"k": 3})) == {
        "kmeans tea|2024-01": "k 2 → 3",
        "segments tea|2024-01": "kmeans changed",
        "audience_report tea|2024-01": "kmeans changed, segments changed",
    }
    assert computed(world.month())["kmeans tea|2024-01"] == "k 2 → not given"


def test_changed_scaling_redoes_the_inputs_and_what_follows(world: World) -> None:
    world.run()
    config = {"scaling": "none", "action_weights": {"page_like": 2}}
    assert computed(world.month(clustering_inputs=config)) == {
        "clustering_inputs tea|2024-01": "action_weights.page_like 1.0 → 2.0, scaling loglog,idf,l2 → none",
        "k_selection tea|2024-01": "clustering_inputs changed",
        "kmeans tea|2024-01": "clustering_inputs changed, k_selection changed",
        "segments tea|2024-01": "kmeans changed",
        "audience_report tea|2024-01": "kmeans changed, segments changed",
    }


def test_changed_raw_data_redo_that_month(world: World) -> None:
    for month in world.raw:
        world.run(month)
    world.raw["2024-02"] = "other"
    assert computed(world.month("2024-01")) == {}
    whys = computed(world.month("2024-02"))
    assert len(whys) == 6
    assert whys["grouped_users 2024-02"] == "raw data changed"
    assert whys["clustering_inputs tea|2024-02"] == "grouped_users changed"


def test_a_changed_category_file_redoes_that_category(world: World) -> None:
    world.run(categories=["tea", "games"])
    world.categories["games"] = "other"
    whys = computed(world.month(categories=["tea", "games"]))
    assert whys.keys() == {f"{asset} games|2024-01" for asset in OF_A_CATEGORY}
    assert whys["clustering_inputs games|2024-01"] == "category file changed"


@pytest.mark.parametrize("place", range(6))
def test_a_new_code_version_of_a_job_redoes_from_it_on(
    world: World, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    world.run()
    from_it_on = list(STEPS)[place:]
    step = STEPS[from_it_on[0]]
    monkeypatch.setattr(step, "CODE_VERSION", "new")
    whys = {name.split()[0]: why for name, why in computed(world.month()).items()}
    assert list(whys) == from_it_on
    assert whys[step.STEP].endswith(" → new")
    assert whys[step.STEP].startswith("code version ")


def test_an_output_that_is_gone_is_made_again_and_nothing_else(world: World) -> None:
    first = world.run()
    for asset in (KMEANS, GROUPED_USERS):
        gone = next(c.folder for target, c in first.computed.items() if target.asset == asset)
        world.records[asset].gone.add(gone)
    assert computed(world.month()) == dict.fromkeys(
        ("grouped_users 2024-01", "kmeans tea|2024-01"), "its output is gone"
    )


def test_force_computes_what_is_there(world: World) -> None:
    first = world.run()
    again = world.month(force=True)
    assert computed(again) == dict.fromkeys(computed(first), "forced")
    assert all(again.computed[target].folder != first.computed[target].folder for target in first.computed)


def test_the_engine_and_its_resources_decide_nothing(world: World) -> None:
    world.run()
    assert computed(world.month(engine="spark", strict_schema=True, resources={"cores": 3})) == {}


# --- the month before ------------------------------------------------------------------------------------------------

FEBRUARY_TEA = Partition("2024-02", "tea")
MARCH_TEA = Partition("2024-03", "tea")


def previous_of(plan: Plan, partition: Partition) -> str | None:
    """The folder that a partition's segments are to be followed from."""
    job = plan.computed[Target(SEGMENTS, partition)].config
    assert isinstance(job, FollowSegments)
    return job.previous


def kmeans_of(plan: Plan) -> KMeans:
    job = plan.computed[Target(KMEANS, TEA)].config
    assert isinstance(job, KMeans)
    return job


def folder_of(plan: Plan, partition: Partition) -> str:
    return plan.computed[Target(SEGMENTS, partition)].folder


def follow(world: World, *partitions: Partition) -> Plan:
    """The plan that follows partitions again, whose newest outputs are the current ones."""
    clusters, current = {}, {}
    for partition in partitions:
        kmeans, segments = (world.records[asset].newest(partition) for asset in (KMEANS, SEGMENTS))
        assert kmeans is not None
        assert segments is not None
        clusters[partition] = Source(Target(KMEANS, partition), kmeans.fingerprint, kmeans.folder)
        current[partition] = segments.fingerprint
    following = Following(world.before(partitions), world.edits)
    return plan_following(clusters, following, current, MonthRunConfig(), world.records, world.store, "again")


def test_segments_are_followed_from_the_last_month_that_has_some(world: World) -> None:
    world.raw["2024-03"] = "raw 3"
    january = world.run("2024-01")
    assert previous_of(january, TEA) is None
    assert previous_of(world.run("2024-03"), MARCH_TEA) == folder_of(january, TEA)


def test_in_a_run_of_several_months_each_follows_the_one_before(world: World) -> None:
    world.run("2024-01")
    world.run("2024-02")
    again = world.segments(FEBRUARY_TEA, TEA, force=True)
    assert previous_of(again, FEBRUARY_TEA) == folder_of(again, TEA)
    needs = {job.id: job.needs for job in again.jobs}["follow_segments tea|2024-02"]
    assert "follow_segments tea|2024-01" in needs


def test_a_tweak_of_several_months_follows_what_is_current(world: World) -> None:
    own = world.run("2024-01")
    world.run("2024-02")
    tweaked = world.segments(TEA, FEBRUARY_TEA, kmeans={"k": 3, "label": "three"})
    assert previous_of(tweaked, FEBRUARY_TEA) == folder_of(own, TEA)


def test_a_month_that_comes_late_redoes_the_segments_and_reports_after_it_and_nothing_else(world: World) -> None:
    world.raw["2024-03"] = "raw 3"
    for month in ("2024-02", "2024-03", "2024-01"):
        world.run(month)
    again = follow(world, TEA, FEBRUARY_TEA, MARCH_TEA)
    assert computed(again) == {
        "segments tea|2024-02": "the month before was not there",
        "audience_report tea|2024-02": "segments changed",
        "segments tea|2024-03": "the month before changed",
        "audience_report tea|2024-03": "segments changed",
    }
    assert previous_of(again, MARCH_TEA) == folder_of(again, FEBRUARY_TEA)


def test_months_that_follow_each_other_are_left_as_they_are(world: World) -> None:
    world.run("2024-01")
    world.run("2024-02")
    assert follow(world, TEA, FEBRUARY_TEA).decisions == {}


def test_clusters_of_which_the_inputs_are_gone_are_not_followed_again(world: World) -> None:
    first = world.run("2024-01")
    world.run("2024-02")
    world.records[CLUSTERING_INPUTS].gone.add(first.computed[Target(CLUSTERING_INPUTS, TEA)].folder)
    alone = world.segments(TEA, assets=[SEGMENTS], force=True)
    says = "the output of clustering_inputs of tea|2024-01 is gone. Select it as well."
    assert impossible(alone) == {"segments tea|2024-01": says}


def test_clusters_that_are_gone_are_not_followed_again(world: World) -> None:
    first = world.run()
    world.records[KMEANS].gone.add(first.computed[Target(KMEANS, TEA)].folder)
    says = "the output of kmeans of tea|2024-01 is gone. Select it as well."
    assert impossible(world.segments(TEA, assets=[SEGMENTS], force=True)) == {"segments tea|2024-01": says}


# --- what people say -------------------------------------------------------------------------------------------------


def test_an_edit_redoes_the_segments_of_its_months_and_their_report(world: World) -> None:
    world.run("2024-01")
    world.run("2024-02")
    world.edits["tea"] = (Rename(segment=1, name="Greens", from_month="2024-02"),)
    assert computed(world.month("2024-01")) == {}
    assert computed(world.month("2024-02")) == {
        "segments tea|2024-02": "its edits changed",
        "audience_report tea|2024-02": "segments changed",
    }


def test_a_pinned_k_is_that_of_kmeans_unless_the_run_gives_one(world: World) -> None:
    world.edits["tea"] = (PinK(k=5),)
    pinned = world.month()
    assert kmeans_of(pinned).config.k == 5
    assert kmeans_of(pinned).k_selection is None
    assert Target(K_SELECTION, TEA) in pinned.computed, "whether there are segments is still asked"
    assert pinned.pinned == {TEA: 5}
    assert kmeans_of(world.month(kmeans={"k": 3})).config.k == 3


def test_a_broken_file_of_edits_is_named_and_stops_what_depends_on_it(world: World) -> None:
    world.edits["tea"] = InputError("edits/tea.yaml: entry 2 has no segment.")
    assert impossible(world.month(categories=["tea", "games"])) == dict.fromkeys(
        ("kmeans tea|2024-01", "segments tea|2024-01", "audience_report tea|2024-01"),
        "edits/tea.yaml: entry 2 has no segment.",
    )


# --- why -------------------------------------------------------------------------------------------------------------


def _record(**metadata: Any) -> Record:
    return Record(MONTH, "before", "f", ("i",), "r", datetime.now(timezone.utc), metadata)


def test_all_that_changed_is_named() -> None:
    recipe = Recipe("now", "4", KMeansConfig(k=13, seed=1), {CLUSTERING_INPUTS: "other"})
    newest = _record(code_version="3", config=KMeansConfig(k=12, label="x").model_dump(mode="json"))
    assert why_not_reused(newest, recipe) == "code version 3 → 4, k 12 → 13, seed 0 → 1, clustering_inputs changed"


def test_a_field_that_an_old_record_has_not_is_no_change_where_its_value_decides_nothing() -> None:
    config = KMeansConfig(k=2)
    before = {name: value for name, value in config.model_dump(mode="json").items() if name != "library"}
    recipe = Recipe("now", "3", config, {CLUSTERING_INPUTS: "other"})
    assert why_not_reused(_record(code_version="3", config=before), recipe) == "clustering_inputs changed"
    recipe = replace(recipe, config=KMeansConfig(k=2, library="mllib"))
    assert why_not_reused(_record(code_version="3", config=before), recipe).startswith("library not given → mllib")


def test_a_record_that_says_too_little_is_of_something_else() -> None:
    recipe = Recipe("now", "3", GroupedUsersConfig(), {"raw data": "i"})
    assert why_not_reused(_record(), recipe) == "made from something else"


# --- what is not possible --------------------------------------------------------------------------------------------


def test_kmeans_alone_without_its_inputs_says_what_to_do(world: World) -> None:
    says = "clustering_inputs of tea|2024-01 was never materialized here. Select it as well."
    assert impossible(world.segments(TEA, assets=[KMEANS])) == {"kmeans tea|2024-01": says}
    says = "grouped_users of 2024-01 was never materialized here. Materialize it first."
    assert impossible(world.segments(TEA)) == {f"{asset} tea|2024-01": says for asset in OF_A_CATEGORY}


def test_kmeans_alone_reads_what_the_records_point_at(world: World) -> None:
    first = world.run(clustering_inputs={"scaling": "none"})
    (job,) = world.segments(TEA, assets=[KMEANS], kmeans={"n_init": 9}).jobs
    assert isinstance(job.config, KMeans)
    assert job.config.inputs == first.computed[Target(CLUSTERING_INPUTS, TEA)].folder
    assert job.config.k_selection == first.computed[Target(K_SELECTION, TEA)].folder
    assert job.needs == ()


def test_a_report_alone_is_of_the_clusters_on_record_and_the_choice_of_k_that_they_were_made_by(world: World) -> None:
    first = world.run()
    world.run(k_selection={"k_max": 3}, kmeans={"k": 2})  # the newest clusters have no choice of k
    (job,) = world.segments(TEA, assets=[AUDIENCE_REPORT], force=True).jobs
    assert isinstance(job.config, MakeReport)
    assert job.config.k_selection is None
    world.run()
    (job,) = world.segments(TEA, assets=[AUDIENCE_REPORT], force=True).jobs
    assert isinstance(job.config, MakeReport)
    assert (job.config.kmeans, job.config.k_selection) == (
        first.computed[Target(KMEANS, TEA)].folder,
        first.computed[Target(K_SELECTION, TEA)].folder,
    )
    assert (job.config.inputs, job.config.grouped) == (
        first.computed[Target(CLUSTERING_INPUTS, TEA)].folder,
        first.computed[Target(GROUPED_USERS, Partition("2024-01"))].folder,
    )
    assert (job.config.month, job.config.category) == ("2024-01", "tea")
    says = "kmeans of games|2024-01 was never materialized here. Select it as well."
    games = Partition("2024-01", "games")
    assert impossible(world.segments(games, assets=[AUDIENCE_REPORT])) == {"audience_report games|2024-01": says}


def test_kmeans_alone_does_not_take_a_k_that_was_chosen_for_other_inputs(world: World) -> None:
    world.run()
    world.run(clustering_inputs={"scaling": "l2"}, kmeans={"k": 2})
    says = "k_selection of tea|2024-01 was made from other clustering inputs. Select it as well, or give k."
    assert impossible(world.segments(TEA, assets=[KMEANS])) == {"kmeans tea|2024-01": says}
    assert computed(world.segments(TEA, assets=[KMEANS], kmeans={"k": 4})) == {"kmeans tea|2024-01": "k 2 → 4"}


def test_an_input_that_is_gone_is_missed_only_where_it_is_read(world: World) -> None:
    first = world.run()
    world.records[GROUPED_USERS].gone.add(first.computed[Target(GROUPED_USERS, MONTH)].folder)
    assert computed(world.segments(TEA)) == {}
    says = "the output of grouped_users of 2024-01 is gone. Materialize it again."
    changed = world.segments(TEA, clustering_inputs={"min_actions": 2})
    assert impossible(changed) == {f"{asset} tea|2024-01": says for asset in OF_A_CATEGORY}
    world.records[CLUSTERING_INPUTS].gone.add(first.computed[Target(CLUSTERING_INPUTS, TEA)].folder)
    says = "the output of clustering_inputs of tea|2024-01 is gone. Select it as well."
    assert impossible(world.segments(TEA, assets=[KMEANS], kmeans={"k": 7})) == {"kmeans tea|2024-01": says}


def test_a_step_that_is_not_possible_costs_only_what_is_made_from_it(world: World) -> None:
    world.run(kmeans={"k": 2})
    plan = world.segments(TEA, assets=[CLUSTERING_INPUTS, KMEANS], clustering_inputs={"min_actions": 2})
    says = "k_selection of tea|2024-01 was never materialized here. Select it as well."
    assert impossible(plan) == {"kmeans tea|2024-01": says}
    assert [job.id for job in plan.jobs] == ["make_clustering_inputs 2024-01"]


def test_a_bad_category_stops_no_other(world: World) -> None:
    world.categories["games"] = ValueError("its list is empty")
    plan = world.month(categories=list(world.categories))
    assert impossible(plan) == {f"{asset} games|2024-01": "its list is empty" for asset in OF_A_CATEGORY}
    assert {target.partition.category for target in plan.computed} == {None, "coffee", "tea"}


def test_a_month_without_raw_data_takes_its_segments_along(world: World) -> None:
    world.raw["2024-02"] = ValueError("There is no raw data")
    whys = impossible(world.month("2024-02"))
    assert whys["grouped_users 2024-02"] == "There is no raw data"
    assert whys["kmeans tea|2024-02"] == "grouped_users of 2024-02 can't be made"
    raw = {Partition(month): fingerprint for month, fingerprint in world.raw.items()}
    plan = plan_grouping(raw, GroupingRunConfig(), world.records[GROUPED_USERS], world.store, "run")
    assert [job.id for job in plan.jobs] == ["group_by_user 2024-01"]


# --- jobs ------------------------------------------------------------------------------------------------------------


def test_the_jobs_follow_from_what_is_computed(world: World) -> None:
    plan = world.month(categories=["tea", "games"], engine="spark", resources={"cores": 3})
    grouping, inputs, *of_categories = plan.jobs
    of_the_data = ("make_clustering_inputs 2024-01", "group_by_user 2024-01")
    assert [(job.id, job.needs) for job in plan.jobs] == [
        ("group_by_user 2024-01", ()),
        ("make_clustering_inputs 2024-01", ("group_by_user 2024-01",)),
        ("select_k tea|2024-01", ("make_clustering_inputs 2024-01",)),
        ("kmeans tea|2024-01", ("make_clustering_inputs 2024-01", "select_k tea|2024-01")),
        ("select_k games|2024-01", ("make_clustering_inputs 2024-01",)),
        ("kmeans games|2024-01", ("make_clustering_inputs 2024-01", "select_k games|2024-01")),
        ("follow_segments tea|2024-01", ("kmeans tea|2024-01", "make_clustering_inputs 2024-01")),
        ("follow_segments games|2024-01", ("kmeans games|2024-01", "make_clustering_inputs 2024-01")),
        (
            "make_report tea|2024-01",
            ("kmeans tea|2024-01", "follow_segments tea|2024-01", "select_k tea|2024-01", *of_the_data),
        ),
        (
            "make_report games|2024-01",
            ("kmeans games|2024-01", "follow_segments games|2024-01", "select_k games|2024-01", *of_the_data),
        ),
    ]
    assert sorted(map(str, plan.computed)) == sorted(str(target) for job in plan.jobs for target in job.targets)
    assert isinstance(grouping.config, GroupByUser)
    assert (grouping.config.raw, grouping.config.month) == ("/root/raw/month=2024-01", "2024-01")
    assert isinstance(inputs.config, MakeClusteringInputs)
    assert inputs.config.category_files == ("/root/categories/tea.json", "/root/categories/games.json")
    assert inputs.config.output == "/root/clustering_inputs/month=2024-01/category={category}/run-1"
    report = of_categories[-1].config
    assert isinstance(report, MakeReport)
    assert (report.inputs, report.grouped) == (
        "/root/clustering_inputs/month=2024-01/category=games/run-1",
        "/root/grouped_users/month=2024-01/run-1",
    )
    assert isinstance(of_categories[0].config, SelectK)
    assert of_categories[0].config.inputs == "/root/clustering_inputs/month=2024-01/category=tea/run-1"
    assert {job.config.engine.engine for job in plan.jobs} == {"spark"}
    assert {job.config.resources.cores for job in plan.jobs} == {3}


def test_only_the_categories_that_need_it_are_in_the_job_that_makes_inputs(world: World) -> None:
    world.run(categories=["tea"], kmeans={"k": 2})
    plan = world.month(categories=["tea", "coffee"], kmeans={"k": 2})
    ids = [
        "make_clustering_inputs 2024-01",
        *(f"{job} coffee|2024-01" for job in ("kmeans", "follow_segments", "make_report")),
    ]
    assert [job.id for job in plan.jobs] == ids
    assert plan.jobs[0].targets == (Target(CLUSTERING_INPUTS, Partition("2024-01", "coffee")),)


def test_a_block_of_partitions_has_a_job_a_month_for_its_inputs(world: World) -> None:
    for month in world.raw:
        world.run(month, kmeans={"k": 2})
    block = [Partition(month, name) for name in ("games", "coffee") for month in world.raw]
    ids = [job.id for job in world.segments(*block, kmeans={"k": 2}, assets=(CLUSTERING_INPUTS, KMEANS)).jobs]
    assert ids == [
        *("make_clustering_inputs 2024-01", "kmeans coffee|2024-01", "kmeans games|2024-01"),
        *("make_clustering_inputs 2024-02", "kmeans coffee|2024-02", "kmeans games|2024-02"),
    ]


# --- what plans are made from ----------------------------------------------------------------------------------------


def test_raw_data_is_known_by_its_content(tmp_path: Path) -> None:
    store, file = Store(root=str(tmp_path)), tmp_path / "raw" / "month=2024-01" / "a.jsonl"
    file.parent.mkdir(parents=True)

    def fingerprint(text: str) -> str | Exception:
        file.write_text(text)
        return raw_fingerprints(list_raw_files(store, [MONTH]))[MONTH]

    assert fingerprint("a\n") == fingerprint("a\n")
    assert fingerprint("a\n") != fingerprint("b\n")
    none = raw_fingerprints(list_raw_files(store, [Partition("2024-02")]))[Partition("2024-02")]
    assert "There is no raw data in" in str(none)


def test_the_same_raw_files_are_other_grouped_users_in_another_month() -> None:
    config = GroupedUsersConfig()
    assert len({group_by_user.step_fingerprint(config, month, "raw") for month in ("2024-01", "2024-02")}) == 2


def test_a_category_without_a_file_or_with_a_bad_name_is_named(tmp_path: Path) -> None:
    found = category_fingerprints(Store(root=str(tmp_path)), ["nowhere", "../x"])
    assert "nowhere.json does not exist" in str(found["nowhere"])
    assert "can't be a category's name" in str(found["../x"])
