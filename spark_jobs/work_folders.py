"""Temporary folders that are removed even if the process that works in them is killed: by the next one that makes one.

Whoever works in a folder has it locked. The lock ends with the process, however that ends.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

_PREFIX = "audience-explorer-work-"  # which no folder of a person has


@contextmanager
def work_folder() -> Iterator[Path]:
    """Make a temporary folder, which is removed when the body has ended, and remove those of killed processes."""
    remove_abandoned()
    with ExitStack() as locked:
        while True:
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
            # Somebody may take it for abandoned before it is locked, and remove it.
            with suppress(FileNotFoundError):
                locked.enter_context(_locked(folder, wait=True))
            if folder.exists():
                break
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned() -> None:
    """Remove this user's work folders in which nobody works any more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # somebody else's, or gone by now
            if folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.getuid():
                with _locked(folder, wait=False):
                    shutil.rmtree(folder)


@contextmanager
def _locked(folder: Path, wait: bool) -> Iterator[None]:
    """Have a folder locked.

    Raises:
        OSError: It is gone, or somebody has it locked, and `wait` is not set.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)
