"""A month on EMR Serverless, as far as it can be played here: moto has the API, and the packed archive is run by
spark-submit in an otherwise empty environment, with executors of their own. The results are those of this machine.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from acceptance.conftest import Explorer, spark_home
from acceptance.sandbox.emr_serverless import BUCKET, ROLE, EMRServerless
from spark_jobs import demo_audience

pytestmark = pytest.mark.spark

MONTH, CATEGORIES = "2024-01", ("coffee", "travel")
ASKED = ("--month", MONTH, *(option for name in CATEGORIES for option in ("--category", name)), "--k", "4")
OF_A_CATEGORY = ("clustering_inputs", "kmeans", "segments", "audience_report")
BY_APPLICATIONS = ("data.json", "meta-data.json", "assignments.parquet", "centers.parquet")


@pytest.fixture
def emr(tmp_path: Path) -> Iterator[EMRServerless]:
    """EMR Serverless, played by this machine."""
    with EMRServerless(tmp_path / "emr", spark_home(tmp_path / "spark")) as emr:
        yield emr


def remote(emr: EMRServerless, folder: Path) -> Explorer:
    """Audience Explorer, set up for it."""
    explorer = Explorer(folder)
    explorer.environment |= {
        **emr.variables,
        "AUDIENCE_EXPLORER_ROOT": f"s3://{BUCKET}/root",
        "AUDIENCE_EXPLORER_LAUNCHER": "emr-serverless",
        "AUDIENCE_EXPLORER_ENGINE": "spark",
        "AUDIENCE_EXPLORER_EMR_APPLICATION": emr.application,
        "AUDIENCE_EXPLORER_EMR_ROLE": ROLE,
    }
    return explorer


def test_a_month_on_emr_serverless_is_that_of_this_machine(
    emr: EMRServerless,
    tmp_path: Path,
    packed_once: None,  # noqa: ARG001
) -> None:
    bare = subprocess.run([str(emr.python), "-I", "-c", "import numpy"], check=False, capture_output=True)
    assert bare.returncode, f"{emr.python} is to be a Python without packages"
    here, there = Explorer(tmp_path / "here"), remote(emr, tmp_path / "there")
    demo_audience.make(str(here.root), users=2_000)
    emr.bring(here.root)

    local = here.pipeline(*ASKED)
    first = there.pipeline(*ASKED)

    assert first.launched == local.launched
    assert len(emr.runs) == 1, "a month with all its categories is one job run"
    for category in CATEGORIES:
        name = f"kmeans {category}|{MONTH}"
        folder = str(first.folders[name]).removeprefix(f"s3:/{BUCKET}/")
        for file in BY_APPLICATIONS:
            computed = emr.s3.get_object(Bucket=BUCKET, Key=f"{folder}/{file}")["Body"].read()
            assert computed == (local.folders[name] / file).read_bytes(), file

    records = [_record(there, asset, f"{name}|{MONTH}") for asset in OF_A_CATEGORY for name in CATEGORIES]
    assert {record["launch/job_run"] for record in records} == {emr.runs[0].id}
    dollars = [record["launch/estimated_dollars"] for record in records if "launch/estimated_dollars" in record]
    assert len(dollars) == 1, "the last output of a launch has its cost"
    assert dollars[0] > 0
    assert there.pipeline(*ASKED).launched == set()


def _record(explorer: Explorer, asset: str, partition: str) -> dict[str, Any]:
    with dg.DagsterInstance.from_config(str(explorer.home)) as instance:
        wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[partition])
        (record,) = instance.fetch_materializations(wanted, limit=1).records
        assert record.asset_materialization is not None
        return {name: value.value for name, value in record.asset_materialization.metadata.items()}
