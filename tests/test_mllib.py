"""k-means by MLlib: the outputs of kmeans, as good, and the same bytes each time."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from audience_explorer_dagster.definitions import definitions
from audience_explorer_dagster.launchers import Job, Launcher, Report
from spark_jobs import demo_audience, kmeans, outputs
from spark_jobs.clusters import clustering, description, scores
from spark_jobs.clusters.mllib import ClusterTotals
from spark_jobs.config import KMeansConfig, Library, parse_params
from spark_jobs.errors import InputError
from spark_jobs.job_configs import KMeans
from spark_jobs.outputs.fingerprints import fingerprint
from spark_jobs.resources import Resources
from spark_jobs.vectors.clustering_inputs import InputsMetadata, check_memory
from spark_jobs.vectors.profiles import MEMBER, PROFILE
from tests.conftest import Engine
from tests.golden import assert_golden, read_json_lines
from tests.project import Project
from tests.published_segments import list_again

TABLES = {"assignments.parquet", "centers.parquet", "profiles.parquet", "comparisons.parquet"}
FILES = TABLES | {"data.json", "meta-data.json", "summary.json", "manifest.json"}

LIBRARIES: tuple[Library, ...] = ("numpy", "mllib")
MLLIB = ("--library", "mllib")

Inputs = Callable[[Sequence[dict[int, float]], Sequence[int]], Path]


@pytest.fixture
def inputs(tmp_path: Path, local: Engine, write_category: Callable[..., Path]) -> Inputs:
    """Write clustering inputs of some vectors, and of how many users each is; where they are."""

    def write(vectors: Sequence[dict[int, float]], users: Sequence[int]) -> Path:
        pages = [f"p{page}" for page in range(3)]
        rows = [
            {"user_id": f"v{number}-u{user}", "page_like": {pages[page]: int(x) for page, x in vector.items()}}
            for number, (vector, times) in enumerate(zip(vectors, users, strict=True))
            for user in range(times)
        ]
        file = tmp_path / "users.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        category = write_category("x", *pages)
        options = ("--category", category, "--scaling", "none")
        local.run("make_clustering_inputs", file, tmp_path / "inputs", *options)
        return tmp_path / "inputs"

    return write


# --- the job ---------------------------------------------------------------------------------------


@pytest.mark.spark
def test_the_golden_case_gives_what_is_expected(spark: Engine, golden: Path, tmp_path: Path) -> None:
    category = golden / "category.json"
    options = ("--category", category, "--scaling", "none")
    spark.run("make_clustering_inputs", golden / "grouped_users.jsonl", tmp_path / "in", *options)
    spark.run("kmeans", tmp_path / "in", tmp_path / "out", *MLLIB, "--k", 2)
    assert_golden(tmp_path / "out", golden)


@pytest.mark.spark
def test_from_the_same_centers_the_files_are_those_of_kmeans(spark: Engine, inputs: Inputs, tmp_path: Path) -> None:
    vectors = [{0: 1, 1: 9}, {0: 2, 1: 9}, {0: 9}, {0: 8}, {2: 7}, {1: 1, 2: 7}, {2: 6}]
    place = inputs(vectors, [3, 1, 2, 5, 1, 4, 1])
    spark.run("kmeans", place, tmp_path / "here", "--k", 3)
    spark.run("kmeans", place, tmp_path / "there", *MLLIB, "--k", 3)
    assert {file.name for file in (tmp_path / "there").iterdir()} == FILES
    for name in ("data.json", "meta-data.json", "summary.json"):
        here, there = (read_values(tmp_path / which / name) for which in ("here", "there"))
        assert there == approximately(here), name
    for name in TABLES:
        here, there = (pq.read_table(tmp_path / which / name).to_pylist() for which in ("here", "there"))
        assert there == approximately(here), name
    here, there = (outputs.read_manifest(str(tmp_path / which), "kmeans") for which in ("here", "there"))
    assert there["checks"] == here["checks"]
    assert there["rows"] == here["rows"]
    assert there["fingerprint"] != here["fingerprint"]


def read_values(file: Path) -> Any:
    """The JSON of a file, without the names of libraries and the ways of their inits."""
    rows = read_json_lines(file) if file.name != "summary.json" else [json.loads(file.read_text())]
    return [{name: row[name] for name in row if name not in ("engine", "iterations")} for row in rows]


def approximately(value: Any) -> Any:
    """The same value, with numbers that may differ in the last bits."""
    if isinstance(value, dict):
        return {name: approximately(part) for name, part in value.items()}
    if isinstance(value, list):
        return [approximately(part) for part in value]
    return pytest.approx(value, rel=1e-9, abs=1e-9) if isinstance(value, float) else value


@pytest.mark.spark
def test_users_weigh_in_their_profiles(spark: Engine, inputs: Inputs, tmp_path: Path) -> None:
    spark.run("kmeans", inputs([{0: 0, 1: 1}, {0: 3, 1: 1}], [3, 1]), tmp_path / "out", *MLLIB, "--k", 1)
    (center,) = pq.read_table(
        tmp_path / "out" / "centers.parquet", columns=["cluster_id", "users", "center"]
    ).to_pylist()
    assert center == {"cluster_id": 0, "users": 4, "center": [0.75, 1, 0]}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["wssse"] == pytest.approx(3 * 0.75**2 + 2.25**2)
    assert summary["converged"]


@pytest.mark.spark
def test_a_category_of_nobody_has_no_cluster(spark: Engine, inputs: Inputs, tmp_path: Path) -> None:
    said = spark.run("kmeans", inputs([], []), tmp_path / "out", *MLLIB, "--k", 3)
    assert "k is cut from 3 to 0" in said.stderr
    assert (tmp_path / "out" / "data.json").read_text() == ""
    assert pq.read_table(tmp_path / "out" / "assignments.parquet").num_rows == 0
    assert said.outputs[0]["k"] == 0


@pytest.mark.spark
@pytest.mark.parametrize("init", ["kmeans||", "random"])
def test_k_is_cut_to_the_profiles_and_each_is_then_a_cluster(
    init: str, spark: Engine, inputs: Inputs, tmp_path: Path
) -> None:
    place = inputs([{0: 1}, {1: 1}, {0: 5, 2: 1}], [1, 5, 2])
    said = spark.run("kmeans", place, tmp_path / "out", *MLLIB, "--k", 7, "--params", f"{init},100,0.001")
    assert "k is cut from 7 to 3" in said.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["k"], summary["requested_k"], summary["wssse"]) == (3, 7, 0)
    assert [row["cluster_member_count"] for row in read_json_lines(tmp_path / "out" / "meta-data.json")] == [5, 2, 1]


@pytest.mark.spark
def test_it_is_about_as_good_as_kmeans_and_gives_the_same_bytes_each_time(
    spark: Engine, local: Engine, tmp_path: Path
) -> None:
    demo_audience.make(str(tmp_path / "root"), users=10_000)
    month = tmp_path / "root" / "raw" / f"month={demo_audience.MONTHS[0]}"
    category = tmp_path / "root" / "categories" / "coffee.json"
    local.run("group_by_user", month, tmp_path / "users")
    local.run("make_clustering_inputs", tmp_path / "users", tmp_path / "in", "--category", category)
    local.run("kmeans", tmp_path / "in", tmp_path / "here", "--k", 5)
    options = (*MLLIB, "--k", 5, "--n-init", 2, "--seed", 3)
    many_tasks = {"clusters.mllib._PROFILES_A_TASK": 300, "clusters.mllib._TOTALS_A_TASK": 2}
    for place in ("one", "two"):
        spark.run("kmeans", tmp_path / "in", tmp_path / place, *options, patch=many_tasks)
    for name in FILES - {"manifest.json"}:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    here, there = (json.loads((tmp_path / place / "summary.json").read_text()) for place in ("here", "one"))
    assert there["learned_from"]["users"] == here["learned_from"]["users"] > 500
    assert there["learned_from"]["wssse"] <= 1.02 * here["learned_from"]["wssse"]


@pytest.mark.spark
def test_inputs_that_are_gone_are_named(spark: Engine, inputs: Inputs, tmp_path: Path) -> None:
    place = inputs([{0: 1}, {1: 1}], [1, 1])
    (place / "profiles.parquet").unlink()
    with pytest.raises(InputError, match=r"its file profiles\.parquet is gone.*Delete .*inputs, and"):
        spark.run("kmeans", place, tmp_path / "out", *MLLIB, "--k", 2)


@pytest.mark.spark
def test_a_path_that_looks_like_a_pattern_is_a_path(spark: Engine, inputs: Inputs, tmp_path: Path) -> None:
    place = tmp_path / "a[1] *?{x} é"
    inputs([{0: 1}, {1: 1}], [2, 1]).rename(place)
    said = spark.run("kmeans", place, tmp_path / "out [1]*", *MLLIB, "--k", 2)
    assert said.outputs[0]["users"] == 3


@pytest.mark.spark
def test_a_strict_schema_holds_for_what_spark_reads(spark: Engine, inputs: Inputs, tmp_path: Path) -> None:
    place = inputs([{0: 1}, {1: 1}, {2: 1}], [1, 1, 1])
    table = pq.read_table(place / "profiles.parquet")
    broken = table.set_column(3, PROFILE.field("weight"), pa.array([1, 0, 1], pa.int64()))
    pq.write_table(broken, place / "profiles.parquet")
    list_again(place)
    with pytest.raises(InputError, match="Strict schema: profiles: column weight must be at least 1"):
        spark.run("kmeans", place, tmp_path / "out", *MLLIB, "--k", 2, "--strict-schema", "true")


@pytest.mark.spark
def test_a_member_of_no_profile_fails_the_check(spark: Engine, inputs: Inputs, tmp_path: Path) -> None:
    place = inputs([{0: 1}, {1: 1}], [2, 1])
    members = pq.read_table(place / "members.parquet").to_pylist()
    members[0]["profile_id"] = 7
    pq.write_table(pa.Table.from_pylist(members, schema=MEMBER), place / "members.parquet")
    list_again(place)
    spark.run("kmeans", place, tmp_path / "out", *MLLIB, "--k", 2)
    check = outputs.read_manifest(str(tmp_path / "out"), "kmeans")["checks"]["every_user_once"]
    assert not check["passed"]
    assert "2 users, the inputs 3" in check["why"]


# --- its parts -------------------------------------------------------------------------------------


def test_totals_are_what_clustering_computes_and_the_sum_of_their_parts() -> None:
    random = np.random.default_rng(0)
    profiles = sp.csr_matrix(np.unique(random.poisson(0.7, (200, 6)), axis=0).astype(float))
    weight = random.integers(1, 9, profiles.shape[0])
    model = clustering.fit(profiles, weight, 4, parse_params("kmeans||,100,0"), 1, 0)
    whole = ClusterTotals.of(profiles, weight, model.centers)
    parts = ClusterTotals.of(profiles[:31], weight[:31], model.centers) + ClusterTotals.of(
        profiles[31:], weight[31:], model.centers
    )
    for name, value in vars(whole).items():
        np.testing.assert_allclose(getattr(parts, name), value, err_msg=name)
    found, scored = description.describe(profiles, weight, model), scores.score(profiles, weight, model)
    np.testing.assert_array_equal(whole.users, model.users)
    np.testing.assert_allclose(whole.means(model.centers), found.average)
    np.testing.assert_allclose(2 * whole.farthest, description.diameters(model))
    np.testing.assert_array_equal(whole.member_count, found.member_count)
    np.testing.assert_array_equal(whole.minimum, found.minimum)
    np.testing.assert_array_equal(whole.maximum, found.maximum)
    assert whole.squared.sum() == pytest.approx(model.wssse)
    assert whole.mean_silhouette() == pytest.approx(scored["silhouette"])


def test_only_mllibs_clusters_have_another_fingerprint() -> None:
    of = {library: kmeans.step_fingerprint(KMeansConfig(k=3, library=library), "inputs", None) for library in LIBRARIES}
    assert of["numpy"] != of["mllib"]
    # Those of outputs that were made when MLlib was an engine, and so are still the outputs of the same config.
    before = KMeansConfig(k=3).model_dump(mode="json", exclude={"label", "library"})
    assert of["numpy"] == fingerprint("kmeans", kmeans.CODE_VERSION, before, ["inputs"])
    assert of["mllib"] == fingerprint("kmeans", kmeans.CODE_VERSION, {**before, "library": "mllib"}, ["inputs"])


def test_mllib_on_the_local_engine_is_refused_with_the_way_out(inputs: Inputs, local: Engine, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mllib is Spark's, and the engine is local.*--engine spark"):
        local.run("kmeans", inputs([{0: 1}, {1: 1}], [2, 1]), tmp_path / "out", *MLLIB, "--k", 2)


def test_what_does_not_fit_memory_is_told_with_the_way_out() -> None:
    metadata = InputsMetadata("in", "f", {}, {}, pa.table({"dimension_id": ["p"]}), 10**9, 10**9, 10**10, 1)
    with pytest.raises(InputError, match=r"1,000,000,000 distinct profiles.*need about .* GB.*library: mllib"):
        check_memory(metadata, 12, Resources(memory=64 << 30, cores=2, scratch=""))
    check_memory(metadata, 12, Resources(memory=1 << 50, cores=2, scratch=""))


# --- in the pipeline -------------------------------------------------------------------------------

JOBS: list[Job] = []
MASTER = "spark://host:7077"


class NoLauncher(Launcher):
    """Keeps the jobs, and runs none."""

    def launch(self, context: dg.OpExecutionContext, jobs: Sequence[Job]) -> Iterator[Report]:  # noqa: ARG002
        JOBS.extend(jobs)
        yield from ()


def test_with_the_library_mllib_kmeans_is_made_anew_with_what_follows_and_nothing_else(project: Project) -> None:
    project.pipeline(["2024-01"], ["tea"], kmeans={"k": 2})
    project.definitions = definitions(str(project.root), NoLauncher())
    project.pipeline(["2024-01"], ["tea"], kmeans={"k": 2, "library": "mllib"}, engine="spark", spark_master=MASTER)
    job, following, report = JOBS
    assert (job.id, job.module) == ("kmeans tea|2024-01", "kmeans")
    assert (following.id, report.id) == ("follow_segments tea|2024-01", "make_report tea|2024-01")
    assert isinstance(job.config, KMeans)
    assert (job.config.engine.engine, job.config.engine.spark_master) == ("spark", MASTER)
    assert job.config.config.library == "mllib"
