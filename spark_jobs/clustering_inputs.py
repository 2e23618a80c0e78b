"""Reading clustering inputs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from spark_jobs import outputs
from spark_jobs.profiles import from_table

_STEP = "clustering_inputs"


@dataclass(frozen=True)
class Inputs:
    """A category's clustering inputs without its members, who are read as they are needed."""

    folder: str
    fingerprint: str
    category: dict[str, Any]  # id, name, private
    dimensions: pa.Table
    profiles: sp.csr_matrix  # (n, d)
    weight: np.ndarray  # (n,) users of each profile
    bytes: int  # of its files


def read(folder: str) -> Inputs:
    """Read an output of make_clustering_inputs.

    Raises:
        InputError: The folder holds none.
    """
    manifest = outputs.read_manifest(folder, _STEP)
    dimensions = outputs.read_table(folder, "dimensions.parquet")
    profiles, weight = from_table(outputs.read_table(folder, "profiles.parquet"), dimensions.num_rows)
    summary = manifest["summary"]
    return Inputs(
        folder, manifest["fingerprint"], summary["category"], dimensions, profiles, weight, summary["bytes_out"]
    )
