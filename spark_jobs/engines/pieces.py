"""Pieces: record batches packed as bytes, and a place on disk where they wait until they are wanted."""

import os
import sys
import tempfile
from typing import Any, NamedTuple

import pyarrow as pa

from spark_jobs.errors import InputError

# Arrow's own threads, by default one a column, cost a piece of a thousand rows ten times what its bytes do; and there
# is a process a core already.
_PACKED = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
_UNPACKED = pa.ipc.IpcReadOptions(use_threads=False)


def pack(rows: pa.RecordBatch) -> bytes:
    """A record batch with its dictionaries as an Arrow stream, compressed."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=_PACKED) as stream:
        stream.write_batch(rows)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def unpack(piece: bytes) -> pa.RecordBatch:
    """The inverse of `pack`."""
    with pa.ipc.open_stream(piece, options=_UNPACKED) as stream:
        return stream.read_next_batch()


class Piece(NamedTuple):
    """Where a piece is in a spill."""

    start: int
    length: int


class Spill:
    """Keeps pieces in a file that has no name, so that nothing is left of it however the processes end.

    It can be sent to another process, which opens the same file. One at a time may put pieces there; any number may
    take them.
    """

    def __init__(self, folder: str):
        self._folder = folder
        self._file: int | None = None
        self._file = _unnamed_file(folder)

    def put(self, piece: bytes) -> Piece:
        """Keep a piece at the end of the file.

        Raises:
            InputError: There is no room.
        """
        start = os.fstat(self._descriptor).st_size
        rest = memoryview(piece)
        try:
            while rest:
                written = os.pwrite(self._descriptor, rest, start + len(piece) - len(rest))
                rest = rest[written:]
        except OSError as error:
            raise InputError(
                f"The scratch folder {self._folder} can't take more than {start:,} bytes: {error.strerror}. Name"
                " another with --scratch, or scratch in the config's resources."
            ) from error
        return Piece(start, len(piece))

    def take(self, piece: Piece) -> bytes:
        """The bytes of a piece."""
        return os.pread(self._descriptor, piece.length, piece.start)

    def close(self) -> None:
        """Give the room back, once all processes have."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if sys.platform == "linux":
            return _opened, (self._folder, f"/proc/{os.getpid()}/fd/{self._descriptor}")
        from multiprocessing.reduction import DupFd

        return _received, (self._folder, DupFd(self._descriptor))

    @property
    def _descriptor(self) -> int:
        assert self._file is not None, "a spill is used after it was closed"
        return self._file


def _unnamed_file(folder: str) -> int:
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.dup(file.fileno())


def _opened(folder: str, path: str) -> Spill:
    return _from_descriptor(folder, os.open(path, os.O_RDWR))


def _received(folder: str, sent: Any) -> Spill:
    return _from_descriptor(folder, sent.detach())


def _from_descriptor(folder: str, descriptor: int) -> Spill:
    spill = Spill.__new__(Spill)
    spill._folder, spill._file = folder, descriptor
    return spill
