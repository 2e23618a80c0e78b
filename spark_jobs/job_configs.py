"""What each job is given. It travels as JSON from a launcher to `python -m spark_jobs`, which hands it to the job."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from spark_jobs.config import (
    ClusteringInputsConfig,
    EngineConfig,
    GroupedUsersConfig,
    KMeansConfig,
    KSelectionConfig,
    ReportConfig,
    SegmentsConfig,
)
from spark_jobs.following.edits import Edit, to_json
from spark_jobs.options import to_arguments
from spark_jobs.resources import ResourcesConfig


class JobConfig(BaseModel, ABC):
    """What a job reads, what it makes, and how. The fields are the parameters of its `run`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    module: ClassVar[str]  # of spark_jobs, whose `run` is the job

    engine: EngineConfig = Field(default_factory=EngineConfig)
    resources: ResourcesConfig = Field(default_factory=ResourcesConfig)

    def values(self) -> dict[str, Any]:
        """The arguments of `run`, by parameter, with the resources that this machine has.

        Raises:
            InputError: The scratch folder does not exist.
        """
        return {**dict(self), "resources": self.resources.resolve()}

    @property
    def arguments(self) -> list[str]:
        """The arguments of `python -m spark_jobs.MODULE`, for people who want to run the job by hand."""
        return [*self._own_arguments(), *to_arguments(self.engine), *to_arguments(self.resources)]

    @abstractmethod
    def _own_arguments(self) -> list[str]:
        """Those of the job alone."""


class GroupByUser(JobConfig):
    """A month's raw actions → grouped users."""

    module = "group_by_user"

    raw: str
    output: str
    month: str
    config: GroupedUsersConfig

    def _own_arguments(self) -> list[str]:
        return [self.raw, self.output, "--month", self.month, *to_arguments(self.config)]


class MakeClusteringInputs(JobConfig):
    """A month's grouped users → the clustering inputs of some categories."""

    module = "make_clustering_inputs"

    grouped: str
    output: str  # with the text {category} in it
    category_files: tuple[str, ...]
    config: ClusteringInputsConfig

    def _own_arguments(self) -> list[str]:
        files = (part for file in self.category_files for part in ("--category", file))
        return [self.grouped, self.output, *files, *to_arguments(self.config)]


class SelectK(JobConfig):
    """A category's clustering inputs → whether there are segments, and how many."""

    module = "select_k"

    inputs: str
    output: str
    config: KSelectionConfig

    def _own_arguments(self) -> list[str]:
        return [self.inputs, self.output, *to_arguments(self.config)]


class KMeans(JobConfig):
    """A category's clustering inputs → clusters."""

    module = "kmeans"

    inputs: str
    output: str
    k_selection: str | None = None  # whose k is taken where the config has none
    config: KMeansConfig

    @model_validator(mode="after")
    def _has_k(self) -> "KMeans":
        if self.config.k is None and self.k_selection is None:
            raise ValueError("there is neither a k nor a k_selection that has one")
        return self

    def _own_arguments(self) -> list[str]:
        choice = [] if self.k_selection is None else ["--k-selection", self.k_selection]
        return [self.inputs, self.output, *choice, *to_arguments(self.config)]


class MakeReport(JobConfig):
    """A category's clusters → a page for people."""

    module = "make_report"

    kmeans: str
    output: str
    k_selection: str | None = None  # that the clusters' k is from
    segments: str | None = None  # of the clusters, followed
    inputs: str | None = None  # that the clusters were made from
    grouped: str | None = None  # that the inputs were made from
    month: str
    category: str
    config: ReportConfig = Field(default_factory=ReportConfig)

    def _own_arguments(self) -> list[str]:
        choice = [] if self.k_selection is None else ["--k-selection", self.k_selection]
        followed = [] if self.segments is None else ["--segments", self.segments]
        vectors = [] if self.inputs is None else ["--inputs", self.inputs]
        users = [] if self.grouped is None else ["--grouped-users", self.grouped]
        of = ["--month", self.month, "--category", self.category]
        return [self.kmeans, self.output, *of, *choice, *followed, *vectors, *users]


class FollowSegments(JobConfig):
    """A category's clusters, and its segments of the month before → its segments."""

    module = "follow_segments"

    clusters: str
    inputs: str  # that the clusters were made from
    output: str
    month: str
    previous: str | None = None
    edits: tuple[Edit, ...] = ()  # all of the category: those that hold for the month count
    config: SegmentsConfig

    def _own_arguments(self) -> list[str]:
        previous = [] if self.previous is None else ["--previous", self.previous]
        month = ["--month", self.month]
        edits = [part for edit in self.edits for part in ("--edit", to_json(edit))]
        return [self.clusters, self.inputs, self.output, *month, *previous, *edits, *to_arguments(self.config)]


JOBS: dict[str, type[JobConfig]] = {
    job.module: job for job in (GroupByUser, MakeClusteringInputs, SelectK, KMeans, MakeReport, FollowSegments)
}
