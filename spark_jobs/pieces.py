"""Pieces: record batches packed as bytes, and a place on disk where they wait until they are wanted."""

import os
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator

import pyarrow as pa

from spark_jobs.errors import InputError

# Arrow's own threads, by default one a column, cost a piece of a thousand rows ten times what its bytes do; and the
# tasks are threads already.
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


class Spill:
    """Keeps pieces in a file that has no name, so that nothing is left of it however the process ends.

    Threads may use it together.
    """

    def __init__(self, folder: str):
        self._folder = folder
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by close()
        self._end = 0
        self._pieces: defaultdict[int, list[tuple[int, int, int, int]]] = defaultdict(list)
        self._lock = threading.Lock()

    def put(self, key: int, place: tuple[int, int], piece: bytes) -> None:
        """Keep a piece; `place` is where it belongs among its key's.

        Raises:
            InputError: There is no room.
        """
        with self._lock:
            start = self._end
            self._end += len(piece)
        rest = memoryview(piece)
        try:
            while rest:
                written = os.pwrite(self._file.fileno(), rest, start + len(piece) - len(rest))
                rest = rest[written:]
        except OSError as error:
            raise InputError(
                f"The scratch folder {self._folder} can't take more than {start:,} bytes: {error.strerror}. Name"
                " another with --scratch, or scratch in the config's resources."
            ) from error
        with self._lock:
            self._pieces[key].append((*place, start, len(piece)))

    def sizes(self) -> dict[int, int]:
        """The bytes of each key's pieces."""
        return {key: sum(length for *_, length in pieces) for key, pieces in self._pieces.items()}

    def take(self, key: int) -> Iterator[bytes]:
        """The pieces of a key, in their places' order."""
        for *_, start, length in sorted(self._pieces[key]):
            yield os.pread(self._file.fileno(), length, start)

    def close(self) -> None:
        """Give the room back."""
        self._file.close()
