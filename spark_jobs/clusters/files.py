"""The files of clusters: data.json, meta-data.json, assignments.parquet, centers.parquet and profiles.parquet."""

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from spark_jobs.clusters import stability
from spark_jobs.clusters.learned import ASSIGNMENT, Clusters
from spark_jobs.clusters.published import SEGMENT_PROFILES
from spark_jobs.clusters.segment_profiles import SegmentProfiles
from spark_jobs.clusters.traits import Traits
from spark_jobs.config import ACTIONS
from spark_jobs.engines.pieces import Piece, Spill
from spark_jobs.outputs import Output
from spark_jobs.outputs.schemas import AT_LEAST_0, AT_LEAST_1, TableRules
from spark_jobs.sorting import run_starts
from spark_jobs.texts import json_items
from spark_jobs.vectors.clustering_inputs import InputsMetadata

CENTER = pa.schema(
    [
        ("cluster_id", pa.int32()),
        ("users", pa.int64()),
        ("center", pa.list_(pa.float64())),
        ("dimension_ids", pa.list_(pa.string())),  # of the values of `center`, in their order
        ("dimension_names", pa.list_(pa.string())),
    ]
)

ASSIGNMENTS = TableRules(
    "assignments.parquet",
    ASSIGNMENT,
    non_empty=("user_id",),
    ranges={"cluster_id": AT_LEAST_0, "distance": AT_LEAST_0, "confidence": (0, 1)},
    key="user_id",
)
CENTERS = TableRules(
    "centers.parquet",
    CENTER,
    non_empty=("dimension_ids",),
    ranges={"cluster_id": AT_LEAST_0, "users": AT_LEAST_1},
    key="cluster_id",
)
DATA = TableRules(
    "data.json",
    pa.schema([("cluster_id", pa.int32()), ("user_ids", pa.list_(pa.string()))]),
    non_empty=("user_ids",),
    ranges={"cluster_id": AT_LEAST_0},
)
_CLUSTER_DIMENSION = pa.struct(
    [
        ("dimension_id", pa.string()),
        ("dimension_name", pa.string()),
        ("member_count", pa.int64()),
        *((value, pa.float64()) for value in ("center", "min", "max", "avg")),
    ]
)
META_DATA = TableRules(
    "meta-data.json",
    pa.schema(
        [
            ("cluster_id", pa.int32()),
            ("cluster_member_count", pa.int64()),
            ("private", pa.bool_()),
            ("cluster_diameter", pa.float64()),
            ("cluster_wssse", pa.float64()),
            ("cluster_stability", pa.float64()),
            ("cluster_solidity", pa.string()),
            ("cluster_name", pa.string()),
            ("cluster_share", pa.float64()),
            ("distinctive_pages", pa.list_(pa.string())),
            ("dimensions", pa.list_(_CLUSTER_DIMENSION)),
        ]
    ),
    non_empty=("cluster_name", "distinctive_pages", "dimensions.dimension_id"),
    ranges={
        "cluster_id": AT_LEAST_0,
        "cluster_member_count": AT_LEAST_1,
        **dict.fromkeys(("cluster_diameter", "cluster_wssse", "dimensions.member_count"), AT_LEAST_0),
        **dict.fromkeys(("cluster_stability", "cluster_share"), (0, 1)),
    },
    optional=("cluster_stability",),  # where nobody was learned from
)

_TOP_PAGES = 5


def write_clusters(
    output: Output,
    metadata: InputsMetadata,
    found: Clusters,
    profiles: SegmentProfiles,
    descriptions: list[dict[str, Any]],
    checked: Callable[[TableRules, Any], Any],
) -> None:
    """Write what clusters are like: meta-data.json, centers.parquet and profiles.parquet.

    Args:
        output: Where to.
        metadata: Of the inputs.
        found: The clusters.
        profiles: What each segment is.
        descriptions: The lines of meta-data.json, see `describe_clusters`.
        checked: Checks rows before they are written, see `strictness`.
    """
    with output.open_file("meta-data.json") as file:
        for row in descriptions:
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
    output.write_table("centers.parquet", checked(CENTERS, _centers(metadata, found)))
    output.write_table("profiles.parquet", checked(SEGMENT_PROFILES, profiles.pages))


