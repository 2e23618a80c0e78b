"""What a run has to do: for each asset and partition, reuse what is there, or compute it, by which job.

Nothing here touches Dagster, files or engines but through what it is handed, so it is tested by values alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from audience_explorer_dagster.launchers import Job
from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.records.history import Record
from audience_explorer_dagster.run_config import GroupingRunConfig, MonthRunConfig, SegmentsRunConfig
from audience_explorer_dagster.store import Store
from spark_jobs import group_by_user, kmeans, make_clustering_inputs, select_k
from spark_jobs.options import to_arguments
from spark_jobs.storage import join

GROUPED_USERS = group_by_user.STEP
CLUSTERING_INPUTS = make_clustering_inputs.STEP
K_SELECTION = select_k.STEP
KMEANS = kmeans.STEP

# The ops: grouped_users is one of its own, the three assets of month × category are one together, and one does both for
# a month.
GROUPED_USERS_OP = GROUPED_USERS
SEGMENTS_OP = "segments"
MONTH_OP = "month"


class Records(Protocol):
    """The part of `records.History` that planning asks."""

    def newest(self, partition: Partition) -> Record | None: ...

    def reusable(self, partition: Partition, fingerprint: str) -> Record | None: ...


@dataclass(frozen=True)
class Target:
    """A partition of an asset."""

    asset: str
    partition: Partition


@dataclass(frozen=True)
class Computation:
    """A target that a job computes."""

    target: Target
    fingerprint: str
    folder: str
    job: str


@dataclass
class Plan:
    """What a run does, target by target."""

    reused: dict[Target, Record] = field(default_factory=dict)
    computed: dict[Target, Computation] = field(default_factory=dict)
    failed: dict[Target, str] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)
    label: str | None = None  # of the kmeans targets

    def settle(self, target: Target, fingerprint: str, records: Records, force: bool, folder: str, job: str) -> bool:
        """Reuse a target if that is possible, else have `job` compute it; whether it is computed."""
        record = None if force else records.reusable(target.partition, fingerprint)
        if record is not None:
            self.reused[target] = record
        else:
            self.computed[target] = Computation(target, fingerprint, folder, job)
        return record is None

    def job_of(self, asset: str, partition: Partition) -> tuple[str, ...]:
        """The job, if any, that computes a partition of an asset."""
        computation = self.computed.get(Target(asset, partition))
        return () if computation is None else (computation.job,)


def plan_grouping(
    raw: Mapping[Partition, str | Exception],
    config: GroupingRunConfig,
    records: Records,
    store: Store,
    folder_name: str,
) -> Plan:
    """Plan grouped_users.

    Args:
        raw: Each month's fingerprint of its raw files, or why there is none.
        config: The run's config.
        records: Those of grouped_users.
        store: Where outputs go.
        folder_name: The name of the run's output folders.
    """
    plan = Plan()
    for partition, source in raw.items():
        target = Target(GROUPED_USERS, partition)
        if isinstance(source, Exception):
            plan.failed[target] = str(source)
            continue
        fingerprint = group_by_user.step_fingerprint(config.grouped_users, source)
        folder = join(store.outputs(GROUPED_USERS, partition), folder_name)
        job = f"group_by_user {partition.key}"
        if plan.settle(target, fingerprint, records, config.force, folder, job):
            arguments = [store.raw(partition.month), folder, "--month", partition.month]
            options = to_arguments(config.grouped_users) + config.job_options()
            plan.jobs.append(Job(job, "group_by_user", arguments + options))
    return plan


def plan_segments(
    partitions: Sequence[Partition],
    selected: set[str],
    categories: Mapping[str, str | Exception],
    config: SegmentsRunConfig,
    records: Mapping[str, Records],
    store: Store,
    folder_name: str,
) -> Plan:
    """Plan clustering_inputs, k_selection and kmeans, or those of them that are selected.

    A selected asset's fingerprint follows from the config and its inputs'; one that is not selected is taken as its
    newest record has it.

    Args:
        partitions: Month × category.
        selected: The assets to materialize.
        categories: Each category file's fingerprint, or what is wrong with it.
        config: The run's config.
        records: Those of grouped_users and the three assets, by asset.
        store: Where outputs go.
        folder_name: The name of the run's output folders.
    """
    plan = Plan(label=config.kmeans.label)
    for month in sorted({partition.month for partition in partitions}):
        of_month = sorted(partition for partition in partitions if partition.month == month)
        grouped = _recorded(records[GROUPED_USERS], GROUPED_USERS, Partition(month))
        _Month(plan, Partition(month), grouped, selected, config, records, store, folder_name).plan(
            of_month, categories
        )
    return plan


def plan_month(
    month: Partition,
    raw: str | Exception,
    categories: Mapping[str, str | Exception],
    config: MonthRunConfig,
    records: Mapping[str, Records],
    store: Store,
    folder_name: str,
) -> Plan:
    """Plan a whole month in one launch: grouped_users, and the segments that are made from it.

    With a given k, k_selection is no input of kmeans, and left out.

    Args:
        month: The month.
        raw: The fingerprint of its raw files, or why there is none.
        categories: The fingerprint of each category's file, or what is wrong with it.
        config: The run's config.
        records: Those of all four assets, by asset.
        store: Where outputs go.
        folder_name: The name of the run's output folders.
    """
    plan = plan_grouping({month: raw}, config, records[GROUPED_USERS], store, folder_name)
    plan.label = config.kmeans.label
    selected = {CLUSTERING_INPUTS, KMEANS} | ({K_SELECTION} if config.kmeans.k is None else set())
    partitions = [Partition(month.month, category) for category in categories]
    target = Target(GROUPED_USERS, month)
    if target in plan.failed:
        why = f"grouped_users of {month.key} failed"
        plan.failed |= {Target(asset, partition): why for partition in partitions for asset in sorted(selected)}
        return plan
    planned = plan.computed.get(target) or plan.reused[target]
    grouped = _Source(GROUPED_USERS, month, planned.fingerprint, planned.folder)
    _Month(plan, month, grouped, selected, config, records, store, folder_name).plan(partitions, categories)
    return plan


class _Impossible(Exception):
    """A partition that can't be planned, and why."""


