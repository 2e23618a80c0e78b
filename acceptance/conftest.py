"""What the stories share: a root with real data, records of its own, and the command line."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from acceptance.sandbox import NotPossible, Sandbox
from ami import jars
from tests.conftest import (
    ansible,
    golden,
    local,
    no_environment,
    no_misfit_requests,
    quick_jvms,
    requests_checked,
    require_spark,
    spark,
)

if TYPE_CHECKING:
    from acceptance.sandbox.spark_cluster import SparkCluster

__all__ = [  # fixtures
    "ansible",
    "golden",
    "local",
    "no_environment",
    "no_misfit_requests",
    "quick_jvms",
    "requests_checked",
    "spark",
]

PROJECT = Path(__file__).parents[1]
OUTPUT = Path(os.environ.get("CI_OUTPUT", PROJECT / "ci-output"))  # where what people may want to see is kept


@dataclass(frozen=True)
class Ended:
    """What a pipeline ended with."""

    exit_code: int
    launched: set[str]
    reused: set[str]
    failed: dict[str, str]
    folders: dict[str, Path]
    log: str

    def launched_assets(self) -> set[str]:
        """The assets of which something was launched."""
        return {name.split()[0] for name in self.launched}


class Explorer:
    """Audience Explorer as its user has it: a folder, a DAGSTER_HOME, and commands."""

    def __init__(self, folder: Path):
        self.root = folder / "root"
        self.home = folder / "dagster_home"
        self.home.mkdir(parents=True)
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DAGSTER_HOME": str(self.home),
            "AUDIENCE_EXPLORER_ROOT": str(self.root),
        }

    def bring(self, source: Path, *months: str) -> None:
        """Let the real actions of some months land, and the category files."""
        shutil.copytree(source / "categories", self.root / "categories", dirs_exist_ok=True)
        for month in months:
            folder = f"month={month}"
            shutil.copytree(source / "raw" / folder, self.root / "raw" / folder, dirs_exist_ok=True)
        for path in [self.root, *self.root.rglob("*")]:
            path.chmod(0o755)

    def command(self, *arguments: str, ok: bool = True) -> "subprocess.CompletedProcess[str]":
        """Type a command in the project's folder."""
        done = subprocess.run(
            arguments, cwd=PROJECT, env=self.environment, capture_output=True, text=True, check=False, timeout=2400
        )
        if ok and done.returncode:
            pytest.fail(f"{' '.join(arguments)} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def pipeline(self, *arguments: str, ok: bool = True) -> Ended:
        """Type `audience-explorer pipeline …`."""
        done = self.command("audience-explorer", "pipeline", "--json", *arguments, ok=ok)
        said: dict[str, Any] = json.loads(done.stdout)
        named = {f"{p['asset']} {p['partition']}": p for p in said["partitions"]}
        by = {status: {n for n, p in named.items() if p["status"] == status} for status in ("launched", "reused")}
        failed = {name: p["error"] for name, p in named.items() if p["status"] == "failed"}
        assert (said["launched"], said["reused"], said["failed"]) == (*map(len, by.values()), len(failed))
        folders = {name: Path(p["folder"]) for name, p in named.items() if p["folder"]}
        return Ended(done.returncode, by["launched"], by["reused"], failed, folders, done.stderr)


@contextmanager
def isolated_sandbox(folder: Path, cache: Path, booted: bool = False) -> Iterator[Sandbox]:
    """AWS on this machine, with isolated machines, which CI must have; with systemd and cloud-init if they boot."""
    try:
        sandbox = Sandbox(folder, isolated=True, cache=cache, booted=booted)
    except NotPossible as why:
        if os.environ.get("CI"):
            pytest.fail(f"CI must run the stories of isolated machines: {why}")
        pytest.skip(str(why))
    with sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def image_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the isolated sandbox keeps Debian's root and the machine image, which is built once for all stories; for
    people who work on one, AUDIENCE_EXPLORER_IMAGE_CACHE names a folder that stays."""
    kept = os.environ.get("AUDIENCE_EXPLORER_IMAGE_CACHE")
    return Path(kept) if kept else tmp_path_factory.mktemp("images")


@pytest.fixture(scope="session")
def packed_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The packed archive is made once for all stories."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def explorer(tmp_path: Path) -> Explorer:
    """Audience Explorer, new."""
    return Explorer(tmp_path)


def spark_home(folder: Path) -> Path:
    """A SPARK_HOME of PySpark's files, in which what runs may leave its own."""
    require_spark()
    import pyspark

    folder.mkdir(parents=True)
    for entry in Path(pyspark.__path__[0]).iterdir():
        (folder / entry.name).symlink_to(entry)
    return folder


@contextmanager
def standalone_cluster(folder: Path, environment: dict[str, str]) -> Iterator["SparkCluster"]:
    """A Spark cluster on this machine, which CI must have."""
    require_spark()
    from acceptance.sandbox.spark_cluster import SparkCluster

    jars.fetch(folder / "jars")
    with SparkCluster(folder / "cluster", folder / "jars", environment) as cluster:
        yield cluster
