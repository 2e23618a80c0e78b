"""What is in a root, and what must be so of it at any moment: what is finished is whole, and stays as it is."""

import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil

from acceptance.backfill import is_launch, processes_of
from acceptance.torture.audience import TinyExplorer

ASSETS = ("grouped_users", "clustering_inputs", "k_selection", "kmeans", "segments", "audience_report")
ONCE = ASSETS[:4]  # the others follow the month before, and are made again if that came later
MANIFEST, CURRENT = "manifest.json", "current.json"
_POLL = 0.05  # seconds
_PROCESSES_EVERY = 6  # polls


class Watcher:
    """Reads all that becomes readable below a root, the moment it does; what was wrong is in `violations`."""

    def __init__(self, explorer: TinyExplorer):
        self.explorer = explorer
        self.violations: list[str] = []
        self.outputs = 0  # finished ones that were seen
        self.pointers = 0  # versions of `current.json` that were seen
        self._sizes: dict[Path, dict[str, int]] = {}
        self._pointers: dict[Path, tuple[int, int]] = {}

    def look(self) -> None:
        """Look once at all that is new."""
        for asset in ASSETS:
            for parent, _, names in os.walk(self.explorer.root / asset):
                if CURRENT in names:
                    self._look_at_pointer(Path(parent, CURRENT))
                if MANIFEST in names and Path(parent) not in self._sizes:
                    self._look_at_output(Path(parent))

    def look_at_processes(self) -> None:
        """Check that no two launches of these records run at the same time."""
        launches = [process for process in processes_of(self.explorer) if is_launch(process)]
        if len(launches) > 1:
            self.violations.append(f"launches at the same time: {[process.pid for process in launches]}")

    def look_again(self) -> None:
        """Check that what was finished is still what it was."""
        for folder, sizes in self._sizes.items():
            if (now := sizes_of(folder)) != sizes:
                self.violations.append(f"{folder} changed after it was finished: {sizes} became {now}")

    def _look_at_output(self, folder: Path) -> None:
        self.outputs += 1
        self._sizes[folder] = sizes_of(folder)
        self.violations += is_not_whole(folder)

    def _look_at_pointer(self, file: Path) -> None:
        stat = file.stat()
        if self._pointers.get(file) == (stat.st_ino, stat.st_mtime_ns):
            return
        self._pointers[file] = (stat.st_ino, stat.st_mtime_ns)
        self.pointers += 1
        try:
            folder = Path(json.loads(file.read_text())["folder"])
        except ValueError as error:
            self.violations.append(f"{file} is not whole: {error}")
        else:
            self.violations += [f"{file} points at it: {why}" for why in is_not_whole(folder)]


def is_worker(process: psutil.Process) -> bool:
    """Whether a process runs jobs beside those of its launch."""
    with suppress(psutil.Error):
        return process.cmdline()[1:3] == ["-m", "spark_jobs.workers"] and process.status() != psutil.STATUS_ZOMBIE
    return False


@contextmanager
def watched(explorer: TinyExplorer, one_launch_at_a_time: bool = True) -> Iterator[Watcher]:
    """Watch a root all the time, until the body ends."""
    watcher, over = Watcher(explorer), threading.Event()

    def watch() -> None:
        polls = 0
        while not over.wait(_POLL):
            try:
                watcher.look()
                if one_launch_at_a_time and polls % _PROCESSES_EVERY == 0:
                    watcher.look_at_processes()
            except Exception as error:  # what a reader could run into is a violation as well
                watcher.violations.append(f"a reader failed: {error!r}")
            polls += 1

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield watcher
    finally:
        over.set()
        thread.join()
    watcher.look()
    watcher.look_again()


def sizes_of(folder: Path) -> dict[str, int]:
    """The bytes of each file of an output, but for the mark of an unfinished one, which is removed last."""
    return {
        file.relative_to(folder).as_posix(): file.stat().st_size
        for file in folder.rglob("*")
        if file.is_file() and file.name != "_unfinished"
    }


def is_not_whole(folder: Path) -> list[str]:
    """What is wrong with a finished output: its manifest, or files that it lists."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        return [f"{folder} has no manifest that can be read: {error}"]
    listed = {file["path"]: file["bytes"] for file in manifest["files"]}
    there = {name: size for name, size in sizes_of(folder).items() if name != MANIFEST}
    return [] if listed == there else [f"{folder} holds {there}, and its manifest says {listed}"]


def finished(root: Path) -> Counter[str]:
    """How many finished outputs each partition of each asset has."""
    manifests = [manifest for asset in ASSETS for manifest in (root / asset).rglob(MANIFEST)]
    return Counter(str(manifest.parents[1].relative_to(root)) for manifest in manifests)


def unfinished(root: Path) -> int:
    """How many folders killed jobs left; nothing reads them, and `audience-explorer prune` deletes them."""
    return sum(1 for asset in ASSETS for mark in (root / asset).rglob("_unfinished"))


def results(root: Path) -> dict[str, str]:
    """The digests of all files of the current outputs, and what their manifests promise, by asset and partition."""
    found: dict[str, str] = {}
    for pointer in (pointer for asset in ASSETS for pointer in (root / asset).rglob(CURRENT)):
        partition = pointer.parent.relative_to(root).as_posix()
        folder = Path(json.loads(pointer.read_text())["folder"])
        for name in sizes_of(folder):
            content = (folder / name).read_bytes()
            found[f"{partition}/{name}"] = _promised(content) if name == MANIFEST else sha256(content).hexdigest()
    return found


def _promised(manifest: bytes) -> str:
    """What of a manifest is the same each time: all but when it was made and how long that took."""
    said: dict[str, Any] = json.loads(manifest)
    promised = {name: said[name] for name in ("step", "code_version", "fingerprint", "inputs", "rows", "files")}
    return sha256(json.dumps(promised, sort_keys=True).encode()).hexdigest()
