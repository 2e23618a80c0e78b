"""The packed archive: the jobs' code and all that it needs, for clusters with Spark and Python and nothing of ours.

Spark unpacks it as `environment` on executors, and where the driver runs in the cluster:

    bin/python    the cluster's Python of the version that packed it, with `lib` on its path
    lib/          spark_jobs, the program of EMR Serverless's driver, and the wheels that both need

No interpreter is in it: one that is copied wants this machine's libraries, and one of a virtual environment (venv-pack)
lies at the same place on both. Wheels run on every Linux that has that Python, wherever they lie. PySpark is the
cluster's.

The archive's name has a digest of all that decides its content, so it is made, and put on S3, once.
"""

import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import spark_jobs
from audience_explorer_dagster.launchers import LaunchFailed
from spark_jobs.launch.targz import write_tar_gz

Architecture = Literal["x86_64", "aarch64"]

NAME = "environment"  # what it is unpacked as
_PYTHON = "bin/python"
PYTHON = f"./{NAME}/{_PYTHON}"  # of a process that starts where it was unpacked

_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
_GLIBC = range(28, 4, -1)  # minor versions of the C library, whose wheels run where 2.28 is: Amazon Linux 2023 has 2.34
_OF_THE_CLUSTER = {"pyspark"}
_KEPT = 3  # archives in the cache

_RUN_PYTHON = f"""\
#!/bin/sh
# This machine's Python {_VERSION}, with the packages beside this folder.
home=$(cd "$(dirname "$0")/.." && pwd -P) || exit
PYTHONPATH=$home/lib${{PYTHONPATH:+:$PYTHONPATH}}
export PYTHONPATH
# As in spark_jobs, and before any other package loads numpy.
if [ "$(uname -m)" = x86_64 ]; then export OPENBLAS_CORETYPE="${{OPENBLAS_CORETYPE:-Haswell}}"; fi
command -v python{_VERSION} >/dev/null || {{
  echo "Audience Explorer's archive was packed by Python {_VERSION}, and this machine has no python{_VERSION}." \\
    "Run the launcher with the cluster's version of Python." >&2
  exit 127
}}
exec python{_VERSION} "$@"
"""


def of_this_machine() -> Architecture:
    """The architecture of this machine's processor."""
    return "aarch64" if platform.machine() in ("aarch64", "arm64") else "x86_64"


def name(architecture: Architecture) -> str:
    """The name of the archive of this code and these packages."""
    contents = hashlib.sha256("\n".join([_RUN_PYTHON, *_pins()]).encode())
    for path, file in _sources().items():
        contents.update(path.encode() + file.read_bytes())
    return f"{NAME}-python{_VERSION}-{architecture}-{contents.hexdigest()}.tar.gz"


def build(architecture: Architecture) -> Path:
    """The archive, made unless it is there: some 140 MB, half a minute.

    Raises:
        LaunchFailed: pip can't get the packages.
    """
    archive = _place(architecture)
    if archive.exists():
        return archive
    cache = archive.parent
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as work:
        packages, draft = Path(work, "lib"), Path(work, archive.name)
        _install(architecture, packages)
        _pack(packages, draft)
        draft.replace(archive)
    for old in sorted(cache.glob(f"{NAME}-*"), key=os.path.getmtime)[:-_KEPT]:
        old.unlink(missing_ok=True)
    return archive


def can_be_built(architecture: Architecture) -> bool:
    """Whether the archive is there, or pip to make it.

    Raises:
        LaunchFailed: A package is not installed that must go into it.
    """
    return _place(architecture).exists() or find_spec("pip") is not None


def _place(architecture: Architecture) -> Path:
    """Where the archive is kept on this machine."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "audience-explorer")
    return cache / name(architecture)


def _sources() -> dict[str, Path]:
    """The project's files that go into `lib`, by their path there."""
    project = Path(spark_jobs.__file__).parents[1]
    files = [*spark_jobs.source_files(), *(project / "emr").glob("*.py")]
    return {file.relative_to(project).as_posix(): file for file in sorted(files)}


def _pins() -> list[str]:
    """What pip installs: the distributions that jobs need, and those that these need, in the versions that are here.

    Raises:
        LaunchFailed: One is missing.
    """
    found: dict[str, str] = {}

    def add(distribution: str, extras: set[str]) -> None:
        try:
            here = metadata.distribution(distribution)
        except metadata.PackageNotFoundError as error:
            raise LaunchFailed(
                f"{distribution} is to be packed for the cluster, and is not installed here: pip install"
                " 'audience-explorer[spark]'"
            ) from error
        found[canonicalize_name(distribution)] = here.version
        for requirement in map(Requirement, here.requires or []):
            marker = requirement.marker
            needed = marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))
            if needed and canonicalize_name(requirement.name) not in found:
                add(requirement.name, requirement.extras)

    for distribution in spark_jobs.REQUIRES:
        if distribution not in _OF_THE_CLUSTER:
            add(distribution, set())
    return sorted(f"{distribution}=={version}" for distribution, version in found.items())


def _install(architecture: Architecture, target: Path) -> None:
    platforms = [f"--platform=manylinux_2_{minor}_{architecture}" for minor in _GLIBC]
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"),
        *("--no-deps", "--no-compile", "--only-binary=:all:", "--implementation=cp", f"--python-version={_VERSION}"),
        *(*platforms, f"--platform=manylinux2014_{architecture}", f"--target={target}", *_pins()),
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LaunchFailed(f"The packed archive can't be made, because pip fails: {done.stderr.strip()[-1000:]}")


def _pack(packages: Path, target: Path) -> None:
    with target.open("wb") as file:
        write_tar_gz(file, _contents(packages), executable={_PYTHON})


def _contents(packages: Path) -> Iterator[tuple[str, bytes]]:
    """The names and contents of the archive's files, read one at a time."""
    yield _PYTHON, _RUN_PYTHON.encode()
    for path, source in _sources().items():
        yield f"lib/{path}", source.read_bytes()
    for package in sorted(packages.rglob("*")):
        below = package.relative_to(packages)
        # The packages' own tests are a tenth of it. Scripts would not find their Python.
        if package.is_file() and "tests" not in below.parts and below.parts[0] != "bin":
            yield f"lib/{below.as_posix()}", package.read_bytes()
