"""The benchmarks run, tiny: every contender gives the same users and inputs, and clusters that are what they say."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.conftest import require_spark

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="module", autouse=True)
def _peers() -> None:
    missing = [name for name in ("duckdb", "polars") if importlib.util.find_spec(name) is None]
    if missing:
        why = f"{' and '.join(missing)} not installed: pip install -e '.[bench]'"
        if os.environ.get("CI"):
            pytest.fail(f"CI must run the benchmarks' stories: {why}")
        pytest.skip(why)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where generated actions are kept for all these stories."""
    return tmp_path_factory.mktemp("bench")


def bench(data: Path, results: Path, *options: str) -> dict[str, dict[str, Any]]:
    """Type `python -m benchmarks --quick …`; the rows of the results file by contender."""
    sizes = ["--actions", "20000", "--users", "5000"]
    command = [sys.executable, "-m", "benchmarks", "--quick", "--data", data, "--results", results, *sizes, *options]
    done = subprocess.run(list(map(str, command)), cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{done.stdout}\n{done.stderr}")
    return {row["contender"]: row for row in json.loads(results.read_text())["rows"]}


def assert_complete(rows: dict[str, dict[str, Any]], results: Path, names: set[str]) -> None:
    """Each contender's run is there with all that the table shows, and gave what ours gave."""
    assert set(rows) == names
    for row in rows.values():
        (run,) = row["runs"]
        assert run["ended"] == "well"
        assert min(run["seconds"], run["cpu_seconds"], run["peak_bytes"]) > 0
        assert {"at", "commit", "load", "limited", "parts"} <= set(run)
    content = json.loads(results.read_text())
    assert {"cores", "processor", "memory_bytes", "platform"} == set(content["machine"])
    assert {"Python", "duckdb", "polars", "scikit-learn"} <= set(content["versions"])
    lines = results.with_suffix(".md").read_text().splitlines()
    for name in names:
        (line,) = [line for line in lines if f"| {name} |" in line]
        assert line.endswith("| equal |")


@pytest.mark.parametrize(
    ("scenario", "names"),
    [
        ("group-social", {"ours", "DuckDB and scikit-learn", "Polars and scikit-learn"}),
        ("inputs", {"ours", "ours, a run a category", "DuckDB and scikit-learn", "Polars and scikit-learn"}),
        ("kmeans", {"ours", "scikit-learn, one row a user", "scikit-learn, weighted profiles"}),
    ],
)
def test_a_step(scenario: str, names: set[str], data: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    chosen = [option for name in names for option in ("--contender", name)]
    assert_complete(bench(data, results, "--only", scenario, *chosen), results, names)


@pytest.mark.spark
def test_a_month_which_has_every_step_of_every_contender(data: Path, tmp_path: Path) -> None:
    require_spark()
    results = tmp_path / "results.json"
    names = {"ours", "Spark and MLlib", "DuckDB and scikit-learn", "Polars and scikit-learn"}
    assert_complete(bench(data, results, "--only", "month"), results, names)


def test_what_was_measured_is_not_measured_again(data: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    first = bench(data, results, "--only", "startup", "--contender", "ours")
    both = bench(data, results, "--only", "startup", "--contender", "ours", "--contender", "DuckDB")
    assert both["ours"] == first["ours"]
    assert set(both) == {"ours", "DuckDB and scikit-learn"}


def test_a_difference_is_seen(tmp_path: Path) -> None:
    from benchmarks import actions, equal
    from benchmarks.contenders import DUCKDB

    actions.generate(tmp_path, "social", 2_000, categories=1)
    (command,) = DUCKDB.group(tmp_path / f"month={actions.MONTH}", tmp_path / "users", 10**9)
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)
    right = equal.grouped_users(tmp_path / "users")
    shutil.copytree(tmp_path / "users", tmp_path / "same")
    assert equal.grouped_users(tmp_path / "same") == right
    file = next((tmp_path / "same" / "users").glob("*.parquet"))
    users = pq.read_table(file)
    swapped = pc.if_else(pc.equal(users["gender"], "1"), "2", users["gender"])
    pq.write_table(users.set_column(1, "gender", swapped), file)
    assert equal.grouped_users(tmp_path / "same")["users"] != right["users"]


def test_the_small_form_of_the_suite_of_segments_finds_what_is_there(tmp_path: Path) -> None:
    """By default settings, on every draw: the exact k where there are segments, and none where there are none."""
    results = tmp_path / "segments.json"
    command = [sys.executable, "-m", "benchmarks.segments", "--quick", "--results", str(results)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    rows = json.loads(results.read_text())["rows"]
    assert len(rows) == 8
    for row in rows:
        assert row["ours"]["k"] == row["true_k"], row["name"]
        if row["true_k"] > 1:
            assert row["ari_ours"] >= 0.95 * row["ari_em"], row["name"]
    assert {row["ours"]["verdict"] for row in rows} == {"segments", "none"}
    assert "| exact k, structured designs | ≥ 85 % | 100 % | yes |" in results.with_suffix(".md").read_text()
