"""Small files that several processes change: a change is made to what is there, and never lost to another one."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spark_jobs import storage


def read(location: str) -> tuple[str | None, str | None]:
    """The text of a file, and the version that it is; None twice if it does not exist."""
    path = storage.at(location)
    if isinstance(path, Path):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None, None
        return content.decode(errors="replace"), hashlib.sha256(content).hexdigest()
    from spark_jobs.storage import s3

    try:
        content, etag = s3.read_object(location)
    except FileNotFoundError:
        return None, None
    return content.decode(errors="replace"), etag


def replace(location: str, text: str, version: str | None) -> bool:
    """Write a file if it is still in the version that was read; whether that was so.

    A reader sees the old or the new file, never a part. On S3 it is a conditional write. In a local folder it is one
    as far as the file system has locks.

    Args:
        location: The file.
        text: Its content: another one than others would write, or both of them succeed.
        version: As `read` gave it; None where there was no file.
    """
    path = storage.at(location)
    if isinstance(path, Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent):
            if read(location)[1] != version:
                return False
            storage.write_text(location, text, lasting=True)
            return True
    from spark_jobs.storage import s3

    return s3.put_if(location, text.encode(), version) is not None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Have a folder locked, where its file system can do that; no file is left of it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # of a network's file system that locks files only
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
