"""Reading clustering inputs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from spark_jobs import outputs
from spark_jobs.profiles import DIMENSIONS, PROFILES, from_table
from spark_jobs.schemas import strictness

_STEP = "clustering_inputs"


@dataclass(frozen=True)
class Inputs:
    """A category's clustering inputs without its members, who are read as they are needed."""

    folder: str
    fingerprint: str
    config: dict[str, Any]  # of make_clustering_inputs
    category: dict[str, Any]  # id, name, private
    dimensions: pa.Table
    profiles: sp.csr_matrix  # (n, d)
    weight: np.ndarray  # (n,) users of each profile
    bytes: int  # of its files


def read(folder: str, strict: bool) -> Inputs:
    """Read an output of make_clustering_inputs, and look at every row if it is to be strict.

    Raises:
        InputError: The folder holds none.
        SchemaBreach: A row breaks a rule.
    """
    checked = strictness(strict)
    manifest = outputs.read_manifest(folder, _STEP)
    dimensions = checked(DIMENSIONS, outputs.read_table(folder, "dimensions.parquet"))
    table = checked(PROFILES, outputs.read_table(folder, "profiles.parquet"))
    profiles, weight = from_table(table, dimensions.num_rows)
    summary = manifest["summary"]
    return Inputs(
        folder,
        manifest["fingerprint"],
        manifest["config"],
        summary["category"],
        dimensions,
        profiles,
        weight,
        summary["bytes_out"],
    )
