"""What a run has to do for each of its targets, and why: plans are values, made from values (`plan.py`)."""

from audience_explorer_dagster.planning.targets import (
    AUDIENCE_REPORT,
    CLUSTERING_INPUTS,
    GROUPED_USERS,
    K_SELECTION,
    KMEANS,
    SEGMENTS,
    Target,
)

__all__ = ["AUDIENCE_REPORT", "CLUSTERING_INPUTS", "GROUPED_USERS", "KMEANS", "K_SELECTION", "SEGMENTS", "Target"]
