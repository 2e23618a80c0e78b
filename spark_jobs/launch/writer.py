"""The writing end: messages and log become numbered objects of a launch's folder."""

import io
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from spark_jobs.launch.folder import Folder, Stream

_COLLECT_SECONDS = 0.3  # how long what is written waits for more
_MAX_LOG_WAITING = 16 << 20  # bytes of log that wait for S3; jobs may print without end, and memory is theirs


class StreamWriter:
    """Writes what `take` gives as numbered objects, from a thread of its own, until it is closed and all is stored.

    Args:
        folder: The launch's; a request to it that fails ends the stream.
        stream: Which.
        take: Gives what was not written yet; empty for nothing.
        collect_seconds: How long it waits for more.
    """

    def __init__(
        self, folder: Folder, stream: Stream, take: Callable[[], bytes], collect_seconds: float = _COLLECT_SECONDS
    ):
        self.stream, self._folder, self._take, self._collect_seconds = stream, folder, take, collect_seconds
        self._closed = threading.Event()
        self._failure: Exception | None = None
        self.objects = 0  # those that are stored
        self._thread = threading.Thread(target=self._write, name=stream, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is left.

        Raises:
            Exception: Not all is stored: what kept it.
        """
        self._closed.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _write(self) -> None:
        try:
            while True:
                is_last = self._closed.is_set()  # before taking, so that all that came before it was closed is taken
                if chunk := self._take():
                    self._folder.put_object(self.stream, self.objects + 1, chunk)
                    self.objects += 1
                elif is_last:
                    return
                self._closed.wait(self._collect_seconds)
        except Exception as error:  # raised by close(): a launch of which something is lost must not end well
            self._failure = error


class Messages:
    """The jobs' messages, which they write to a file on disk, and the agent's own."""

    def __init__(self) -> None:
        self._file: IO[bytes] = io.BytesIO()
        self._lock = threading.Lock()
        self._waiting: list[bytes] = []
        self._rest = b""  # the beginning of a message that is still being written
        self.count = 0  # those taken

    def follow(self, file: Path) -> None:
        """Take what is written to a file, too."""
        file.touch()
        self._file = file.open("rb")

    def report(self, event: str, **facts: Any) -> None:
        """Add a message of the agent's own, after all that the jobs have written until now."""
        with self._lock:
            self._read()
            self._waiting.append(json.dumps({"boot": event, "at": time.time(), **facts}).encode())

    def take(self) -> bytes:
        """All whole messages that were not taken yet, a line each."""
        with self._lock:
            self._read()
            taken, self._waiting = self._waiting, []
        self.count += len(taken)
        return b"".join(message + b"\n" for message in taken)

    def _read(self) -> None:
        *whole, self._rest = (self._rest + self._file.read()).split(b"\n")
        self._waiting += whole


class Log:
    """What the jobs print, as it waits for S3."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting = bytearray()
        self._left_out = 0

    def add(self, text: bytes) -> None:
        """Add what was printed; what is more than can wait is left out, and the log says so."""
        with self._lock:
            fits = _MAX_LOG_WAITING - len(self._waiting)
            self._waiting += text[:fits]
            self._left_out += max(0, len(text) - fits)

    def take(self) -> bytes:
        """All that was not taken yet."""
        with self._lock:
            taken, self._waiting = bytes(self._waiting), bytearray()
            if self._left_out:
                taken += f"\n… {self._left_out} bytes are left out, because S3 took no more …\n".encode()
                self._left_out = 0
        return taken
