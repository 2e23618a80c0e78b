"""k-means by scikit-learn over a category's inputs, and the contract's files of it."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp
from sklearn.cluster import KMeans

from benchmarks.peers import CATEGORY_FILE, COMPRESSION, part
from spark_jobs.vectors.category_files import read_category


def cluster(inputs: Path, out: Path, k: int, n_init: int, seed: int, one_row_a_user: bool) -> None:
    """Cluster the distinct profiles by weight, or one row a user as who has no profiles would."""
    with part("read"):
        members = pq.read_table(inputs / "members.parquet", columns=["user_id", "profile_id"])
        profile = members["profile_id"].to_numpy()
        profiles, weight = _read_profiles(inputs)
        vectors = profiles[profile] if one_row_a_user else profiles
    with part("fit"):
        model = KMeans(min(k, profiles.shape[0]), n_init=n_init, random_state=seed)
        labels = model.fit(vectors, sample_weight=None if one_row_a_user else weight.astype(float)).labels_
    with part("write"):
        of_user = labels if one_row_a_user else labels[profile]
        # Numbered by users, the largest first, ties by the center.
        users = np.bincount(of_user, minlength=len(model.cluster_centers_))
        order = sorted(np.flatnonzero(users), key=lambda c: (-users[c], tuple(model.cluster_centers_[c])))
        number = np.empty(len(users), np.int32)
        number[order] = np.arange(len(order))
        centers = model.cluster_centers_[order]
        row_cluster, row_weight = number[labels], np.ones(len(labels)) if one_row_a_user else weight
        distances = _distances(vectors, centers, row_cluster)
        of_member = (number[of_user], distances if one_row_a_user else distances[profile])
        _write(out, inputs, members["user_id"], of_member, vectors, row_cluster, row_weight, distances, centers)


def _read_profiles(inputs: Path) -> tuple[sp.csr_matrix, np.ndarray]:
    dimensions = pq.read_metadata(inputs / "dimensions.parquet").num_rows
    table = pq.read_table(inputs / "profiles.parquet").combine_chunks()
    indices, values = table["indices"].combine_chunks(), table["values"].combine_chunks()
    data = (values.flatten().to_numpy(), indices.flatten().to_numpy(), indices.offsets.to_numpy())
    return sp.csr_matrix(data, shape=(table.num_rows, dimensions)), table["weight"].to_numpy()


def _distances(vectors: sp.csr_matrix, centers: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """Of each row to its own center: ‖x - c‖² = ‖x‖² - 2xc + ‖c‖²."""
    own = np.repeat(cluster, np.diff(vectors.indptr))
    row = np.repeat(np.arange(len(cluster)), np.diff(vectors.indptr))
    terms = vectors.data * (vectors.data - 2 * centers[own, vectors.indices])
    squared = np.bincount(row, terms, minlength=len(cluster)) + (centers**2).sum(axis=1)[cluster]
    return np.asarray(np.sqrt(np.maximum(squared, 0)))


def _write(
    out: Path,
    inputs: Path,
    user_ids: pa.ChunkedArray,
    of_member: tuple[np.ndarray, np.ndarray],
    vectors: sp.csr_matrix,
    cluster: np.ndarray,
    weight: np.ndarray,
    distances: np.ndarray,
    centers: np.ndarray,
) -> None:
    k = len(centers)
    member_cluster, member_distance = of_member
    assignments = pa.table({"user_id": user_ids, "cluster_id": member_cluster, "distance": member_distance})
    pq.write_table(assignments, out / "assignments.parquet", compression=COMPRESSION)
    with (out / "data.json").open("w") as file:
        for c in range(k):
            of_cluster = user_ids.filter(pa.array(member_cluster == c)).to_pylist()
            file.write(json.dumps({"cluster_id": c, "user_ids": of_cluster}, ensure_ascii=False) + "\n")

    membership = sp.csr_matrix((weight, (cluster, np.arange(len(cluster)))), shape=(k, len(cluster)))
    have = (membership @ (vectors > 0)).toarray()
    users = np.bincount(cluster, weight, minlength=k).astype(np.int64)
    average = (membership @ vectors).toarray() / users[:, None]
    lowest, highest = (
        np.array([getattr(vectors[cluster == c], bound)(axis=0).toarray().ravel() for c in range(k)])
        for bound in ("min", "max")
    )
    wssse = float(weight @ distances**2)
    diameters = [2 * float(distances[cluster == c].max()) for c in range(k)]
    private = read_category(str(inputs / CATEGORY_FILE)).private
    table = pq.read_table(inputs / "dimensions.parquet", columns=["dimension_id", "dimension_name"])
    ids, names = table.to_pydict().values()
    with (out / "meta-data.json").open("w") as file:
        for c in range(k):
            dimensions = [
                {
                    "dimension_id": ids[d],
                    "dimension_name": names[d],
                    "member_count": int(have[c, d]),
                    "center": float(centers[c, d]),
                    "min": float(lowest[c, d]),
                    "max": float(highest[c, d]),
                    "avg": float(average[c, d]),
                }
                for d in range(len(ids))
            ]
            row = {
                "cluster_id": c,
                "cluster_member_count": int(users[c]),
                "private": private,
                "cluster_diameter": diameters[c],
                "cluster_wssse": wssse,
                "dimensions": dimensions,
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    table = pa.table({"cluster_id": pa.array(range(k), pa.int32()), "users": users, "center": centers.tolist()})
    pq.write_table(table, out / "centers.parquet", compression=COMPRESSION)
