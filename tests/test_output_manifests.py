"""What people read in a manifest: checks that are short, times of the whole job, texts as they are written."""

from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from spark_jobs import outputs
from spark_jobs.config import KMeansConfig
from spark_jobs.outputs import checks, lifecycle
from spark_jobs.outputs.schemas import Inspection, TableRules
from spark_jobs.reporting import Reporter

NUMBERS = pa.schema([("a", pa.int64())])


@pytest.mark.parametrize(
    ("count", "listed"),
    [
        (1, "0"),
        (4, "0; 1; 2; 3"),
        (5, "0; 1; 2; 3; 4"),
        (6, "0; 1; 2; 3; 4; and 1 more"),
        (9, "0; 1; 2; 3; 4; and 4 more"),
    ],
)
def test_a_check_lists_the_first_five_things_that_are_wrong_and_counts_the_rest(count: int, listed: str) -> None:
    found = checks.result({"rows": 2}, [str(number) for number in range(count)])
    assert found == checks.CheckResult(False, {"rows": 2}, listed)


def test_a_check_that_finds_nothing_wrong_passes() -> None:
    assert checks.result({"rows": 2}, []) == checks.CheckResult(True, {"rows": 2}, "")


def test_the_schemas_of_all_tables_of_an_output_are_one_check() -> None:
    good, bad = Inspection(TableRules("good", NUMBERS)), Inspection(TableRules("bad", NUMBERS))
    list(good.through([pa.record_batch({"a": [1, 2, 3]})]))
    bad.add("a must not be odd")
    assert checks.schema(good, bad) == checks.CheckResult(False, {"good": 3, "bad": 0}, "bad: a must not be odd")


def test_the_seconds_of_an_output_are_those_of_its_job_and_its_texts_are_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "time", SimpleNamespace(monotonic=lambda: 100.12345))
    for name, started, seconds in (("job", 90.0, 10.123), ("alone", None, 0.0)):
        with outputs.writing(
            "kmeans", "1", str(tmp_path / name), Reporter(), config=KMeansConfig(), inputs=[], fingerprint="f",
            started=started,
        ) as made:  # fmt: skip
            made.complete(rows={}, summary={"name": "Käse 🧀"})
        assert outputs.read_manifest(made.folder, "kmeans")["summary"]["seconds"] == seconds
        assert '"Käse 🧀"' in (tmp_path / name / "manifest.json").read_text(encoding="utf-8")
