"""Plans: for each target, whether its output is reused or computed, or why neither is possible.

A plan is made from values alone: fingerprints of input files, records, and the run's config. Nothing here reads a file,
launches or records.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from audience_explorer_dagster.launchers import Job
from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning.decisions import Compute, Decision, Impossible, Reuse, Source
from audience_explorer_dagster.planning.explain import BEFORE, CATEGORY_FILE, RAW_DATA, Recipe, why_not_reused
from audience_explorer_dagster.planning.following import Following
from audience_explorer_dagster.planning.jobs import jobs_for
from audience_explorer_dagster.planning.targets import (
    AUDIENCE_REPORT,
    CLUSTERING_INPUTS,
    GROUPED_USERS,
    K_SELECTION,
    KMEANS,
    SEGMENTS,
    Target,
)
from audience_explorer_dagster.records.history import Record
from audience_explorer_dagster.run_config import GroupingRunConfig, MonthRunConfig, RunConfig, SegmentsRunConfig
from audience_explorer_dagster.store import Store
from spark_jobs import follow_segments, group_by_user, kmeans, make_clustering_inputs, make_report, select_k
from spark_jobs.config import (
    ClusteringInputsConfig,
    GroupedUsersConfig,
    KMeansConfig,
    KSelectionConfig,
    ReportConfig,
    SegmentsConfig,
)
from spark_jobs.job_configs import (
    FollowSegments,
    GroupByUser,
    JobConfig,
    KMeans,
    MakeClusteringInputs,
    MakeReport,
    SelectK,
)
from spark_jobs.storage import join


class Records(Protocol):
    """The part of `records.History` that planning asks."""

    def newest(self, partition: Partition) -> Record | None: ...

    def reusable(self, partition: Partition, fingerprint: str) -> Record | None: ...

    def damage_of(self, record: Record) -> str: ...

    def made_from(self, partition: Partition, fingerprint: str | None) -> Record | None: ...


@dataclass(frozen=True)
class Plan:
    """What a run does, target by target."""

    decisions: Mapping[Target, Decision]
    label: str | None = None  # of the kmeans targets
    promote: bool = False  # the kmeans targets become current, and stay so until a person ends that
    pinned: Mapping[Partition, int] = field(default_factory=dict)  # the k of those for which people said one

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

    @property
    def followed(self) -> list[Partition]:
        """The partitions whose segments it is for."""
        return [target.partition for target in self.decisions if target.asset == SEGMENTS]

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
    steps = _Steps(config, {GROUPED_USERS: records}, store, folder_name, Following())
    return Plan({Target(GROUPED_USERS, m): steps.grouped_users(m, raw[m], config.grouped_users) for m in raw})


def plan_segments(
    partitions: Sequence[Partition],
    selected: set[str],
    categories: Mapping[str, str | Exception],
    config: SegmentsRunConfig,
    records: Mapping[str, Records],
    following: Following,
    store: Store,
    folder_name: str,
) -> Plan:
    """Plan clustering_inputs, k_selection, kmeans, segments and audience_report, or those of them that are selected.

    A selected asset's fingerprint follows from the config and its inputs'; one that is not selected is taken as its
    newest record has it.

    Args:
        partitions: Month × category.
        selected: The assets to materialize.
        categories: Each category file's fingerprint, or what is wrong with it.
        config: The run's config.
        records: Those of grouped_users and the five assets, by asset.
        following: What segments are made from, beside clusters.
        store: Where outputs go.
        folder_name: The name of the run's output folders.
    """
    steps = _Steps(config, records, store, folder_name, following)
    grouped = {month: steps.on_record(Target(GROUPED_USERS, month)) for month in sorted(map(_month, set(partitions)))}
    decisions: dict[Target, Decision] = {}
    newest: dict[str, Source] = {}  # the segments of each category that this run is for as well, and makes current
    for partition in sorted(partitions, key=lambda partition: (partition.month, partition)):
        name = str(partition.category)
        before = _last([following.before.get(partition), newest.get(name)])
        found = steps.of_category(partition, grouped[_month(partition)], categories[name], before, selected, config)
        decisions |= found
        target = Target(SEGMENTS, partition)
        followed = _source(target, found[target]) if target in found else None
        if isinstance(followed, Source) and (config.promote or _is_own(config)):
            newest[name] = followed
    return Plan(decisions, config.kmeans.label, config.promote, steps.pinned)


def plan_following(
    clusters: Mapping[Partition, Source],
    following: Following,
    current: Mapping[Partition, str],
    config: RunConfig,
    records: Mapping[str, Records],
    store: Store,
    folder_name: str,
) -> Plan:
    """Plan segments, and their reports, that are not followed from the month before as it is now.

    Args:
        clusters: The current clusters of the partitions that are looked at.
        following: What segments are made from, beside clusters.
        current: The fingerprints of the partitions' current segments.
        config: The run's config.
        records: Those of all assets of these partitions, by asset.
        store: Where outputs go.
        folder_name: The name of the run's output folders.
    """
    steps = _Steps(config.model_copy(update={"force": False}), records, store, folder_name, following)
    decisions: dict[Target, Decision] = {}
    newest: dict[str, Source] = {}
    for partition in sorted(clusters, key=lambda partition: (partition.month, partition)):
        name, target = str(partition.category), Target(SEGMENTS, partition)
        found = steps.segments(target, clusters[partition], _last([following.before.get(partition), newest.get(name)]))
        if isinstance(found, Impossible):
            continue
        newest[name] = Source(target, found.fingerprint, found.folder)
        if found.fingerprint != current.get(partition):
            report = Target(AUDIENCE_REPORT, partition)
            decisions |= {target: found, report: steps.report(report, clusters[partition], newest[name])}
    return Plan(decisions)


def _is_own(config: SegmentsRunConfig) -> bool:
    """Whether what is made with a config is not to stand beside what is current."""
    own = SegmentsRunConfig()
    steps = (CLUSTERING_INPUTS, K_SELECTION, KMEANS)
    same = all(getattr(config, step).fingerprinted() == getattr(own, step).fingerprinted() for step in steps)
    return same and config.kmeans.label in (None, own.kmeans.label)


def _last(segments: Sequence[Source | None]) -> Source | None:
    """The segments of the last month; of two of one month, the second."""
    found = [source for source in segments if source is not None]
    return max(reversed(found), key=lambda source: source.target.partition.month) if found else None


def plan_month(
    month: Partition,
    raw: str | Exception,
    categories: Mapping[str, str | Exception],
    config: MonthRunConfig,
    records: Mapping[str, Records],
    following: Following,
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
        records: Those of all assets, by asset.
        following: What segments are made from, beside clusters.
        store: Where outputs go.
        folder_name: The name of the run's output folders.
    """
    steps = _Steps(config, records, store, folder_name, following)
    target = Target(GROUPED_USERS, month)
    decisions: dict[Target, Decision] = {target: steps.grouped_users(month, raw, config.grouped_users)}
    grouped = _source(target, decisions[target])
    if isinstance(grouped, Impossible):
        grouped = Impossible(f"{GROUPED_USERS} of {month} can't be made")
    selected = set(assets_of_category(config))
    for name, category in categories.items():
        partition = Partition(month.month, name)
        decisions |= steps.of_category(partition, grouped, category, following.before.get(partition), selected, config)
    return Plan(decisions, config.kmeans.label, config.promote, steps.pinned)


