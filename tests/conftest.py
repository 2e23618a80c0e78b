"""What the tests share."""

import importlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from click.testing import CliRunner
from hypothesis.internal.conjecture import providers

import spark_jobs  # noqa: F401 - before numpy, whose kernels it chooses: jobs in this process round as those in others
from tests.requests_checked import every_request_checked
from tests.requests_checked import found as misfits

if TYPE_CHECKING:
    from tests.project import Project


def pytest_configure() -> None:
    """The project loads with the test modules, and defines its partitions then: not by the data or the settings of the
    person who runs the tests, such as those of a demo made here before."""
    for name in list(os.environ):
        if name.startswith(("AUDIENCE_EXPLORER_", "DAGSTER_", "AWS_")):
            del os.environ[name]
    os.environ["AUDIENCE_EXPLORER_START_MONTH"] = "2018-01"
    # `make test` has nothing of the virtual environment on the path: nor has an activated one, or its tests would
    # start by name what is not found there.
    programs = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if p != programs)
    # How long an example takes depends on what else the machine does.
    hypothesis.settings.register_profile(
        "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("any machine")
    # Hypothesis draws from the constants of the modules of ours that are loaded: a test's examples would depend on
    # which tests ran before it.
    if hasattr(providers, "_get_local_constants"):
        providers._get_local_constants = providers.Constants


SHARED = Path(__file__).parents[2] / "shared" / "data"


def _shared(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """The predecessor's published example."""
    return _shared("golden")


@pytest.fixture(scope="session")
def ansible() -> Path:
    """A year of real actions, and 13 categories."""
    return _shared("ansible")


@contextmanager
def started(command: list[Any], **options: Any) -> Iterator["subprocess.Popen[Any]"]:
    """A process that ends with the test, also if that fails: `Popen` alone would wait for it, for ever."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def java_version() -> int:
    """The major version of the Java on the path; 0 for none."""
    if shutil.which("java") is None:
        return 0
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    return int(said.split('"')[1].split(".")[0]) if '"' in said else 0


def require_spark() -> None:
    try:
        import pyspark.core  # noqa: F401  # the client has none
    except ImportError:
        why = "Apache Spark is not installed: pip install -e '.[dev]'"
    else:
        if java_version() >= 17:
            return
        why = "Java 17 or later is not on the path (Debian: apt-get install openjdk-17-jre-headless)"
    if os.environ.get("CI"):
        pytest.fail(f"CI must run the tests of Apache Spark: {why}")
    pytest.skip(why)


@dataclass(frozen=True)
class Said:
    """What a job told the terminal."""

    stdout: str
    stderr: str

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """The finished outputs, as told."""
        return [json.loads(line) for line in self.stdout.splitlines()]


@dataclass(frozen=True)
class Engine:
    """An engine to run jobs on: the local one from this process, Spark from one of its own."""

    name: str
    process: Executor | None = None

    def run(self, job: str, *arguments: object, patch: dict[str, Any] | None = None) -> Said:
        """Run a job as from a terminal, and raise what goes wrong.

        Some constants may be patched: of the job's module by their names, of another one such as `mllib._NAME`.
        """
        call = (job, [*map(str, arguments), "--engine", self.name], patch or {})
        return _run_job(*call) if self.process is None else self.process.submit(_run_job, *call).result()


def _run_job(job: str, arguments: list[str], patch: dict[str, Any]) -> Said:
    command = importlib.import_module(f"spark_jobs.{job}").main
    with pytest.MonkeyPatch.context() as patched:
        for name, value in patch.items():
            module, _, constant = name.rpartition(".")
            patched.setattr(f"spark_jobs.{module or job}.{constant}", value)
        result = CliRunner().invoke(command, arguments, catch_exceptions=False, standalone_mode=False)
    return Said(result.stdout, result.stderr)


@pytest.fixture(scope="session")
def local() -> Engine:
    """The processes of this machine; what is small is done in this one."""
    return Engine("local")


@pytest.fixture(scope="session")
def spark() -> Iterator[Engine]:
    """Apache Spark, `local[*]`, started once."""
    require_spark()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        yield Engine("spark", process)


@pytest.fixture(params=["local", pytest.param("spark", marks=pytest.mark.spark)])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine in turn."""
    chosen: Engine = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def write_category(tmp_path: Path) -> Callable[..., Path]:
    """Write a category file of pages, and give its path."""

    def write(name: str, *pages: str, folder: Path = tmp_path / "categories", **more: Any) -> Path:
        folder.mkdir(exist_ok=True, parents=True)
        file = folder / f"{name}.json"
        listed = [{"id": page, "name": page.upper()} for page in pages]
        file.write_text(json.dumps({"id": 1, "facebook": listed, **more}))
        return file

    return write


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of the person who runs the tests."""
    for name in list(os.environ):
        if name.startswith(("AUDIENCE_EXPLORER_", "DAGSTER_", "AWS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AUDIENCE_EXPLORER_STRICT_SCHEMA", "1")


@pytest.fixture(scope="session", autouse=True)
def requests_checked() -> Iterator[None]:
    """Every request to AWS, or to what plays it, is one that AWS would take."""
    with every_request_checked():
        yield


@pytest.fixture(autouse=True)
def no_misfit_requests(requests_checked: None) -> Iterator[None]:  # noqa: ARG001
    """A test fails by a request that AWS would refuse, also where the error is caught, or is another process's."""
    misfits.clear()
    yield
    assert misfits == []


@pytest.fixture(scope="session", autouse=True)
def quick_jvms() -> Iterator[None]:
    """Spark's JVMs compile quickly, and not for speed: here they end before that would pay."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_SUBMIT_OPTS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
        yield


@pytest.fixture(scope="session")
def no_records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Dagster instance that has its tables, and nothing in them: to make these takes longer than a
    copy."""
    import dagster as dg

    folder = tmp_path_factory.mktemp("no-records")
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        instance.get_runs_count()
        instance.all_asset_keys()
        instance.all_instigator_state()
    return folder


@pytest.fixture
def project(tmp_path: Path, no_records: Path) -> "Iterator[Project]":
    """The project on made-up data, with no records."""
    import dagster as dg

    from tests.project import Project

    # On disk, as in use: the one in memory answers some questions in another way.
    shutil.copytree(no_records, tmp_path / "dagster")
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        yield Project(tmp_path / "root", instance)
