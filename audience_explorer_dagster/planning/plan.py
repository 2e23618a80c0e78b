"""Plans: for each target, whether its output is reused or computed, or why neither is possible.

A plan is made from values alone: fingerprints of input files, records, and the run's config. Nothing here reads a file,
launches or records.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from audience_explorer_dagster.launchers import Job
from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning.decisions import Compute, Decision, Impossible, Reuse, Source
from audience_explorer_dagster.planning.explain import CATEGORY_FILE, RAW_DATA, Recipe, why_not_reused
from audience_explorer_dagster.planning.jobs import jobs_for
from audience_explorer_dagster.planning.targets import (
    AUDIENCE_REPORT,
    CLUSTERING_INPUTS,
    GROUPED_USERS,
    K_SELECTION,
    KMEANS,
    Target,
)
from audience_explorer_dagster.records.history import Record
from audience_explorer_dagster.run_config import GroupingRunConfig, MonthRunConfig, RunConfig, SegmentsRunConfig
from audience_explorer_dagster.store import Store
from spark_jobs import group_by_user, kmeans, make_clustering_inputs, make_report, select_k
from spark_jobs.config import ClusteringInputsConfig, GroupedUsersConfig, KMeansConfig, KSelectionConfig, ReportConfig
from spark_jobs.job_configs import GroupByUser, JobConfig, KMeans, MakeClusteringInputs, MakeReport, SelectK
from spark_jobs.storage import join


class Records(Protocol):
    """The part of `records.History` that planning asks."""

    def newest(self, partition: Partition) -> Record | None: ...

    def reusable(self, partition: Partition, fingerprint: str) -> Record | None: ...


@dataclass(frozen=True)
class Plan:
    """What a run does, target by target."""

    decisions: Mapping[Target, Decision]
    label: str | None = None  # of the kmeans targets
    promote: bool = False  # the kmeans targets become current, and stay so until a person ends that

    @cached_property
    def reused(self) -> dict[Target, Reuse]:
        """The targets whose output is there."""
        return {target: found for target, found in self.decisions.items() if isinstance(found, Reuse)}

    @cached_property
    def computed(self) -> dict[Target, Compute]:
        """The targets that the jobs make."""
        return {target: found for target, found in self.decisions.items() if isinstance(found, Compute)}

    @cached_property
    def impossible(self) -> dict[Target, Impossible]:
        """The targets that can be neither."""
        return {target: found for target, found in self.decisions.items() if isinstance(found, Impossible)}

    @cached_property
    def jobs(self) -> tuple[Job, ...]:
        """What is to be launched."""
        return jobs_for(self.computed)


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
    steps = _Steps(config, {GROUPED_USERS: records}, store, folder_name)
    return Plan({Target(GROUPED_USERS, m): steps.grouped_users(m, raw[m], config.grouped_users) for m in raw})


def plan_segments(
    partitions: Sequence[Partition],
    selected: set[str],
    categories: Mapping[str, str | Exception],
    config: SegmentsRunConfig,
    records: Mapping[str, Records],
    store: Store,
    folder_name: str,
) -> Plan:
    """Plan clustering_inputs, k_selection, kmeans and audience_report, or those of them that are selected.

    A selected asset's fingerprint follows from the config and its inputs'; one that is not selected is taken as its
    newest record has it.

    Args:
        partitions: Month × category.
        selected: The assets to materialize.
        categories: Each category file's fingerprint, or what is wrong with it.
        config: The run's config.
        records: Those of grouped_users and the four assets, by asset.
        store: Where outputs go.
        folder_name: The name of the run's output folders.
    """
    steps = _Steps(config, records, store, folder_name)
    grouped = {month: steps.on_record(Target(GROUPED_USERS, month)) for month in sorted(map(_month, set(partitions)))}
    decisions: dict[Target, Decision] = {}
    for partition in sorted(partitions, key=lambda partition: (partition.month, partition)):
        category = categories[str(partition.category)]
        decisions |= steps.of_category(partition, grouped[_month(partition)], category, selected, config)
    return Plan(decisions, config.kmeans.label, config.promote)


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

    With a given k, kmeans does not read k_selection, which is left out.

    Args:
        month: The month.
        raw: The fingerprint of its raw files, or why there is none.
        categories: The fingerprint of each category's file, or what is wrong with it.
        config: The run's config.
        records: Those of all five assets, by asset.
        store: Where outputs go.
        folder_name: The name of the run's output folders.
    """
    steps = _Steps(config, records, store, folder_name)
    target = Target(GROUPED_USERS, month)
    decisions: dict[Target, Decision] = {target: steps.grouped_users(month, raw, config.grouped_users)}
    grouped = _source(target, decisions[target])
    if isinstance(grouped, Impossible):
        grouped = Impossible(f"{GROUPED_USERS} of {month} can't be made")
    selected = set(assets_of_category(config))
    for name, category in categories.items():
        decisions |= steps.of_category(Partition(month.month, name), grouped, category, selected, config)
    return Plan(decisions, config.kmeans.label, config.promote)


