"""Imports point one way, so that what runs on AWS's machines needs nothing of what orchestrates."""

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
PACKAGES = {"acceptance", "ami", "audience_explorer_dagster", "emr", "spark_jobs", "tests"}


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("spark_jobs", set()),
        ("emr", {"spark_jobs"}),
        ("ami", {"spark_jobs"}),
        ("audience_explorer_dagster", {"ami", "emr", "spark_jobs"}),
    ],
)
def test_a_package_imports_only_those_below_it(package: str, allowed: set[str]) -> None:
    found = {name for file in (PROJECT / package).rglob("*.py") for name in imported(file)}
    assert found & PACKAGES <= allowed | {package}


@pytest.mark.parametrize(("room", "other"), [("emr_serverless", "ec2"), ("ec2", "emr_serverless")])
def test_a_launcher_takes_nothing_from_another_ones_room(room: str, other: str) -> None:
    launchers = "audience_explorer_dagster.launchers"
    modules = {
        name for file in (PROJECT / launchers.replace(".", "/") / room).rglob("*.py") for name in modules_of(file)
    }
    assert not [name for name in modules if name.startswith(f"{launchers}.{other}")]


def test_the_boot_program_needs_nothing_but_boto3() -> None:
    allowed = {"argparse", "boto3", "botocore", "collections", "compileall", "hashlib", "importlib", "io", "json"}
    allowed |= {"os", "pathlib", "sys", "tarfile", "tempfile", "time", "traceback", "typing", "urllib"}
    assert imported(PROJECT / "ami" / "boot.py") <= allowed


def imported(file: Path) -> set[str]:
    """The top-level packages that a file imports."""
    return {name.partition(".")[0] for name in modules_of(file)}


def modules_of(file: Path) -> set[str]:
    """The modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found
