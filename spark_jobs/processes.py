"""Processes that this one starts, which must not outlive it."""

import os
import signal
import threading
import time

_LOOK_SECONDS = 0.5


def can_be_terminated() -> None:
    """Let SIGTERM end this process, and all it starts from now on. To be called in the main thread.

    A process inherits what its parent ignores and blocks: nohup, some shells and process supervisors ignore SIGTERM.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def end_with(parent: int) -> None:
    """End this process soon after its parent, and be that killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