def assets_of_category(config: SegmentsRunConfig) -> tuple[str, ...]:
    """The assets that a run of a whole month makes of each category."""
    choice = (K_SELECTION,) if config.kmeans.k is None else ()
    return (CLUSTERING_INPUTS, *choice, KMEANS, AUDIENCE_REPORT)


def _month(partition: Partition) -> Partition:
    return Partition(partition.month)


def _source(target: Target, decision: Decision) -> Source | Impossible:
    """What the steps after a target read of it."""
    if isinstance(decision, Impossible):
        return decision
    return Source(target, decision.fingerprint, decision.folder)


@dataclass(frozen=True)
class _Steps:
    """Decides for one target after the other. What has no input for a reason is impossible for that reason."""

    run: RunConfig
    records: Mapping[str, Records]
    store: Store
    folder_name: str

    def grouped_users(self, month: Partition, raw: str | Exception, config: GroupedUsersConfig) -> Decision:
        """Decide for a month's grouped users."""
        if isinstance(raw, Exception):
            return Impossible(str(raw))
        recipe = Recipe(
            group_by_user.step_fingerprint(config, raw), group_by_user.CODE_VERSION, config, {RAW_DATA: raw}
        )

        def job(folder: str) -> JobConfig:
            source = self.store.raw(month.month)
            return GroupByUser(raw=source, output=folder, month=month.month, config=config, **self._machine())

        return self._decide(Target(GROUPED_USERS, month), recipe, [], job)

    def of_category(
        self,
        partition: Partition,
        grouped: Source | Impossible,
        category: str | Exception,
        selected: set[str],
        config: SegmentsRunConfig,
    ) -> dict[Target, Decision]:
        """Decide for the selected assets of a category of a month; of the others, what is on record is read."""
        found: dict[Target, Decision] = {}
        inputs, choice = Target(CLUSTERING_INPUTS, partition), Target(K_SELECTION, partition)
        if CLUSTERING_INPUTS in selected:
            found[inputs] = self._clustering_inputs(inputs, grouped, category, config.clustering_inputs)
        of_inputs = _source(inputs, found[inputs]) if inputs in found else self.on_record(inputs)
        if K_SELECTION in selected:
            found[choice] = self._k_selection(choice, of_inputs, config.k_selection)
        of_choice: Source | Impossible | None = None
        if KMEANS in selected:
            if config.kmeans.k is None:
                of_choice = _source(choice, found[choice]) if choice in found else self._choice_for(choice, of_inputs)
            target = Target(KMEANS, partition)
            found[target] = self._kmeans(target, of_inputs, of_choice, config.kmeans)
        if AUDIENCE_REPORT in selected:
            clusters, report = Target(KMEANS, partition), Target(AUDIENCE_REPORT, partition)
            if clusters in found:
                of_clusters = _source(clusters, found[clusters])
            else:
                of_clusters, of_choice = self.on_record(clusters), self._choice_of_recorded(partition)
            found[report] = self._report(report, of_clusters, of_choice)
        return found

    def on_record(self, target: Target) -> Source | Impossible:
        """The newest output of a target that is not selected, as a source."""
        records = self.records[target.asset]
        newest = records.newest(target.partition)
        if newest is None:
            way_out = "Materialize it first." if target.asset == GROUPED_USERS else "Select it as well."
            return Impossible(f"{target.asset} of {target.partition} was never materialized here. {way_out}")
        available = records.reusable(target.partition, newest.fingerprint)
        return Source(target, newest.fingerprint, available.folder if available else None)

    def _choice_for(self, choice: Target, inputs: Source | Impossible) -> Source | Impossible:
        """The newest k_selection, if it was made from these clustering inputs."""
        newest = self.records[K_SELECTION].newest(choice.partition)
        if newest is not None and isinstance(inputs, Source) and inputs.fingerprint not in newest.inputs:
            return Impossible(
                f"{K_SELECTION} of {choice.partition} was made from other clustering inputs. Select it as well, or"
                " give k."
            )
        return self.on_record(choice)

    def _choice_of_recorded(self, partition: Partition) -> Source | None:
        """The k_selection that the newest kmeans on record has its k from; None if its k was given."""
        newest = self.records[KMEANS].newest(partition)
        if newest is None or len(newest.inputs) < 2:
            return None
        fingerprint = newest.inputs[1]
        available = self.records[K_SELECTION].reusable(partition, fingerprint)
        return Source(Target(K_SELECTION, partition), fingerprint, available.folder if available else None)

    def _clustering_inputs(
        self, target: Target, grouped: Source | Impossible, category: str | Exception, config: ClusteringInputsConfig
    ) -> Decision:
        if isinstance(category, Exception):
            return Impossible(str(category))
        if isinstance(grouped, Impossible):
            return grouped
        recipe = Recipe(
            make_clustering_inputs.step_fingerprint(config, grouped.fingerprint, category),
            make_clustering_inputs.CODE_VERSION,
            config,
            {GROUPED_USERS: grouped.fingerprint, CATEGORY_FILE: category},
        )

        def job(_: str, users: str) -> JobConfig:
            month, name = target.partition.month, str(target.partition.category)
            return MakeClusteringInputs(
                grouped=users,
                # One job makes those of all categories, and puts their names into the folder's.
                output=self._folder(Target(CLUSTERING_INPUTS, Partition(month, "{category}"))),
                category_files=(self.store.category_file(name),),
                config=config,
                **self._machine(),
            )

        return self._decide(target, recipe, [grouped], job)

    def _k_selection(self, target: Target, inputs: Source | Impossible, config: KSelectionConfig) -> Decision:
        if isinstance(inputs, Impossible):
            return inputs
        recipe = Recipe(
            select_k.step_fingerprint(config, inputs.fingerprint),
            select_k.CODE_VERSION,
            config,
            {CLUSTERING_INPUTS: inputs.fingerprint},
        )

        def job(folder: str, vectors: str) -> JobConfig:
            return SelectK(inputs=vectors, output=folder, config=config, **self._machine())

        return self._decide(target, recipe, [inputs], job)

    def _kmeans(
        self,
        target: Target,
        inputs: Source | Impossible,
        choice: Source | Impossible | None,
        config: KMeansConfig,
    ) -> Decision:
        if isinstance(inputs, Impossible):
            return inputs
        if isinstance(choice, Impossible):
            return choice
        sources = [inputs] if choice is None else [inputs, choice]
        recipe = Recipe(
            kmeans.step_fingerprint(config, inputs.fingerprint, choice.fingerprint if choice else None),
            kmeans.CODE_VERSION,
            config,
            {source.target.asset: source.fingerprint for source in sources},
        )

        def job(folder: str, vectors: str, k_selection: str | None = None) -> JobConfig:
            return KMeans(inputs=vectors, output=folder, k_selection=k_selection, config=config, **self._machine())

        return self._decide(target, recipe, sources, job)

    def _report(self, target: Target, clusters: Source | Impossible, choice: Source | Impossible | None) -> Decision:
        if isinstance(clusters, Impossible):
            return clusters
        if isinstance(choice, Impossible):
            return choice
        month, category, config = target.partition.month, str(target.partition.category), ReportConfig()
        recipe = Recipe(
            make_report.step_fingerprint(config, month, category, clusters.fingerprint),
            make_report.CODE_VERSION,
            config,
            {KMEANS: clusters.fingerprint},
        )

        def job(folder: str, kmeans: str, k_selection: str | None = None) -> JobConfig:
            return MakeReport(
                kmeans=kmeans,
                output=folder,
                k_selection=k_selection,
                month=month,
                category=category,
                config=config,
                **self._machine(),
            )

        return self._decide(target, recipe, [clusters] if choice is None else [clusters, choice], job)

    def _decide(
        self, target: Target, recipe: Recipe, sources: Sequence[Source], job: Callable[..., JobConfig]
    ) -> Decision:
        """Reuse or compute a target.

        Args:
            target: The target.
            recipe: What it is to be.
            sources: The outputs that its job reads.
            job: Makes the job's config of the folder that it is to make, and of those of the sources.
        """
        records = self.records[target.asset]
        record = records.reusable(target.partition, recipe.fingerprint)
        if record is not None and not self.run.force:
            return Reuse(record)
        why = "forced" if record is not None else why_not_reused(records.newest(target.partition), recipe)
        folders: list[str] = []
        for source in sources:
            if source.folder is None:
                way_out = "Materialize it again." if source.target.asset == GROUPED_USERS else "Select it as well."
                return Impossible(
                    f"the output of {source.target.asset} of {source.target.partition} is gone. {way_out}"
                )
            folders.append(source.folder)
        folder = self._folder(target)
        return Compute(recipe.fingerprint, folder, why, tuple(sources), job(folder, *folders))

    def _folder(self, target: Target) -> str:
        return join(self.store.outputs(target.asset, target.partition), self.folder_name)

    def _machine(self) -> dict[str, Any]:
        """Where and by what jobs run, the same for all."""
        return {"engine": self.run.engine_config, "resources": self.run.resources}
