"""The reading end: what a launch wrote, in order and once, as it arrives."""

import codecs
import json
import sys
from collections.abc import Iterator
from typing import Any

from spark_jobs.launch.folder import Folder, Stream
from spark_jobs.launch.status import Status

_TAIL = 20  # lines of the log that an error shows


class StreamReader:
    """Reads a stream in order, from its beginning, as it is written."""

    def __init__(self, folder: Folder, stream: Stream):
        self._folder, self._stream = folder, stream
        self.objects = 0  # those read

    def new(self) -> Iterator[bytes]:
        """The objects since the last call."""
        while (chunk := self._folder.get_object(self._stream, self.objects + 1)) is not None:
            self.objects += 1
            yield chunk


class BrokenMessage(Exception):
    """A message that can't be read."""


class Transcript:
    """All that a launch says, as it arrives. Its log is printed to stderr, as that of jobs on this machine is."""

    def __init__(self, folder: Folder):
        self._messages, self._log = StreamReader(folder, "messages"), StreamReader(folder, "log")
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.tail = ""  # of the log
        self.messages = 0  # those that arrived

    def new_messages(self) -> Iterator[dict[str, Any]]:
        """The messages since the last call, after the log until then is printed.

        Raises:
            BrokenMessage: One can't be read.
        """
        for chunk in self._log.new():
            text = self._decoder.decode(chunk)
            sys.stderr.write(text)
            sys.stderr.flush()
            self.tail = "\n".join((self.tail + text).split("\n")[-_TAIL - 1 :])
        for chunk in self._messages.new():
            for line in chunk.splitlines():
                self.messages += 1
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise BrokenMessage(f"message {self.messages} is broken: {error}") from error

    def missing(self, status: Status) -> str:
        """What of all that a launch with this status wrote did not arrive yet; empty if nothing."""
        arrived = {"messages": self._messages.objects, "log": self._log.objects}
        if arrived != {name: status.objects.get(name, 0) for name in arrived}:
            return f"it wrote {dict(status.objects)} objects, {arrived} arrived"
        if self.messages != status.messages:
            return f"it wrote {status.messages} messages, {self.messages} arrived"
        return ""
