"""The packed archive: what is in it, and that it is made once. That it runs is told by acceptance/emr_serverless.py."""

import importlib.metadata
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from audience_explorer_dagster.launchers import LaunchFailed, packing


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a pip that installs one small package, with tests and a script."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def install(_: packing.Architecture, target: Path) -> None:
        for name in ("package/__init__.py", "package/tests/test_it.py", "bin/script"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_text("NAME = 'package'\n")

    monkeypatch.setattr(packing, "_install", install)
    return tmp_path / "cache" / "audience-explorer"


def test_it_has_the_jobs_their_packages_and_the_drivers_program(cache: Path) -> None:
    with tarfile.open(packing.build("x86_64")) as tar:
        names = tar.getnames()
    code = {f"lib/{file}" for file in ("spark_jobs/kmeans.py", "spark_jobs/launch/agent.py", "emr/driver.py")}
    assert {"bin/python", *code} <= set(names)
    assert "lib/package/__init__.py" in names
    assert not [name for name in names if name.startswith(("lib/ami/", "lib/audience_explorer_dagster/"))]
    assert not [name for name in names if {"tests", "bin"} & set(Path(name).parts[1:])]
    assert [file.name for file in cache.iterdir()] == [packing.name("x86_64")]


def test_the_same_content_is_the_same_file_and_is_made_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = packing.build("x86_64")
    content = first.read_bytes()
    first.unlink()
    assert packing.build("x86_64").read_bytes() == content
    monkeypatch.setattr(packing, "_install", None)
    assert packing.build("x86_64") == first
    assert first.parent == cache


def test_another_version_of_a_package_or_another_processor_is_another_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    name = packing.name("x86_64")
    assert packing.name("aarch64") != name
    monkeypatch.setattr(packing, "_pins", lambda: ["numpy==1.0"])
    assert packing.name("x86_64") != name


def test_its_packages_are_those_of_this_environment_without_spark_and_dagster() -> None:
    pins = dict(pin.split("==") for pin in packing._pins())
    assert pins["numpy"] == importlib.metadata.version("numpy")
    assert {"boto3", "botocore", "dagster-pipes", "obstore", "pandas", "pyarrow", "scipy"} <= pins.keys()
    assert not {"pyspark", "py4j", "dagster"} & pins.keys()


def test_its_python_is_this_machines_with_its_packages_wherever_it_lies(cache: Path, tmp_path: Path) -> None:
    with tarfile.open(packing.build("x86_64")) as tar:
        tar.extractall(tmp_path / "some where", filter="data")
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / f"python{packing._VERSION}").symlink_to(sys.executable)
    command = ["./bin/python", "-c", "import os, package; print(package.NAME, os.environ['PYTHONPATH'])"]
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "PYTHONPATH": "/before"}
    said = subprocess.check_output(command, cwd=tmp_path / "some where", env=environment, text=True)
    assert said.split() == ["package", *f"{tmp_path}/some where/lib:/before".split()]
    assert cache.exists()


def test_a_machine_without_its_python_says_which_it_needs(cache: Path, tmp_path: Path) -> None:
    with tarfile.open(packing.build("x86_64")) as tar:
        tar.extractall(tmp_path, filter="data")
    for program in ("dirname", "sh", "uname"):
        (tmp_path / program).symlink_to(f"/usr/bin/{program}")
    failed = subprocess.run(
        ["./bin/python"], cwd=tmp_path, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert failed.returncode == 127
    assert f"this machine has no python{packing._VERSION}" in failed.stderr
    assert cache.exists()


def test_old_archives_are_removed(cache: Path) -> None:
    cache.mkdir(parents=True)
    for day in range(5):
        old = cache / f"environment-{day}.tar.gz"
        old.touch()
        os.utime(old, (day, day))
    packing.build("x86_64")
    left = {file.name for file in cache.iterdir()}
    assert left == {packing.name("x86_64"), "environment-3.tar.gz", "environment-4.tar.gz"}


def test_a_pip_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(packing, "_pins", lambda: ["not a requirement"])
    with pytest.raises(LaunchFailed, match=r"can't be made, because pip fails: .*not a requirement"):
        packing.build("x86_64")
