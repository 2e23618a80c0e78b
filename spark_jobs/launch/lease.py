"""The lease of a launch: whoever waits for it renews the lease, and once it is old, the jobs need not go on."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError

from spark_jobs.launch.folder import Folder

LEASE_SECONDS = 300  # nobody waits for a launch whose lease is older
RENEW_SECONDS = 20.0


def is_valid(age: float | None) -> bool:
    """Whether somebody waits for a launch whose lease is so many seconds old, or None if there is no lease."""
    return age is not None and age < LEASE_SECONDS


@contextmanager
def renewed(folder: Folder) -> Iterator[None]:
    """Renew the lease now, and again and again while the body runs.

    It is done in a thread, so that waiting for an answer of AWS's counts as waiting for the launch.
    """
    folder.renew_lease()
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(RENEW_SECONDS):
            try:
                folder.renew_lease()
            except (BotoCoreError, ClientError, OSError) as error:
                sys.stderr.write(f"the launch's lease was not renewed, and will be tried again: {error}\n")

    threading.Thread(target=renew, name="lease", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
