"""Claims on output folders: of several jobs that would make an output in one folder at the same time, one does.

The marker of an unfinished output says who makes it. In a local folder its writer has a lock on it, which the kernel
frees when the process ends, however it does. On S3, where there are no locks, the writer writes it anew every few
seconds, each time on condition that nobody else did; a marker that is older has no writer any more.
"""

import errno
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from spark_jobs import storage
from spark_jobs.errors import OutputExists, S3Error
from spark_jobs.json_texts import parse_json
from spark_jobs.outputs.manifest import MANIFEST

if TYPE_CHECKING:
    from spark_jobs.reporting import Reporter

MARKER = "_unfinished"

LEASE_SECONDS = 30.0  # a marker on S3 that is older has no writer
RENEW_SECONDS = 5.0
_POLL_SECONDS = 0.5
_NOTE = "This output is not finished: nothing reads it."


class Claim(Protocol):
    """What a job has that may write to a folder."""

    def finish(self, manifest: str) -> None:
        """Write the manifest, and end the claim.

        Raises:
            OutputExists: Another job took the folder over, or finished an output there.
        """


def claimed(folder: str, fingerprint: str, report: "Reporter") -> AbstractContextManager[Claim | None]:
    """Claim an output folder, and delete what an unfinished output left there; None if it holds a manifest.

    While another job makes the same output there, this waits for its end.

    Args:
        folder: The folder.
        fingerprint: Of the output that is to be made.
        report: Where it is said that this waits.

    Raises:
        OutputExists: The folder has files of somebody else, or another job makes another output there.
    """
    path = storage.at(folder)
    wait = _Waiting(folder, fingerprint, report)
    return _claim_locally(path, wait) if isinstance(path, Path) else _claim_on_s3(folder, wait)


def has_writer(folder: str) -> bool:
    """Whether a job is writing to a folder just now."""
    path = storage.at(folder)
    if not isinstance(path, Path):
        from spark_jobs.storage import s3

        age = s3.age(storage.join(folder, MARKER))
        return age is not None and age < LEASE_SECONDS
    try:
        with (path / MARKER).open("rb") as file:
            return not _try_to_lock(file.fileno())
    except FileNotFoundError:
        return False


class _Waiting:
    """Waits for another job."""

    def __init__(self, folder: str, fingerprint: str, report: "Reporter"):
        self.folder, self.fingerprint, self._report = folder, fingerprint, report
        self._said = False

    def marker(self, *, released: bool = False) -> bytes:
        """A marker of this job's; no two are the same."""
        writer = None if released else f"process {os.getpid()} on {socket.gethostname()}"
        since = datetime.now(timezone.utc).isoformat(timespec="seconds")
        said = {"note": _NOTE, "writer": writer, "fingerprint": self.fingerprint, "at": since, "id": uuid.uuid4().hex}
        return json.dumps(said, indent=1).encode() + b"\n"

    def wait(self, marker: bytes) -> None:
        """Wait for a moment, because of a job that has this marker."""
        by = read_marker(marker)
        if by and by.get("fingerprint") != self.fingerprint:
            raise OutputExists(
                f"{self.folder}: {by.get('writer')} is writing another output there. Name another folder, or wait for"
                " its end."
            )
        if by and not self._said:
            self._report.progress(f"{by.get('writer')} is writing the same output to {self.folder}: waiting for it")
            self._said = True
        time.sleep(_POLL_SECONDS)

    def check_no_other(self, names: set[str]) -> None:
        """Check that a folder with files of these names has none of somebody else's."""
        if names and MARKER not in names:
            raise OutputExists(f"{self.folder} is not empty. Name a folder that is new or empty.")


def read_marker(marker: bytes) -> dict[str, Any]:
    """What a marker says of its writer; empty if it was released, is being written, or is of an earlier version."""
    try:
        said = parse_json(marker)
    except ValueError:
        return {}
    return said if isinstance(said, dict) and said.get("writer") else {}


# --- local folders ---------------------------------------------------------------------------------


class _LocalClaim:
    def __init__(self, folder: Path):
        self._folder = folder

    def finish(self, manifest: str) -> None:
        storage.settle(str(self._folder))
        storage.write_text(str(self._folder / MANIFEST), manifest, lasting=True)
        (self._folder / MARKER).unlink()


