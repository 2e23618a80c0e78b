"""A copy of the project, and runs of its tests in it: each in a process that is forked from one that has imported what
is slow to import, and that ends with all that it started."""

import contextlib
import ctypes
import importlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

import hypothesis
import pytest

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER, of prctl(2)
_MEMORY = 8 * 2**30  # bytes of addresses: a fault may fill a list for ever


def warm_up(names: Iterable[str]) -> None:
    """Import modules that are slow to import, and become the parent of what orphans the tests leave."""
    os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell")
    warnings.simplefilter("ignore")
    for name in names:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


class Copy:
    """The project's files, as git has them or would, in a folder of its own. The data that is shared lies beside it."""

    def __init__(self, project: Path, scratch: Path):
        self.root = scratch / "project"
        self.scratch = scratch
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=project, capture_output=True, check=True, text=True,
        )  # fmt: skip
        for name in filter(None, listed.stdout.split("\0")):
            if (project / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(project / name, self.root / name)
        if (project.parent / "shared").is_dir():
            (scratch / "shared").symlink_to(project.parent / "shared")
        self._written = 0

    def write(self, module: str, text: str) -> None:
        """Write a module, so that no file compiled from another text of it is taken for it."""
        file = self.root / module
        file.write_text(text, encoding="utf-8")
        self._written += 1
        now = int(time.time()) - 10**6 + 2 * self._written  # Python compares seconds, and sizes
        os.utime(file, (now, now))

    def run_tests(self, files: Collection[str], plugin: object, limit: float, notes: Path | None = None) -> int | None:
        """Run test files in a process of its own.

        Args:
            files: The files, relative to the project.
            plugin: Of pytest.
            limit: Seconds after which all is killed.
            notes: The folder for the lines that the tests run, if they are to be noted.

        Returns:
            pytest's exit code; None if it took too long.
        """
        temporary = self.scratch / "tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        child = os.fork()
        if child == 0:
            _leave(lambda: self._pytest(files, plugin, temporary, notes))
        try:
            return _wait(child, limit)
        finally:
            _kill_all_of(child)

    def _pytest(self, files: Collection[str], plugin: object, temporary: Path, notes: Path | None) -> int:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        with open(self.scratch / "log", "wb") as log, open(os.devnull, "rb") as nothing:
            for stream, descriptor in ((nothing, 0), (log, 1), (log, 2)):
                os.dup2(stream.fileno(), descriptor)
        os.chdir(self.root)
        paths = [str(self.root)]
        os.environ["PYTEST_DEBUG_TEMPROOT"] = os.environ["TMPDIR"] = str(temporary)
        if notes is not None:
            traced = Path(__file__).with_name("traced")
            paths.append(str(traced))
            os.environ |= {"MUTANTS_ROOT": f"{self.root}/", "MUTANTS_NOTES": str(notes)}
            sys.path.append(str(traced))
            importlib.import_module("sitecustomize")
        os.environ["PYTHONPATH"] = ":".join(paths)
        sys.path[:] = [str(self.root), *(path for path in sys.path if path not in ("", str(Path.cwd())))]
        for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
            del sys.modules[name]  # these are the original's
        arguments = ["-q", "-m", "not spark", "--rootdir", str(self.root), "--tb=no", "--assert=plain"]
        arguments += ["-p", "no:cacheprovider", "-p", "no:xdist", *(["-x"] if notes is None else [])]
        return int(pytest.main([*arguments, *files], plugins=[plugin]))


class Chosen:
    """A plugin of pytest that runs some tests only, in the order in which they are given."""

    def __init__(self, tests: Sequence[str]):
        self.places = {test: place for place, test in enumerate(tests)}

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self) -> None:
        """An example that fails is enough: a smaller one would be for people."""
        shortly = [phase for phase in hypothesis.Phase if phase.name not in ("shrink", "explain")]
        hypothesis.settings.register_profile("mutants", hypothesis.settings(), phases=shortly)
        hypothesis.settings.load_profile("mutants")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self.places), key=lambda item: self.places[item.nodeid])


class Timed:
    """A plugin of pytest that notes how long each test that passed took, in a file that has a line each."""

    def __init__(self, file: Path):
        self.file = file
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        taken = self.seconds.get(report.nodeid, 0.0) + report.duration
        self.seconds[report.nodeid] = taken if report.passed else float("-inf")
        if report.when == "teardown" and self.seconds[report.nodeid] > 0:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(f"{report.nodeid}\t{taken:.3f}\n")


def _leave(run: Callable[[], int]) -> None:
    """End this process with what a function returns, and with none of what its parent would do at its end."""
    code = 70
    try:
        code = run()
    finally:
        os._exit(code)


def _wait(child: int, limit: float) -> int | None:
    """The exit code of a child; None if it does not end in time."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return None


def _kill_all_of(child: int) -> None:
    """Kill a child's process group, and whatever else has this process for its parent now."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    while children := Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        for process in children:
            os.kill(int(process), signal.SIGKILL)
            os.waitpid(int(process), 0)
