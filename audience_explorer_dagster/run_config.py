"""What a run's config holds. The fields of each step are those of its job, described and validated there.

What a run's config leaves out is as in the deployment's own config, the file AUDIENCE_EXPLORER_RUN_CONFIG.
"""

import dagster as dg
from pydantic import Field, field_validator

from audience_explorer_dagster import deployment
from spark_jobs import config as jobs
from spark_jobs import resources


class GroupedUsersConfig(dg.Config, jobs.GroupedUsersConfig):
    """How raw actions become grouped users."""


class ClusteringInputsConfig(dg.Config, jobs.ClusteringInputsConfig):
    """How users become vectors."""


class KSelectionConfig(dg.Config, jobs.KSelectionConfig):
    """How k is chosen."""


class KMeansConfig(dg.Config, jobs.KMeansConfig):
    """How k-means runs.

    Dagster's launchpad leaves out what is null by default, so 0 and the empty text stand for it.
    """

    k: int | None = Field(
        default=0,
        validate_default=True,
        ge=1,
        description="Number of clusters, at least 1; 0 (or null) for the one that k_selection chose.",
    )
    label: str | None = Field(
        default="",
        validate_default=True,
        description="Names a variant, so that it stands beside the others; it decides nothing else. None if empty.",
    )

    @field_validator("k", "label", mode="before")
    @classmethod
    def _none_if_empty(cls, value: object) -> object:
        return None if value in (0, "") else value


class ResourcesConfig(dg.Config, resources.ResourcesConfig):
    """What the jobs may use of the machine they run on."""


class RunConfig(dg.Config, jobs.EngineConfig):
    """What every run may set."""

    resources: ResourcesConfig = Field(
        default_factory=ResourcesConfig,
        description="What the jobs may use of the machine they run on; all it has by default.",
    )
    force: bool = Field(default=False, description="Compute even what is there already.")

    @property
    def engine_config(self) -> jobs.EngineConfig:
        """The engine that the jobs run on."""
        return jobs.EngineConfig(**{name: getattr(self, name) for name in jobs.EngineConfig.model_fields})


class GroupingRunConfig(RunConfig):
    """The config of grouped_users."""

    grouped_users: GroupedUsersConfig = Field(
        default_factory=GroupedUsersConfig, description="How raw actions become grouped users."
    )


class SegmentsRunConfig(RunConfig):
    """The config of clustering_inputs, k_selection and kmeans."""

    clustering_inputs: ClusteringInputsConfig = Field(
        default_factory=ClusteringInputsConfig, description="How users become vectors."
    )
    k_selection: KSelectionConfig = Field(default_factory=KSelectionConfig, description="How k is chosen.")
    kmeans: KMeansConfig = Field(default_factory=KMeansConfig, description="How k-means runs.")
    promote: bool = Field(
        default=False,
        description="Make the k-means outputs of this run current, until `audience-explorer promote --automatic`. If"
        " not, those with a label or with parameters that are not the deployment's own stand beside the current one.",
    )


class MonthRunConfig(GroupingRunConfig, SegmentsRunConfig):
    """The config of a whole month."""

    categories: list[str] = Field(
        default=[], description="The categories; all that have a file, if there is none here."
    )


# The engine is asked for here, and not at each run: the launchpad shows no default that is still to be found out.
deployment.set_defaults(
    (GroupingRunConfig, SegmentsRunConfig, MonthRunConfig),
    {"engine": jobs.EngineConfig().engine, **deployment.read_own_config()},
)
