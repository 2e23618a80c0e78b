"""What the golden case must give."""

import json
from pathlib import Path
from typing import Any

import pytest


def read_json_lines(file: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines."""
    with file.open(encoding="utf-8", newline="\n") as lines:  # ids may hold what else ends a line of text
        return [json.loads(line) for line in lines]


def assert_golden(clusters: Path, golden: Path) -> None:
    """Check a kmeans output against expected.json: floats to 1e-9, cluster ids and order free."""
    expected = json.loads((golden / "expected.json").read_text())
    data = {row["cluster_id"]: row["user_ids"] for row in read_json_lines(clusters / "data.json")}
    assert sorted(data.values()) == sorted(row["user_ids"] for row in expected["data"])
    meta = {tuple(data[row["cluster_id"]]): row for row in read_json_lines(clusters / "meta-data.json")}
    for want in expected["meta_data"]:
        users = tuple(want.pop("user_ids"))
        dimensions = want.pop("dimensions")
        got = meta[users]
        for field, value in want.items():
            assert got[field] == pytest.approx(value, abs=1e-9), field
        for got_dimension, dimension in zip(got["dimensions"], dimensions, strict=True):
            assert got_dimension == pytest.approx(dimension, abs=1e-9)