@dataclass(frozen=True)
class _Month:
    """The plan of one month's categories, which share a read of the month's grouped users."""

    all: Plan
    month: Partition
    grouped: "_Source | None"  # None: never materialized
    selected: set[str]
    config: SegmentsRunConfig
    records: Mapping[str, Records]
    store: Store
    folder_name: str

    def plan(self, partitions: Sequence[Partition], categories: Mapping[str, str | Exception]) -> None:
        plan = Plan()
        for partition in partitions:
            try:
                self._plan_category(plan, partition, categories)
            except _Impossible as why:
                for asset in sorted(self.selected):
                    target = Target(asset, partition)
                    plan.reused.pop(target, None)
                    plan.computed.pop(target, None)
                    plan.failed[target] = str(why)
                plan.jobs = [job for job in plan.jobs if not job.id.endswith(f" {partition.key}")]
        if inputs := self._inputs_job(plan):
            plan.jobs.insert(0, inputs)
        self.all.reused |= plan.reused
        self.all.computed |= plan.computed
        self.all.failed |= plan.failed
        self.all.jobs += plan.jobs

    def _plan_category(self, plan: Plan, partition: Partition, categories: Mapping[str, str | Exception]) -> None:
        assert partition.category is not None
        inputs = self._settle_inputs(plan, partition, categories[partition.category])
        choice: _Source | None = None
        if K_SELECTION in self.selected:
            choice = self._settle_choice(plan, partition, inputs)
        if KMEANS in self.selected:
            if choice is None and self.config.kmeans.k is None:
                choice = self._recorded_choice(partition, inputs)
            self._settle_kmeans(plan, partition, inputs, choice)

    def _settle_inputs(self, plan: Plan, partition: Partition, category: str | Exception) -> "_Source":
        if CLUSTERING_INPUTS not in self.selected:
            return self._on_record(CLUSTERING_INPUTS, partition)
        if isinstance(category, Exception):
            raise _Impossible(str(category))
        if self.grouped is None:
            raise _Impossible(f"grouped_users of {self.month.key} was never materialized here. Materialize it first.")
        fingerprint = make_clustering_inputs.step_fingerprint(
            self.config.clustering_inputs, self.grouped.fingerprint, category
        )
        job = f"make_clustering_inputs {self.month.key}"
        if self._settle(plan, CLUSTERING_INPUTS, partition, fingerprint, job):
            self._readable(self.grouped)  # it must be there to be read
        return self._source(plan, CLUSTERING_INPUTS, partition, fingerprint)

    def _settle_choice(self, plan: Plan, partition: Partition, inputs: "_Source") -> "_Source":
        fingerprint = select_k.step_fingerprint(self.config.k_selection, inputs.fingerprint)
        job = f"select_k {partition.key}"
        if self._settle(plan, K_SELECTION, partition, fingerprint, job):
            arguments = [self._readable(inputs), self._new_folder(K_SELECTION, partition)]
            options = to_arguments(self.config.k_selection) + self.config.job_options()
            needs = plan.job_of(CLUSTERING_INPUTS, partition)
            plan.jobs.append(Job(job, "select_k", arguments + options, needs))
        return self._source(plan, K_SELECTION, partition, fingerprint)

    def _settle_kmeans(self, plan: Plan, partition: Partition, inputs: "_Source", choice: "_Source | None") -> None:
        config = self.config.kmeans
        chosen = choice.fingerprint if choice else None
        fingerprint = kmeans.step_fingerprint(config, inputs.fingerprint, chosen)
        job = f"kmeans {partition.key}"
        if self._settle(plan, KMEANS, partition, fingerprint, job):
            arguments = [self._readable(inputs), self._new_folder(KMEANS, partition)]
            needs = plan.job_of(CLUSTERING_INPUTS, partition)
            if config.k is None and choice is not None:
                arguments += ["--k-selection", self._readable(choice)]
                needs += plan.job_of(K_SELECTION, partition)
            options = to_arguments(config) + self.config.job_options()
            plan.jobs.append(Job(job, "kmeans", arguments + options, needs))

    def _inputs_job(self, plan: Plan) -> Job | None:
        """The one job that makes the inputs of all the month's categories that need it."""
        made = [c.target.partition for c in plan.computed.values() if c.target.asset == CLUSTERING_INPUTS]
        if not made or self.grouped is None:
            return None
        arguments = [self._readable(self.grouped), self._new_folder(CLUSTERING_INPUTS, _any_category(self.month))]
        for partition in made:
            arguments += ["--category", self.store.category_file(str(partition.category))]
        options = to_arguments(self.config.clustering_inputs) + self.config.job_options()
        needs = self.all.job_of(GROUPED_USERS, self.month)
        return Job(f"make_clustering_inputs {self.month.key}", "make_clustering_inputs", arguments + options, needs)

    def _settle(self, plan: Plan, asset: str, partition: Partition, fingerprint: str, job: str) -> bool:
        folder = self._new_folder(asset, partition)
        return plan.settle(Target(asset, partition), fingerprint, self.records[asset], self.config.force, folder, job)

    def _new_folder(self, asset: str, partition: Partition) -> str:
        return join(self.store.outputs(asset, partition), self.folder_name)

    def _on_record(self, asset: str, partition: Partition) -> "_Source":
        """What an asset that is not selected last was."""
        source = _recorded(self.records[asset], asset, partition)
        if source is None:
            raise _Impossible(f"{asset} of {partition.key} was never materialized here. Select it as well.")
        return source

    def _recorded_choice(self, partition: Partition, inputs: "_Source") -> "_Source":
        choice = self._on_record(K_SELECTION, partition)
        newest = self.records[K_SELECTION].newest(partition)
        if newest is None or inputs.fingerprint not in newest.inputs:
            raise _Impossible(
                f"{K_SELECTION} of {partition.key} was made from other clustering inputs. Select it as well, or give k."
            )
        return choice

    def _source(self, plan: Plan, asset: str, partition: Partition, fingerprint: str) -> "_Source":
        target = Target(asset, partition)
        folder = plan.reused[target].folder if target in plan.reused else plan.computed[target].folder
        return _Source(asset, partition, fingerprint, folder)

    def _readable(self, source: "_Source") -> str:
        if source.folder is None:
            way_out = "Materialize it again." if source.asset == GROUPED_USERS else "Select it as well."
            raise _Impossible(f"the output of {source.asset} of {source.partition.key} is gone. {way_out}")
        return source.folder


@dataclass(frozen=True)
class _Source:
    """What a step reads: the output of another, with its folder unless that is gone."""

    asset: str
    partition: Partition
    fingerprint: str
    folder: str | None


def _recorded(records: Records, asset: str, partition: Partition) -> _Source | None:
    """What is on record of an asset's partition."""
    newest = records.newest(partition)
    if newest is None:
        return None
    available = records.reusable(partition, newest.fingerprint)
    return _Source(asset, partition, newest.fingerprint, available.folder if available else None)


def _any_category(month: Partition) -> Partition:
    return Partition(month.month, "{category}")
