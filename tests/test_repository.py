"""What surrounds the code names things that are there: CI, pre-commit, containers, the README's figures."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import spark_jobs

PROJECT = Path(__file__).parents[1]
DOCKERFILES = sorted((PROJECT / "deploy").glob("*.Dockerfile"))


def read(name: str) -> Any:
    return yaml.safe_load((PROJECT / name).read_text(encoding="utf-8"))


def test_ci_on_github_is_the_same_script_as_everywhere() -> None:
    steps = read(".github/workflows/ci.yml")["jobs"]["ci"]["steps"]
    *prepared, script = (step["run"] for step in steps if "run" in step)
    assert script == ".ci/run"
    assert all(command.startswith("git config ") for command in prepared)
    assert (PROJECT / ".ci" / "run").stat().st_mode & 0o100


def test_pre_commit_runs_what_make_lint_runs_and_fetches_nothing() -> None:
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    assert all(hook["language"] == "system" for hook in repository["hooks"])
    hooks = {tuple(hook["entry"].removeprefix(".venv/bin/").split()[:2]) for hook in repository["hooks"]}
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert lint is not None
    assert hooks == {tuple(line.removeprefix("\t$(BIN)/").split()[:2]) for line in lint[1].splitlines()}


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_a_dockerfile_copies_and_runs_what_there_is(file: Path) -> None:
    text = file.read_text(encoding="utf-8").replace("\\\n", " ")
    for copied in re.findall(r"^COPY (\S+)", text, re.MULTILINE):
        assert (PROJECT / copied).exists(), copied
    for named in re.findall(r"deploy/[A-Za-z.-]+[a-z]", text):
        assert (PROJECT / named).exists(), named
    assert not re.search(r"https?://|--index-url", text), "where packages come from is a setting of the machine"


def test_the_containers_run_the_commands_of_the_units() -> None:
    text = (PROJECT / "deploy" / "README.md").read_text(encoding="utf-8")
    for unit in (PROJECT / "deploy" / "systemd").glob("*.service"):
        started = re.search(r"^ExecStart=\S+/bin/(.+)$", unit.read_text(), re.MULTILINE)
        assert started is not None
        command = started[1].replace("--host 127.0.0.1", "--host 0.0.0.0")  # of the container, not of the machine
        name = unit.stem.removeprefix("audience-explorer-")
        assert f"service {name} {command}\n" in text
        assert shutil.which(command.split()[0], path=Path(sys.executable).parent)


def test_the_image_of_jobs_has_what_jobs_need_but_spark() -> None:
    text = (PROJECT / "deploy" / "jobs.Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    chosen = re.search(r'\$\(python -c\s+"(.+?)"\)', text)
    assert chosen is not None
    printed = subprocess.run([sys.executable, "-c", chosen[1]], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert set(spark_jobs.REQUIRES) - set(printed.stdout.split()) == {"pandas", "pyspark"}


def test_the_readme_has_one_block_of_figures_which_the_demos_own_replace() -> None:
    pytest.importorskip("playwright")
    from docs.demo import with_figures

    rows = [
        f"{category}|2024-0{month}      1  4 segments   4 segments   0.9{month}" for category in "ab" for month in "12"
    ]
    table = "\n".join(["partition           users   planted      found           agreement", *rows])
    printed = f"\n…\n\n7 launched, 0 reused, 0 failed\n\n{table}\n\nagreement: the index.\nIt leaves out some.\n"
    before = (PROJECT / "README.md").read_text(encoding="utf-8")
    after = with_figures(before, printed)
    assert "7 launched, 0 reused, 0 failed\n\npartition" in after
    assert "a|2024-01" in after
    assert "a|2024-02" not in after
    assert with_figures(after, printed) == after
