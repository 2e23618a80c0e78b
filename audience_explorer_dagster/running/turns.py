"""Runs of the same partitions take turns, so that who comes second finds on record what the first one made."""

import fcntl
import hashlib
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import dagster as dg

from audience_explorer_dagster.partitions import Partition

_LOCKS = ".partitions.lock"  # in DAGSTER_HOME; a byte of it a partition, whether or not the file is that long
_POLL_SECONDS = 0.2


@contextmanager
def turn(context: dg.OpExecutionContext, partitions: Iterable[Partition]) -> Iterator[None]:
    """Wait until no other process with the same records is at any of the partitions; that of a killed one is over.

    Dagster's daemon begins no second run of a month, and knows nothing of the runs of commands.
    """
    folder = Path(context.instance.root_directory)
    # In order: two that want some of the same partitions would wait for each other else.
    bytes_of_partitions = sorted({_byte(partition) for partition in partitions})
    with (folder / _LOCKS).open("w") as locks:
        waited = False
        for place in bytes_of_partitions:
            while not _lock(locks, place):
                if not waited:
                    context.log.info("another run is at the same partitions; this one waits for its turn")
                waited = True
                time.sleep(_POLL_SECONDS)
        yield


def _lock(locks: IO[str], place: int) -> bool:
    """Lock a byte, until the file is closed or this process ends; whether nobody else has it."""
    try:
        fcntl.lockf(locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
    except BlockingIOError:
        return False
    return True


def _byte(partition: Partition) -> int:
    return int.from_bytes(hashlib.sha256(partition.key.encode()).digest()[:7], "big")
