"""What start-up must not import: each is slow, and not needed by what runs then."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import actions

_LISTING = "; import sys; print('imported:', *sorted({name.partition('.')[0] for name in sys.modules}))"


def imported(code: str) -> set[str]:
    """The packages that a new process has imported when it has run some code."""
    found = subprocess.run([sys.executable, "-c", code + _LISTING], capture_output=True, text=True, check=True)
    return set(found.stdout.rpartition("imported:")[2].split())


def test_grouping_a_small_month_imports_no_more_than_it_uses(tmp_path: Path) -> None:
    actions.generate(tmp_path, "social", 10)
    raw, users = str(tmp_path / f"month={actions.MONTH}"), str(tmp_path / "users")
    run = f"from spark_jobs.group_by_user import main; main({[raw, users]}, standalone_mode=False)"
    leave_out = "from spark_jobs.arrow import leave_pandas_out; leave_pandas_out()"  # as run_as_command does
    slow = {"boto3", "dagster", "fsspec", "loky", "matplotlib", "obstore", "pandas", "scipy", "sklearn"}
    assert not imported(f"{leave_out}; {run}") & (slow | {"upath"})


@pytest.mark.parametrize("module", ["audience_explorer_dagster.definitions", "audience_explorer_dagster.cli"])
def test_loading_the_project_imports_no_more_than_it_uses(module: str) -> None:
    slow = {"boto3", "dagster_aws", "duckdb", "fsspec", "matplotlib", "obstore", "pandas", "PIL", "requests", "sklearn"}
    assert not imported(f"import {module}") & slow


def test_pandas_is_left_out_of_pyarrow_and_of_nothing_else() -> None:
    code = (
        "from spark_jobs.arrow import leave_pandas_out; leave_pandas_out()"
        "; import numpy, pyarrow; pyarrow.array(numpy.zeros(1)).to_numpy()"
    )
    assert "pandas" not in imported(code)
    pytest.importorskip("pandas")
    assert "pandas" in imported(f"{code}; assert len(pyarrow.table({{'a': [1]}}).to_pandas()) == 1")