def assets_of_category(config: SegmentsRunConfig) -> tuple[str, ...]:
    """The assets that a run of a whole month makes of each category."""
    choice = (K_SELECTION,) if config.kmeans.k is None else ()
    return (CLUSTERING_INPUTS, *choice, KMEANS, SEGMENTS, AUDIENCE_REPORT)


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
    following: Following
    pinned: dict[Partition, int] = field(default_factory=dict)  # see Plan; those that were met so far

    def grouped_users(self, month: Partition, raw: str | Exception, config: GroupedUsersConfig) -> Decision:
        """Decide for a month's grouped users."""
        if isinstance(raw, Exception):
            return Impossible(str(raw))
        fingerprint = group_by_user.step_fingerprint(config, month.month, raw)
        recipe = Recipe(fingerprint, group_by_user.CODE_VERSION, config, {RAW_DATA: raw})

        def job(folder: str) -> JobConfig:
            source = self.store.raw(month.month)
            return GroupByUser(raw=source, output=folder, month=month.month, config=config, **self._machine())

        return self._decide(Target(GROUPED_USERS, month), recipe, [], job)

    def of_category(
        self,
        partition: Partition,
        grouped: Source | Impossible,
        category: str | Exception,
        before: Source | None,
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
            asked = self._with_pinned_k(partition, config.kmeans)
            if asked.k is None:
                of_choice = _source(choice, found[choice]) if choice in found else self._choice_for(choice, of_inputs)
            target = Target(KMEANS, partition)
            found[target] = self._kmeans(target, of_inputs, of_choice, asked)
        clusters, segments = Target(KMEANS, partition), Target(SEGMENTS, partition)
        of_clusters = _source(clusters, found[clusters]) if clusters in found else self.on_record(clusters)
        if SEGMENTS in selected:
            found[segments] = self.segments(segments, of_clusters, before, of_inputs if clusters in found else None)
        if AUDIENCE_REPORT in selected:
            report = Target(AUDIENCE_REPORT, partition)
            followed = _source(segments, found[segments]) if segments in found else self._followed(of_clusters)
            if clusters in found:
                users = grouped if inputs in found else None
                found[report] = self.report(report, of_clusters, followed, of_choice, of_inputs, users)
            else:
                found[report] = self.report(report, of_clusters, followed)
        return found

    def _with_pinned_k(self, partition: Partition, config: KMeansConfig) -> KMeansConfig:
        """The config of kmeans, with the k that people say the category has if there is none."""
        k = self.following.pinned_k(partition)
        if k is None:
            return config
        self.pinned[partition] = k
        return config if config.k is not None else config.model_copy(update={"k": k})

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

    def _read_by(self, clusters: Source, asset: str) -> Source | None:
        """What clusters on record were made from: clustering_inputs, or k_selection; None if their k was given."""
        partition, place = clusters.target.partition, (CLUSTERING_INPUTS, K_SELECTION).index(asset)
        record = self.records[KMEANS].reusable(partition, clusters.fingerprint)
        if record is None or len(record.inputs) <= place:
            return None
        fingerprint = record.inputs[place]
        available = self.records[asset].reusable(partition, fingerprint)
        return Source(Target(asset, partition), fingerprint, available.folder if available else None)

    def _grouped_for(self, inputs: Source | None) -> Source | None:
        """The grouped users that clustering inputs on record were made from; None if that is not known."""
        record = (
            None
            if inputs is None
            else self.records[CLUSTERING_INPUTS].reusable(inputs.target.partition, inputs.fingerprint)
        )
        if record is None or not record.inputs:
            return None
        month, (users, *_) = _month(record.partition), record.inputs
        available = self.records[GROUPED_USERS].reusable(month, users)
        return Source(Target(GROUPED_USERS, month), users, available.folder if available else None)

    def _followed(self, clusters: Source | Impossible) -> Source | None:
        """The newest segments on record of these clusters."""
        if isinstance(clusters, Impossible):
            return None
        record = self.records[SEGMENTS].made_from(clusters.target.partition, clusters.fingerprint)
        if record is None:
            return None
        return Source(Target(SEGMENTS, record.partition), record.fingerprint, record.folder)

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
        if isinstance(edits := self.following.edits_of(target.partition), Impossible):
            return edits  # they may say a k
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

    def segments(
        self,
        target: Target,
        clusters: Source | Impossible,
        before: Source | None,
        inputs: Source | Impossible | None = None,
    ) -> Decision:
        """Decide for the segments of clusters.

        Args:
            target: The target.
            clusters: The clusters.
            before: The segments that they are followed from.
            inputs: What the clusters are made from in this run; None for what is on record of them.
        """
        if isinstance(clusters, Impossible):
            return clusters
        inputs = inputs or self._read_by(clusters, CLUSTERING_INPUTS)
        if inputs is None or isinstance(inputs, Impossible):
            return Impossible(f"the output of {KMEANS} of {target.partition} is gone. Select it as well.")
        if isinstance(edits := self.following.edits_of(target.partition), Impossible):
            return edits
        month, config = target.partition.month, SegmentsConfig()
        recipe = Recipe(
            follow_segments.step_fingerprint(
                config, month, clusters.fingerprint, None if before is None else before.fingerprint, edits
            ),
            follow_segments.CODE_VERSION,
            config,
            {KMEANS: clusters.fingerprint, **({} if before is None else {BEFORE: before.fingerprint})},
            "its edits changed",
        )

        def job(folder: str, kmeans: str, vectors: str, previous: str | None = None) -> JobConfig:
            return FollowSegments(
                clusters=kmeans,
                inputs=vectors,
                output=folder,
                month=month,
                previous=previous,
                edits=edits,
                config=config,
                **self._machine(),
            )

        return self._decide(target, recipe, [clusters, inputs, *([] if before is None else [before])], job)

    def report(
        self,
        target: Target,
        clusters: Source | Impossible,
        segments: Source | Impossible | None,
        choice: Source | Impossible | None = None,
        inputs: Source | Impossible | None = None,
        grouped: Source | Impossible | None = None,
    ) -> Decision:
        """Decide for the report of clusters.

        Args:
            target: The target.
            clusters: The clusters.
            segments: Which segments they are, if anybody followed them.
            choice: Where their k is from in this run; None if it was given, or for what is on record of them.
            inputs: What the clusters are made from in this run; None for what is on record of them.
            grouped: What the inputs are made from in this run; None for what is on record of them.
        """
        if isinstance(clusters, Impossible):
            return clusters
        if isinstance(choice, Impossible):
            return choice
        if isinstance(segments, Impossible):
            return segments
        choice = choice or self._read_by(clusters, K_SELECTION)
        month, category, config = target.partition.month, str(target.partition.category), ReportConfig()
        recipe = Recipe(
            make_report.step_fingerprint(
                config, month, category, clusters.fingerprint, None if segments is None else segments.fingerprint
            ),
            make_report.CODE_VERSION,
            config,
            {KMEANS: clusters.fingerprint, **({} if segments is None else {SEGMENTS: segments.fingerprint})},
        )
        others = {asset: source for asset, source in {SEGMENTS: segments, K_SELECTION: choice}.items() if source}
        # Of the data it is said what is there: the report waits for it, where this run makes it again.
        of_data = [each for each in (inputs, grouped) if isinstance(each, Source) and each.folder is not None]

        def job(folder: str, kmeans: str, *folders: str) -> JobConfig:
            folder_of = dict(zip(others, folders, strict=False))
            # What is said of the data is left out where that is gone.
            vectors = inputs if isinstance(inputs, Source) else self._read_by(clusters, CLUSTERING_INPUTS)
            users = grouped if isinstance(grouped, Source) else self._grouped_for(vectors)
            return MakeReport(
                kmeans=kmeans,
                output=folder,
                k_selection=folder_of.get(K_SELECTION),
                segments=folder_of.get(SEGMENTS),
                inputs=None if vectors is None else vectors.folder,
                grouped=None if users is None else users.folder,
                month=month,
                category=category,
                config=config,
                **self._machine(),
            )

        return self._decide(target, recipe, [clusters, *others.values(), *of_data], job)

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
        newest = records.newest(target.partition)
        why = "forced" if record is not None else why_not_reused(newest, recipe, records.damage_of)
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
