"""What a k-means found of a category's users, whichever library computed it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from spark_jobs.clusters import description, stability
from spark_jobs.config import ACTIONS
from spark_jobs.vectors import clustering_inputs
from spark_jobs.vectors.clustering_inputs import InputsMetadata

ASSIGNMENT = pa.schema(
    [("user_id", pa.string()), ("cluster_id", pa.int32()), ("distance", pa.float64()), ("confidence", pa.float64())]
)
COUNTED = ("actions", *ACTIONS)
# Rows of ASSIGNMENT, with what is known of the people; numbers of actions are null where the inputs don't say.
PLACED = pa.schema([*ASSIGNMENT, ("gender", pa.string()), *((name, pa.int64()) for name in COUNTED)])
_JUDGED = 5_000  # people, drawn where there are more, on whom the clusters' stability is measured


@dataclass(frozen=True)
class Clusters:
    """What a k-means found: k clusters, numbered by users, the largest first, in d dimensions."""

    centers: np.ndarray  # (k, d)
    users: np.ndarray  # (k,) users in each cluster
    diameters: np.ndarray  # (k,)
    dimensions: description.ClusterDimensions
    value_range: tuple[np.ndarray, np.ndarray]  # the smallest and the largest value of any profile, both (d,)
    iterations: int
    converged: bool
    scores: dict[str, float | None]
    library: str  # its name and version
    learned: "Learned"
    placed: Iterator[pa.RecordBatch]  # rows of PLACED, by user_id

    @property
    def k(self) -> int:
        return len(self.centers)


@dataclass(frozen=True)
class Learned:
    """Who a clustering was learned from, and how solid that makes it."""

    users: int
    min_actions: int  # of each of them
    wssse: float  # over them
    stability: np.ndarray  # (k,) see `stability.stabilities`


def stabilities_on_sample(
    metadata: InputsMetadata, min_actions: int, centers: np.ndarray, seed: int, strict: bool
) -> np.ndarray:
    """(k,) the stability of clusters with some centers (k, d), measured on some of those who were learned from.

    A single cluster has no other to compare with: NaN.
    """
    if len(centers) == 1:
        return np.full(1, np.nan)
    drawn = clustering_inputs.sample(metadata, min_actions, _JUDGED, 0, seed, strict)
    return stability.stabilities(drawn.profiles, drawn.fit_weight, centers, seed)
