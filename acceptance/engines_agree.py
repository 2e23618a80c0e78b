"""Both engines do what the contract says: on real months, on the demo, and on months nobody would think of."""

import gzip
import json
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings

from spark_jobs import demo_audience
from spark_jobs.config import ClusteringInputsConfig, KMeansConfig, KSelectionConfig
from tests import reference
from tests.conftest import Engine
from tests.generated import Month, Population, months, populations
from tests.parity import Tweak, assert_clustered_alike, assert_grouped_alike, users_in
from tests.test_parity import FIXED, TWEAKS, cluster

pytestmark = pytest.mark.spark

EACH_QUARTER = 3

TWEAK = Tweak(ClusteringInputsConfig(), KSelectionConfig(k_max=4, n_init=1), KMeansConfig(k=4, n_init=3))


def real_month(folder: Path) -> Month:
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    rows = []
    for name, content in files.items():
        for line, text in enumerate(gzip.decompress(content).splitlines(), 1):
            row = json.loads(text)
            written = row["timestamp"]
            row["timestamp"] = reference.Time(written, datetime.strptime(written, "%Y-%m-%dT%H:%M:%SZ"))
            rows.append((name, line, row))
    return Month(folder.name.removeprefix("month="), files, rows, [])


def test_on_a_year_of_real_actions(local: Engine, spark: Engine, ansible: Path, tmp_path: Path) -> None:
    categories = sorted((ansible / "categories").iterdir())
    folders = sorted((ansible / "raw").iterdir())
    assert (len(folders), len(categories)) == (12, 13)
    for number, folder in enumerate(folders):
        month, place = real_month(folder), tmp_path / folder.name
        users = reference.group(month.accepted)
        grouped = assert_grouped_alike([local, spark], month, place, max_reject_ratio=0, bytes_a_file=4000)
        if number % EACH_QUARTER == 0:  # to cluster all of them takes a quarter of an hour
            assert_clustered_alike([local, spark], users, grouped, categories, place, TWEAK)


def test_on_the_demo(local: Engine, spark: Engine, tmp_path: Path) -> None:
    demo_audience.make(str(tmp_path / "root"), users=3000)
    categories = sorted((tmp_path / "root" / "categories").iterdir())
    for raw in sorted((tmp_path / "root" / "raw").iterdir()):
        place = tmp_path / raw.name
        grouped = [place / engine.name / "grouped" for engine in (local, spark)]
        for engine, output in zip((local, spark), grouped, strict=True):
            engine.run("group_by_user", raw, output)
        rows, of_spark = map(users_in, grouped)
        assert rows == of_spark
        users = {
            row["user_id"]: reference.User(row["gender"], {page.pop("page_id"): page for page in row["pages"]})
            for row in rows
        }
        assert_clustered_alike([local, spark], users, grouped, categories, place, TWEAK)


@settings(FIXED, max_examples=15)
@given(months())
def test_on_generated_months(
    local: Engine, spark: Engine, tmp_path_factory: pytest.TempPathFactory, month: Month
) -> None:
    folder = tmp_path_factory.mktemp("month")
    assert_grouped_alike([local, spark], month, folder, max_reject_ratio=1, bytes_a_file=1000)


@settings(FIXED, max_examples=15)
@given(populations(users=200), TWEAKS)
def test_on_generated_users(
    local: Engine, spark: Engine, tmp_path_factory: pytest.TempPathFactory, population: Population, tweak: Tweak
) -> None:
    cluster([local, spark], population, tmp_path_factory.mktemp("population"), tweak)
