"""`python -m tests.mutants`: seed faults into a copy of the project, and report which of them its tests notice."""

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.mutants.covered import Covered
from tests.mutants.operators import Mutant, mutants_of
from tests.mutants.trials import Chosen, Copy, warm_up

PROJECT = Path(__file__).parents[2]
# Where a change hurts most: what decides whether work is done, what is written, what is published, what costs money.
MODULES = (
    "spark_jobs/outputs/*.py",
    "spark_jobs/raw/*.py",
    "spark_jobs/users/*.py",
    "spark_jobs/vectors/*.py",
    "spark_jobs/clusters/*.py",
    "spark_jobs/following/*.py",
    "spark_jobs/launch/*.py",
    "audience_explorer_dagster/planning/*.py",
    "audience_explorer_dagster/records/*.py",
    "audience_explorer_dagster/running/*.py",
    "audience_explorer_dagster/store.py",
    "audience_explorer_dagster/edits.py",
    "audience_explorer_dagster/launchers/ec2/*.py",
    "ami/boot.py",
)
# Slow to import, and so imported once. Nothing of the project: each mutant's tests import that anew.
IMPORTS = (
    *("numpy", "scipy.sparse", "pyarrow.parquet", "sklearn.cluster", "sklearn.metrics", "hypothesis.extra.numpy"),
    *("pydantic", "click.testing", "jinja2", "yaml", "rich.console", "loky", "obstore", "upath", "boto3", "moto"),
    *("dagster", "dagster_pipes"),
)
_NOTICED, _SURVIVED, _EQUIVALENT, _NOT_RUN = "noticed", "survived", "equivalent", "no test runs it"


def main(arguments: Sequence[str]) -> int:
    """Run it; 1 if a fault that is not named as equivalent went unnoticed."""
    asked = _asked(arguments)
    root = asked.project.resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended, and the copy removed
    modules = sorted({str(file.relative_to(root)) for each in asked.modules for file in root.glob(each)})
    equivalent = _equivalent(asked.equivalent)
    warm_up(asked.imports)
    with _scratch() as scratch:
        project = Copy(root, scratch)
        covered = Covered(project, asked.cache, asked.tests)
        found: dict[str, list[tuple[Mutant, str]]] = {}
        for module in modules:
            for mutant in _sample(module, root, asked.number, asked.seed):
                verdict = _try(mutant, project, covered, equivalent, asked.seconds)
                found.setdefault(module, []).append((mutant, verdict))
                if verdict in (_SURVIVED, _NOT_RUN):
                    print(_explained(mutant, verdict), flush=True)
            print(_row(module, found.get(module, [])), flush=True)
    print(_table(found))
    return int(any(verdict in (_SURVIVED, _NOT_RUN) for tried in found.values() for _, verdict in tried))


def _asked(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--modules", nargs="+", default=MODULES, help="paths or patterns, relative to the project")
    parser.add_argument("--number", type=int, default=20, help="mutants of each module; 0 for all")
    parser.add_argument("--seed", type=int, default=0, help="decides which mutants are drawn")
    parser.add_argument("--seconds", type=float, default=60, help="of tests a mutant, the likeliest ones first")
    parser.add_argument("--tests", nargs="+", default=["tests/test_*.py"], help="which test files there are")
    parser.add_argument("--imports", nargs="*", default=IMPORTS, help="modules to import once for all tests")
    parser.add_argument("--project", type=Path, default=PROJECT, help="whose modules and tests")
    parser.add_argument("--cache", type=Path, default=PROJECT / "build" / "mutants", help="which tests run which lines")
    parser.add_argument("--equivalent", type=Path, default=Path(__file__).with_name("equivalent.json"))
    return parser.parse_args(arguments)


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for the copy: in memory if there is one there, for a test's folders are small files."""
    memory = Path("/dev/shm")
    folder = tempfile.mkdtemp(prefix="mutants-", dir=memory if memory.is_dir() else None)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _equivalent(file: Path) -> dict[tuple[str, str, str], str]:
    """Why nobody can notice a mutant, by module, lines before and lines after."""
    named = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return {(module, each["before"], each["after"]): each["why"] for module, listed in named.items() for each in listed}


def _sample(module: str, root: Path, number: int, seed: int) -> list[Mutant]:
    """Some mutants of a module, the same ones for the same text and seed."""
    mutants = mutants_of(module, (root / module).read_text(encoding="utf-8"))
    drawn = random.Random(f"{seed} {module}").sample(mutants, min(number or len(mutants), len(mutants)))
    return sorted(drawn, key=lambda mutant: (mutant.lines[0], mutant.after))


def _try(
    mutant: Mutant, project: Copy, covered: Covered, equivalent: dict[tuple[str, str, str], str], seconds: float
) -> str:
    """Whether the tests notice a mutant. One that is named as equivalent isn't tried."""
    if (mutant.module, mutant.before, mutant.after) in equivalent:
        return _EQUIVALENT
    tests = covered.tests_of(mutant, seconds)
    if not tests:
        return _NOT_RUN
    files = list(dict.fromkeys(test.split("::")[0] for test in tests))
    before = (project.root / mutant.module).read_text(encoding="utf-8")
    project.write(mutant.module, mutant.text)
    try:
        code = project.run_tests(files, Chosen(list(tests)), limit=30 + 5 * sum(tests.values()))
    finally:
        project.write(mutant.module, before)
    return _SURVIVED if code == 0 else _NOTICED  # or it took too long


def _explained(mutant: Mutant, verdict: str) -> str:
    place = f"{mutant.module}:{mutant.lines[0]}"
    return f"{place}: {mutant.operator}: {verdict}\n  - {mutant.before}\n  + {mutant.after}"


def _row(module: str, tried: Sequence[tuple[Mutant, str]]) -> str:
    counts: dict[str, int] = defaultdict(int)
    for _, verdict in tried:
        counts[verdict] += 1
    counted = len(tried) - counts[_EQUIVALENT]
    share = f"{counts[_NOTICED] / counted:.0%}" if counted else "–"
    named = f", {counts[_EQUIVALENT]} equivalent" if counts[_EQUIVALENT] else ""
    return f"| {module} | {counts[_NOTICED]} of {counted}{named} | {share} |"


def _table(found: dict[str, list[tuple[Mutant, str]]]) -> str:
    rows = [_row(module, tried) for module, tried in found.items()]
    total = _row("all", [each for tried in found.values() for each in tried])
    return "\n".join(["", "| module | noticed | |", "|---|---:|---:|", *rows, total])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