def write_members(output: Output, found: Clusters, checked: Callable[[TableRules, Any], Any], scratch: str) -> Traits:
    """Write `assignments.parquet` and `data.json`, both by user_id; returns the traits of the people.

    Memory has a batch at a time: the clusters of `data.json`, which are written one after another, wait on disk.

    Args:
        output: Where to.
        found: The clusters, whose people are read.
        checked: Checks rows before they are written, see `strictness`.
        scratch: A folder for what does not stay in memory.
    """
    traits = Traits(found.k)
    with contextlib.closing(Spill(scratch)) as waiting:
        of_cluster: list[list[Piece]] = [[] for _ in range(found.k)]
        with (
            output.open_file("assignments.parquet") as file,
            pq.ParquetWriter(file, ASSIGNMENT, compression="zstd") as writer,
            ThreadPoolExecutor(1) as aside,
        ):
            for placed in found.placed:
                assigned = placed.select(ASSIGNMENT.names)
                written = aside.submit(writer.write_batch, checked(ASSIGNMENTS, assigned))
                for number, users in users_of_clusters(assigned):
                    of_cluster[number].append(waiting.put(json_items(users)))
                traits.add(
                    placed.column("cluster_id").to_numpy(),
                    placed.column("gender"),
                    placed.column("actions"),
                    [placed.column(action) for action in ACTIONS],
                )
                written.result()
        with output.open_file("data.json") as file:
            for number, pieces in enumerate(of_cluster):
                file.write(b'{"cluster_id": %d, "user_ids": [' % number)
                for place, piece in enumerate(pieces):
                    file.write((b", " if place else b"") + waiting.take(piece))
                file.write(b"]}\n")
    return traits


def _centers(metadata: InputsMetadata, found: Clusters) -> pa.Table:
    columns = [range(found.k), found.users.tolist(), found.centers.tolist()]
    columns += [[metadata.dimensions[name].to_pylist()] * found.k for name in ("dimension_id", "dimension_name")]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, CENTER, strict=True)]
    return pa.Table.from_arrays(arrays, schema=CENTER)


def users_of_clusters(assignments: pa.RecordBatch) -> Iterator[tuple[int, pa.StringArray]]:
    """The clusters in some rows of ASSIGNMENT, by number, and the users of each in their order."""
    cluster = assignments.column("cluster_id").to_numpy()
    order = np.argsort(cluster, kind="stable")
    users, starts = assignments.column("user_id").take(pa.array(order)), run_starts(cluster[order])
    for start, end in itertools.pairwise([*starts.tolist(), len(cluster)]):
        yield int(cluster[order[start]]), users.slice(start, end - start)


def describe_clusters(metadata: InputsMetadata, found: Clusters, profiles: SegmentProfiles) -> list[dict[str, Any]]:
    """The lines of meta-data.json."""
    ids, names = metadata.dimensions["dimension_id"].to_pylist(), metadata.dimensions["dimension_name"].to_pylist()
    on, total = found.dimensions, int(found.users.sum())
    return [
        {
            "cluster_id": cluster,
            "cluster_member_count": int(found.users[cluster]),
            "private": metadata.category["private"],
            "cluster_diameter": float(found.diameters[cluster]),
            "cluster_wssse": found.scores["wssse"],
            "cluster_stability": stability.rounded(found.learned.stability[cluster]),
            "cluster_solidity": stability.in_words(found.learned.stability[cluster]),
            "cluster_name": profiles.names[cluster],
            "cluster_share": round(int(found.users[cluster]) / total, 6),
            "distinctive_pages": profiles.distinctive[cluster],
            "dimensions": [
                {
                    "dimension_id": ids[d],
                    "dimension_name": names[d],
                    "member_count": int(on.member_count[cluster, d]),
                    "center": float(found.centers[cluster, d]),
                    "min": float(on.minimum[cluster, d]),
                    "max": float(on.maximum[cluster, d]),
                    "avg": float(on.average[cluster, d]),
                }
                for d in range(len(ids))
            ],
        }
        for cluster in range(found.k)
    ]


def summarize_cluster(row: dict[str, Any]) -> dict[str, Any]:
    """A line of meta-data.json in short: the cluster's users, and the pages most of them are on."""
    users = row["cluster_member_count"]
    top = sorted(row["dimensions"], key=lambda d: (-d["member_count"], -d["center"], d["dimension_id"]))[:_TOP_PAGES]
    return {
        "cluster_id": row["cluster_id"],
        "users": users,
        "diameter": row["cluster_diameter"],
        "solidity": row["cluster_solidity"],
        "top_pages": [
            {"name": d["dimension_name"], "share": round(d["member_count"] / users, 4)}
            for d in top
            if d["member_count"]
        ],
    }
