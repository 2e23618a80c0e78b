"""Whether outputs are equal: a digest of each step's output, which does not depend on how rows are ordered or spread
over files, nor on how profiles are numbered; and the cost of a clustering, computed the same way for all.
"""

import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import scipy.sparse as sp

from spark_jobs.config import ACTIONS

Digest = dict[str, Any]

_PAGE = f"STRUCT(page_id VARCHAR, {', '.join(f'{action} BIGINT' for action in ACTIONS)})"


class NotSound(Exception):
    """An output contradicts itself."""


def grouped_users(folder: Path) -> Digest:
    """Of all users, whose pages must be in order, and of all rejects."""
    users = _digest(f"SELECT user_id, gender, pages::{_PAGE}[] FROM '{folder}/users/*.parquet'")
    rejects = _digest("SELECT 1 WHERE false")  # as where there is no file
    if any(folder.glob("rejects/*.parquet")):
        rejects = _digest(f"SELECT parse_filename(file), line::BIGINT, reason FROM '{folder}/rejects/*.parquet'")
    counts = ", ".join(f"sum(list_sum(list_transform(pages, lambda page: page.{action})))" for action in ACTIONS)
    actions = _row(f"SELECT {counts} FROM '{folder}/users/*.parquet'")
    return {"users": users, "rejects": rejects, "actions": [int(count or 0) for count in actions]}


def clustering_inputs(folder: Path) -> Digest:
    """Of a category's dimensions, distinct vectors, and who has which."""
    profiles = f"SELECT profile_id, {_VECTOR} AS vector, weight::BIGINT AS weight FROM '{folder}/profiles.parquet'"
    return {
        "dimensions": _digest(
            "SELECT dimension_index::INT, dimension_id, dimension_name, network, users::BIGINT, round(total::DOUBLE, 6)"
            f" FROM '{folder}/dimensions.parquet'"
        ),
        "profiles": _digest(f"SELECT vector, weight FROM ({profiles})"),
        "members": _digest(
            f"SELECT user_id, gender, vector FROM '{folder}/members.parquet' JOIN ({profiles}) USING (profile_id)"
        ),
    }


# Rounded, for 1 / (1 + largest) times a value may differ in the last bit.
_VECTOR = "list_zip(indices::INT[], list_transform(values::DOUBLE[], lambda value: round(value, 12)))"


def clustering(inputs: Path, folder: Path) -> Digest:
    """What a clustering costs: the sum over all users of the squared distance to their own cluster's center.

    Raises:
        NotSound: A user is in no cluster or in two, or the files contradict each other.
    """
    assigned = pq.read_table(folder / "assignments.parquet").sort_by("user_id")
    members = pq.read_table(inputs / "members.parquet", columns=["user_id", "profile_id"]).sort_by("user_id")
    if assigned["user_id"].combine_chunks() != members["user_id"].combine_chunks():
        raise NotSound(f"{folder}: assignments.parquet has not each member once")
    cluster, profile = assigned["cluster_id"].to_numpy(), members["profile_id"].to_numpy()
    table = pq.read_table(folder / "centers.parquet").sort_by("cluster_id")
    centers = np.array(table["center"].to_pylist())
    vectors = _read_profiles(inputs, centers.shape[1])[profile]
    row = np.repeat(np.arange(len(profile)), np.diff(vectors.indptr))
    terms = vectors.data * (vectors.data - 2 * centers[cluster[row], vectors.indices])
    squared = np.bincount(row, terms, minlength=len(profile)) + (centers**2).sum(axis=1)[cluster]
    wssse = float(squared.sum())

    users = np.bincount(cluster, minlength=len(centers)).tolist()
    with (folder / "meta-data.json").open() as file:
        told = [json.loads(line) for line in file]
    with (folder / "data.json").open() as file:
        listed = [len(json.loads(line)["user_ids"]) for line in file]
    if not users == [line["cluster_member_count"] for line in told] == listed == table["users"].to_pylist():
        raise NotSound(f"{folder}: the files name different numbers of users of the clusters")
    if any(abs(line["cluster_wssse"] - wssse) > 1e-6 * wssse for line in told):
        raise NotSound(f"{folder}: meta-data.json says the wssse is {told[0]['cluster_wssse']}; it is {wssse}")
    return {"k": len(centers), "users": int(sum(users)), "wssse": wssse}


def _read_profiles(inputs: Path, dimensions: int) -> sp.csr_matrix:
    table = pq.read_table(inputs / "profiles.parquet").sort_by("profile_id").combine_chunks()
    indices, values = table["indices"].combine_chunks(), table["values"].combine_chunks()
    data = (values.flatten().to_numpy(), indices.flatten().to_numpy(), indices.offsets.to_numpy())
    return sp.csr_matrix(data, shape=(table.num_rows, dimensions))


def _digest(query: str) -> str:
    """How many rows a query gives, and the sum of their 64-bit hashes: the same for the same rows in any order."""
    rows, total = _row(f"SELECT count(*), sum(hash(row)::HUGEINT) FROM ({query}) AS row")
    return f"{rows} rows, {int(total or 0) % 2**64:016x}"


def _row(query: str) -> tuple[Any, ...]:
    with duckdb.connect() as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row