@contextmanager
def _claim_locally(folder: Path, wait: _Waiting) -> Iterator[_LocalClaim | None]:
    descriptor = _lock(folder, wait)
    if descriptor is None:
        yield None
        return
    try:
        for name in set(os.listdir(folder)) - {MARKER}:
            if (folder / name).is_dir():
                storage.delete_folder(str(folder / name))
            else:
                (folder / name).unlink()
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, wait.marker(), 0)
        yield _LocalClaim(folder)
    finally:
        os.close(descriptor)  # which frees the lock; the marker stays if the output is not finished


def _lock(folder: Path, wait: _Waiting) -> int | None:
    """Lock the marker of a folder, once no other job has it; None if there is a manifest."""
    marker = folder / MARKER
    while True:
        _make_folder(folder)
        names = set(os.listdir(folder))
        # Another job may have finished while the folder was listed.
        if (folder / MANIFEST).exists():
            return None
        wait.check_no_other(names)
        descriptor = os.open(marker, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _try_to_lock(descriptor):
                wait.wait(os.pread(descriptor, 1 << 16, 0))
            elif _is_file(descriptor, marker):
                locked, descriptor = descriptor, -1
                return locked
        finally:
            if descriptor >= 0:
                os.close(descriptor)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # it is a file
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error


def _try_to_lock(descriptor: int) -> bool:
    """Lock a file, and say whether that succeeded. Where the file system has no locks, it does."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _is_file(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one of that path: a job that ends deletes its marker."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


# --- S3 --------------------------------------------------------------------------------------------


class _S3Claim:
    """A marker on S3 that is renewed by a thread."""

    def __init__(self, folder: str, etag: str, marker: Callable[..., bytes]):
        self._folder, self._etag, self._marker = folder, etag, marker
        self._location = storage.join(folder, MARKER)
        self._lock, self._ended, self._lost = threading.Lock(), threading.Event(), False
        threading.Thread(target=self._renew, name="claim", daemon=True).start()

    def finish(self, manifest: str) -> None:

        from spark_jobs.storage import s3

        self._write()
        location = storage.join(self._folder, MANIFEST)
        if self._lost or s3.put_if(location, manifest.encode(), etag=None) is None:
            raise OutputExists(f"Another job took {self._folder} over while this one paused. Run again.")
        self._ended.set()
        storage.at(self._location).unlink(missing_ok=True)

    def release(self) -> None:
        """Let the next one have the folder at once, if it is not finished."""
        if not self._ended.is_set():
            self._ended.set()
            with suppress(S3Error):
                self._write(released=True)

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_SECONDS) and not self._lost:
            with suppress(S3Error):  # it is tried again soon, and the manifest is not written without it
                self._write()

    def _write(self, *, released: bool = False) -> None:
        from spark_jobs.storage import s3

        with self._lock:
            if not self._lost and (released or not self._ended.is_set()):
                etag = s3.put_if(self._location, self._marker(released=released), etag=self._etag)
                self._lost, self._etag = etag is None, etag or self._etag


@contextmanager
def _claim_on_s3(folder: str, wait: _Waiting) -> Iterator[_S3Claim | None]:
    etag = _take(folder, wait)
    if etag is None:
        yield None
        return
    claim = _S3Claim(folder, etag, wait.marker)
    try:
        for name in storage.list_below(folder):
            if name != MARKER:
                storage.at(storage.join(folder, name)).unlink(missing_ok=True)
        yield claim
    finally:
        claim.release()


def _take(folder: str, wait: _Waiting) -> str | None:
    """Write the marker of a folder, once no other job has it, and return its ETag; None if there is a manifest."""
    from spark_jobs.storage import s3

    location = storage.join(folder, MARKER)
    while True:
        found = storage.list_below(folder)
        if MANIFEST in found:
            return None
        if found and MARKER not in found and MANIFEST in storage.list_below(folder):
            return None  # it was finished meanwhile
        wait.check_no_other(set(found))
        marker = found.get(MARKER)
        if marker is not None:
            with suppress(FileNotFoundError):
                said, age = storage.read_bytes(location), s3.age(location)
                if read_marker(said) and age is not None and age < LEASE_SECONDS:
                    wait.wait(said)
                    continue
        etag = s3.put_if(location, wait.marker(), etag=None if marker is None else marker.etag)
        if etag is not None:
            return etag
