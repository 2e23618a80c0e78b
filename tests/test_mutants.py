"""The tool that seeds faults into a copy of a project notices what the tests notice, and lists what they do not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.operators import mutants_of

MODULE = """\
def shipping(total: float) -> float:
    return 0 if total >= 50 else 5


def unused(name: str) -> str:
    return name.strip()
"""
TESTS = """\
from shop.prices import shipping


def test_shipping() -> None:
    assert shipping(10) == 5
    assert shipping(100) == 0
"""
PROJECT = Path(__file__).parents[1]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A small project of others, with a test that leaves out the case at the edge."""
    root = tmp_path / "a_shop"
    for name, text in {"shop/__init__.py": "", "shop/prices.py": MODULE, "tests/test_prices.py": TESTS}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "--quiet", root], check=True)
    return root


def test_survivors_are_listed_with_their_lines_but_for_those_that_are_named_as_equivalent(
    shop: Path, tmp_path: Path
) -> None:
    named = tmp_path / "equivalent.json"
    edge = {
        "before": "return 0 if total >= 50 else 5",
        "after": "return 0 if total >= 49 else 5",
        "why": "no such sums",
    }
    named.write_text(json.dumps({"shop/prices.py": [edge]}))
    options = ["--project", shop, "--cache", tmp_path / "cache", "--modules", "shop/prices.py", "--number", "0"]
    told = subprocess.run(
        [sys.executable, "-m", "tests.mutants", *options, "--imports", "pytest", "--equivalent", named],
        cwd=PROJECT, env={**os.environ, "PYTHONPATH": str(PROJECT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    line = "  - return 0 if total >= 50 else 5\n  + return 0 if (total > 50) else 5\n"
    assert f"shop/prices.py:2: comparison swapped: survived\n{line}" in told.stdout
    assert "shop/prices.py:6: returns None: no test runs it\n" in told.stdout
    assert "condition forced" not in told.stdout, "both are noticed"
    assert "+ return 0 if total >= 49 else 5" not in told.stdout
    assert "| shop/prices.py | 7 of 10, 1 equivalent | 70% |" in told.stdout
    assert told.returncode == 1
    assert (shop / "shop" / "prices.py").read_text() == MODULE, "faults are seeded into a copy"


def test_mutants_are_python_and_each_differs_from_the_module_and_the_others() -> None:
    text = (PROJECT / "spark_jobs" / "users" / "grouping.py").read_text()
    found = mutants_of("grouping.py", text)
    assert len({mutant.text for mutant in found} | {text}) == len(found) + 1
    assert {mutant.operator for mutant in found} > {"statement dropped", "comparison swapped", "arithmetic swapped"}
    for mutant in found:
        compile(mutant.text, "grouping.py", "exec")


def test_every_equivalent_that_is_named_is_still_a_mutant_of_its_module() -> None:
    named = json.loads((PROJECT / "tests" / "mutants" / "equivalent.json").read_text())
    for module, listed in named.items():
        there = {(mutant.before, mutant.after) for mutant in mutants_of(module, (PROJECT / module).read_text())}
        assert [each for each in listed if (each["before"], each["after"]) not in there] == [], module
        assert all(each["why"] for each in listed)
