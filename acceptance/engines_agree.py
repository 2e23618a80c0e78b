"""Sail and Apache Spark give the same grouped users, clustering inputs and clusters, file by file."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from spark_jobs import demo_audience
from tests.conftest import Engine

pytestmark = pytest.mark.spark


def compute(engine: Engine, month: Path, categories: Sequence[Path], place: Path) -> None:
    files = [option for category in categories for option in ("--category", category)]
    engine.run("group_by_user", month, place / "users", patch={"_RAW_BYTES_A_FILE": 1 << 20})
    engine.run("make_clustering_inputs", place / "users", place / "inputs" / "{category}", *files)
    for category in categories:
        engine.run("kmeans", place / "inputs" / category.stem, place / "kmeans" / category.stem, "--k", 4)


def assert_same_files(one: Path, other: Path) -> int:
    """Compare all files but the manifests, which have times and engines; how many they are."""
    files = {path.relative_to(one) for path in one.rglob("*") if path.is_file()}
    assert files == {path.relative_to(other) for path in other.rglob("*") if path.is_file()}
    for file in files:
        if file.name != "manifest.json":
            assert (one / file).read_bytes() == (other / file).read_bytes(), file
    return len(files)


def test_on_a_year_of_real_actions(sail: Engine, spark: Engine, ansible: Path, tmp_path: Path) -> None:
    categories = sorted((ansible / "categories").iterdir())
    months = sorted((ansible / "raw").iterdir())
    assert len(months) == 12
    for month in months:
        for engine in (sail, spark):
            compute(engine, month, categories, tmp_path / month.name / engine.name)
        assert assert_same_files(tmp_path / month.name / "sail", tmp_path / month.name / "spark") > 13 * 10


def test_on_the_demo(sail: Engine, spark: Engine, tmp_path: Path) -> None:
    demo_audience.make(str(tmp_path / "root"), users=20_000)
    categories = sorted((tmp_path / "root" / "categories").iterdir())
    for month in sorted((tmp_path / "root" / "raw").iterdir()):
        for engine in (sail, spark):
            compute(engine, month, categories, tmp_path / month.name / engine.name)
        assert_same_files(tmp_path / month.name / "sail", tmp_path / month.name / "spark")
