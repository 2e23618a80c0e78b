"""Which tests run which lines: noted once for each test file, and kept until the file changes."""

import hashlib
import json
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.mutants.operators import Mutant
from tests.mutants.trials import Copy, Timed

_LIMIT = 1800  # seconds, of the tests of a file


class Covered:
    """The tests of a project, and the lines of its modules that each runs.

    A test file is run again, which takes minutes for all of them, if its own text is another one. Where a module
    changed since, all its lines are taken to be run by all tests of the file that ran any.
    """

    def __init__(self, project: Copy, cache: Path, patterns: Iterable[str]):
        self.project = project
        self.cache = cache
        self.seconds: dict[str, float] = {}
        self.by_line: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        self.outdated: dict[str, set[str]] = defaultdict(set)  # tests that ran a module before it changed
        self.texts: dict[str, str] = {}
        cache.mkdir(parents=True, exist_ok=True)
        for file in sorted({file for pattern in patterns for file in project.root.glob(pattern)}):
            self._add(file)

    def tests_of(self, mutant: Mutant, seconds: float) -> dict[str, float]:
        """The tests that run a mutant's lines, and how long each takes: first those of files that name the module, the
        quick ones first, up to so many seconds in all."""
        by_line = self.by_line[mutant.module]
        lines = list(by_line) if mutant.on_import else list(mutant.lines)
        certain = {test for line in lines for test in by_line.get(line, ()) if test in self.seconds}
        tests = certain | (self.outdated[mutant.module] & self.seconds.keys())
        name = Path(mutant.module).stem

        def rank(test: str) -> tuple[bool, bool, float]:
            names_it = name in self.texts[test.split("::", maxsplit=1)[0]]
            return test not in certain, not names_it, self.seconds[test]

        chosen: dict[str, float] = {}
        for test in sorted(tests, key=rank):
            if not chosen or sum(chosen.values()) + self.seconds[test] <= seconds:
                chosen[test] = self.seconds[test]
        return chosen

    def _add(self, file: Path) -> None:
        """Read what is noted of a test file, and note it first if need be."""
        text = file.read_text(encoding="utf-8")
        kept = self.cache / f"{file.stem}.json"
        noted = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
        if noted.get("digest") != _digest(text):
            noted = {"digest": _digest(text), **self._run(file)}
            kept.write_text(json.dumps(noted), encoding="utf-8")
        self.texts[str(file.relative_to(self.project.root))] = text
        self.seconds |= noted["seconds"]
        for module, of_module in noted["modules"].items():
            there = self.project.root / module
            if there.exists() and of_module["digest"] == _digest(there.read_text(encoding="utf-8")):
                everywhere = set().union(*of_module["lines"].values())
                for line, tests in of_module["lines"].items():
                    # What runs when the file is loaded, all its tests may depend on.
                    self.by_line[module][int(line)].update(everywhere if "" in tests else tests)
            else:
                self.outdated[module].update(*of_module["lines"].values())

    def _run(self, file: Path) -> dict[str, Any]:
        """Run a test file, and note the lines."""
        started = time.monotonic()
        notes = self.project.scratch / "notes"
        shutil.rmtree(notes, ignore_errors=True)
        notes.mkdir()
        times = self.project.scratch / "times"
        times.write_text("")
        name = str(file.relative_to(self.project.root))
        code = self.project.run_tests([name], Timed(times), _LIMIT, notes)
        if code != 0:
            print((self.project.scratch / "log").read_text(errors="replace")[-2000:], flush=True)
        seconds = dict(line.rsplit("\t", 1) for line in times.read_text(encoding="utf-8").splitlines())
        lines: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for noted in notes.iterdir():
            for note in noted.read_text(encoding="utf-8").splitlines():
                test, module, line = note.split("\t")
                lines[module][line].add(test)
        print(f"{name}: {len(seconds)} tests, {time.monotonic() - started:.0f} s, exit code {code}", flush=True)
        return {
            "seconds": {test: float(taken) for test, taken in seconds.items()},
            "modules": {module: self._of_module(module, by_line) for module, by_line in lines.items()},
        }

    def _of_module(self, module: str, by_line: dict[str, set[str]]) -> dict[str, Any]:
        text = (self.project.root / module).read_text(encoding="utf-8")
        return {"digest": _digest(text), "lines": {line: sorted(tests) for line, tests in by_line.items()}}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
