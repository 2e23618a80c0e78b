"""Reading clustering inputs: who tells enough to be learned from, and outputs that an older code version made."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from spark_jobs import clustering_inputs, outputs
from spark_jobs.config import FIT_MIN_ACTIONS
from tests.conftest import Engine


@pytest.fixture
def made(tmp_path: Path, sail: Engine, write_category: Callable[..., Path]) -> Path:
    """Clustering inputs of six users with two profiles."""
    counts = {"a": {"p": 1}, "b": {"p": 5}, "c": {"p": 9}, "d": {"q": 2}, "e": {"q": 4}, "f": {"p": 40}}
    rows = [{"user_id": user, "page_like": pages} for user, pages in counts.items()]
    (tmp_path / "users.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    category = write_category("x", "p", "q")
    sail.run("make_clustering_inputs", tmp_path / "users.jsonl", tmp_path / "in", "--category", category)
    return tmp_path / "in"


def read(folder: Path) -> clustering_inputs.Inputs:
    return clustering_inputs.read(clustering_inputs.read_head(str(folder), strict=True), strict=True)


def as_of_version_1(folder: Path) -> None:
    """Make the output one of the code version that knew nothing of actions."""
    for name, column in (("profiles", "fit_weight"), ("members", "actions")):
        table = pq.read_table(folder / f"{name}.parquet").drop_columns([column])
        pq.write_table(table, folder / f"{name}.parquet")
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["summary"]["fit_min_actions"], manifest["summary"]["fit_users"]
    (folder / "manifest.json").write_text(json.dumps({**manifest, "code_version": "1"}))


def test_the_fit_weight_is_of_those_with_so_many_actions(made: Path) -> None:
    inputs = read(made)
    assert inputs.weight.tolist() == [4, 2]
    assert inputs.fit_weight.tolist() == [3, 0]
    summary = outputs.read_manifest(str(made), "clustering_inputs")["summary"]
    assert (summary["fit_min_actions"], summary["fit_users"]) == (FIT_MIN_ACTIONS, 3)


@pytest.mark.parametrize(
    ("at_least", "expected"), [(0, [4, 2]), (1, [4, 2]), (2, [3, 2]), (5, [3, 0]), (40, [1, 0]), (41, [0, 0])]
)
def test_another_least_number_is_counted_from_the_members(made: Path, at_least: int, expected: list[int]) -> None:
    found = clustering_inputs.fit_weight(read(made), at_least)
    assert (found.dtype, found.tolist()) == (np.int64, expected)


def test_inputs_of_code_version_1_are_read_and_everybody_is_learned_from(made: Path, sail: Engine) -> None:
    as_of_version_1(made)
    inputs = read(made)
    for at_least in (1, FIT_MIN_ACTIONS, 40):
        assert clustering_inputs.fit_weight(inputs, at_least).tolist() == inputs.weight.tolist() == [4, 2]
    sail.run("kmeans", made, made.parent / "out", "--k", 2)
    assert json.loads((made.parent / "out" / "summary.json").read_text())["k"] == 2


@pytest.mark.spark
def test_the_cluster_reads_inputs_of_code_version_1(made: Path, spark: Engine) -> None:
    as_of_version_1(made)
    spark.run("kmeans_cluster", made, made.parent / "out", "--k", 2, "--strict-schema", "true")
    assert json.loads((made.parent / "out" / "summary.json").read_text())["k"] == 2
