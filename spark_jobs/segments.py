"""The segments of a category, for notebooks and programs: `load_segments`. It needs neither Dagster nor its records."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from spark_jobs import storage
from spark_jobs.clusters.published import SEGMENT_COMPARISONS, SEGMENT_PROFILES
from spark_jobs.errors import InputError
from spark_jobs.json_texts import parse_json
from spark_jobs.outputs import broken, read_manifest
from spark_jobs.outputs.schemas import TableRules
from spark_jobs.outputs.tables import read_table
from spark_jobs.schema_versions import check_schema_version

_STEP = "kmeans"
_CURRENT = "current.json"


@dataclass(frozen=True)
class Segments:
    """The k segments of a category in a month: one output of kmeans.

    Attributes:
        folder: The output's folder.
        summary: k, verdict, scores, parameters: what `summary.json` has.
        dimensions: A row a page, in the order of the centers' values: `dimension_id`, `dimension_name`.
        clusters: A row a segment, by `cluster_id`: `name`, `users`, `share` (of all users), `diameter`, `solidity`, and
            `center`, with a value a page.
        profiles: A row a segment and page, in the order of both: how many people like it, there and elsewhere, and
            whether it sets the segment apart. These figures may be published: none is of fewer than `min_people`.
        members: A row a user: `user_id`, `cluster_id`, `distance`, `confidence`.
        comparisons: A row a segment, baseline and page: the same against everybody, and against each other segment.
    """

    folder: str
    summary: dict[str, Any]
    dimensions: pa.Table
    clusters: pa.Table
    profiles: pa.Table
    members: pa.Table
    comparisons: pa.Table


def load_segments(
    root: str, month: str, category: str, *, folder: str | None = None, columns: Sequence[str] | None = None
) -> Segments:
    """Load the current segments of a category in a month.

    Args:
        root: A local folder, or `s3://bucket/prefix` with AWS's usual variables for credentials and region.
        month: Such as `2024-01`.
        category: Its name, which is that of its file.
        folder: Another output than the current one, by the name of its folder, as `audience-explorer runs` lists it.
        columns: The columns of `members`, if not all; `[]` reads none, for an audience that is larger than memory.

    Raises:
        InputError: There are no such segments, or a file of theirs can't be read.
    """
    found = _folder(root, month, category, folder)
    manifest = read_manifest(found, _STEP)
    described = _json_lines(found, "meta-data.json")
    return Segments(
        found,
        manifest["summary"],
        _dimensions(described),
        _clusters(described),
        _table(found, manifest, SEGMENT_PROFILES),
        read_table(found, "assignments.parquet", None if columns is None else list(columns)),
        _table(found, manifest, SEGMENT_COMPARISONS),
    )


def _folder(root: str, month: str, category: str, name: str | None) -> str:
    """The folder of an output of kmeans, by its name; of the current one, if none is given."""
    outputs = storage.join(storage.absolute(root), _STEP, f"month={month}", f"category={category}")
    if name is None:
        location = storage.join(outputs, _CURRENT)
        try:
            current = parse_json(storage.read_bytes(location))
            check_schema_version(current, location, 1)
            name = str(current["folder"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{location} is damaged: the next run of the pipeline writes it anew.") from None
        except FileNotFoundError:
            raise InputError(
                f"There are no segments in {outputs}: it has no {_CURRENT}. Make them:"
                f" audience-explorer pipeline --root {root} --month {month} --category {category}"
            ) from None
    # Its place below the root is known, so a root that was moved or copied is as good.
    return storage.join(outputs, name.rstrip("/").rpartition("/")[2])


def _json_lines(folder: str, name: str) -> list[dict[str, Any]]:
    location = storage.join(folder, name)
    try:
        text = storage.read_bytes(location).decode()
        return [parse_json(line) for line in text.split("\n") if line]
    except (OSError, ValueError) as error:
        raise broken(folder, location, error) from error


def _dimensions(described: list[dict[str, Any]]) -> pa.Table:
    """The pages, which each line of meta-data.json has in the same order."""
    schema = pa.schema([("dimension_id", pa.string()), ("dimension_name", pa.string())])
    pages = described[0]["dimensions"] if described else []
    return pa.Table.from_pylist([{name: page[name] for name in schema.names} for page in pages], schema)


def _table(folder: str, manifest: dict[str, Any], rules: TableRules) -> pa.Table:
    """Without a row, where an earlier version made the output: version 4 had no profiles, 5 no comparisons."""
    if rules.name not in [file["path"] for file in manifest["files"]]:
        return rules.schema.empty_table()
    return read_table(folder, rules.name)


def _clusters(described: list[dict[str, Any]]) -> pa.Table:
    schema = pa.schema(
        [
            ("cluster_id", pa.int32()),
            ("name", pa.string()),
            ("users", pa.int64()),
            ("share", pa.float64()),
            ("diameter", pa.float64()),
            ("solidity", pa.string()),
            ("center", pa.list_(pa.float64())),
        ]
    )
    rows = [
        {
            "cluster_id": line["cluster_id"],
            "name": line.get("cluster_name"),  # code version 4 has neither names nor shares
            "users": line["cluster_member_count"],
            "share": line.get("cluster_share"),
            "diameter": line["cluster_diameter"],
            "solidity": line.get("cluster_solidity"),  # code version 2 has none
            "center": [page["center"] for page in line["dimensions"]],
        }
        for line in described
    ]
    return pa.Table.from_pylist(rows, schema)
