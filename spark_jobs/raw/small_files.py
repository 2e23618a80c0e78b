"""Many small files, read as if they were one.

A few rows cost as much to parse, check and split as thousands do: each of Arrow's functions takes its time to start. So
the lines of small files of the same kind are put together first. What fails together is tried in halves, down to the
file that is at fault; that one is left to the reader of its format, which knows what to say of it.
"""

import gzip
import io
import zlib
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from spark_jobs import storage
from spark_jobs.errors import UnreadableFile
from spark_jobs.raw.csv import parse_bodies, split_header
from spark_jobs.raw.json_lines import parse_json_fast, plain_lines
from spark_jobs.raw.parquet import read_small_parquet, to_raw_rows
from spark_jobs.raw.rules import REJECT, CheckedRows, Month, RawRows, check_rows
from spark_jobs.raw.text import Block, read_blocks

FILES_TOGETHER = 256  # at most
_SMALL_BYTES = 64 << 10  # of a file that is read with others, also once it is decompressed
_BYTES_TOGETHER = 4 << 20
_PARQUET_ROWS = 1 << 10  # of a small file; a few bytes may hold millions
_REQUESTS = 8  # to S3 at a time: each takes some 0.03 s, and hardly any of it is ours

# Rows of several files are numbered as one: the place of the file, and in the lower bits the line in it.
_LINE_BITS = 40
_ODD = (UnreadableFile, OSError, EOFError, zlib.error, pa.ArrowException, UnicodeError, KeyError)


def put_together(files: Sequence[storage.StoredFile]) -> list[list[int]]:
    """The places of files, in order: a list for those that are read together, and one for each large file."""
    bundles: list[list[int]] = []
    room = -1  # in the last of them, in bytes; an empty file has no room beside a large one
    for place, file in enumerate(files):
        small = file.size <= _SMALL_BYTES
        if small and file.size <= room and len(bundles[-1]) < FILES_TOGETHER:
            bundles[-1].append(place)
            room -= file.size
        else:
            bundles.append([place])
            room = _BYTES_TOGETHER - file.size if small else -1
    return bundles


@dataclass
class Together:
    """What was read of several files.

    Attributes:
        rows: The rows of all; those rejected have no file, and a number for a line.
        rejects: Of each place of a file that has some, its rejects as the reader of its format batches them.
        alone: The places of files that are to be read one by one.
    """

    rows: list[CheckedRows] = field(default_factory=list)
    rejects: dict[int, list[pa.RecordBatch]] = field(default_factory=dict)
    alone: set[int] = field(default_factory=set)


def read_together(locations: Sequence[str], month: Month) -> Together:
    """Read and check small files of any format.

    Args:
        locations: The files. One that can't be read, or may hold anything unusual, is left to be read alone.
        month: The month that timestamps must lie in.
    """
    found = Together()
    by_kind: defaultdict[Hashable, list[_Part]] = defaultdict(list)
    for place, data in enumerate(_read_all(locations)):
        part = None if data is None else _part_of(place, locations[place], data)
        if part is None:
            found.alone.add(place)
        else:
            by_kind[part.kind].append(part)
    for parts in by_kind.values():
        for rows in _parse(parts, month, found.alone):
            found.rows.append(rows)
            found.rejects.update(_rejects_by_file(rows.rejected, locations, {part.place: part for part in parts}))
    return found


@dataclass(frozen=True)
class _Part:
    """A small file, ready to be parsed with others of the same kind."""

    place: int
    kind: tuple[Hashable, ...]  # its format, and what else must be the same
    body: Block | pa.Table
    last_block: int = 1  # the line with which its last block begins, if it is text
    header: bytes = b""  # of CSV

    @property
    def rows(self) -> int:
        return self.body.lines if isinstance(self.body, Block) else self.body.num_rows

    @property
    def first(self) -> int:
        return self.body.first if isinstance(self.body, Block) else 1


def _read_all(locations: Sequence[str]) -> Iterator[bytes | None]:
    """The bytes of each file; None where they can't be read."""
    if "://" not in locations[0]:
        yield from map(_read, locations)
        return
    with ThreadPoolExecutor(_REQUESTS) as threads:
        yield from threads.map(_read, locations)


def _read(location: str) -> bytes | None:
    try:
        return storage.read_bytes(location)
    except OSError:
        return None


def _part_of(place: int, location: str, data: bytes) -> _Part | None:
    """What is parsed of a file; None if it must be read alone."""
    try:
        if location.endswith(".parquet"):
            table = read_small_parquet(data, _PARQUET_ROWS)
            kind = None if table is None else tuple((column.name, str(column.type)) for column in table.schema)
            return None if table is None else _Part(place, ("parquet", kind), table)
        if location.endswith(".gz"):
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(_SMALL_BYTES + 1)
        blocks = list(read_blocks(io.BytesIO(data), location))
    except _ODD:
        return None
    # A CR at the end could become half of a CRLF.
    if not blocks or len(data) > _SMALL_BYTES or blocks[-1].data.endswith(b"\r"):
        return None
    last = blocks[-1].first
    if location.endswith(".csv"):
        header, body = split_header(_joined(blocks))
        return _Part(place, ("csv", header), body, last, header)
    return _Part(place, ("json",), _joined([plain_lines(block) for block in blocks]), last)


def _joined(blocks: Sequence[Block]) -> Block:
    data = b"".join(block.data for block in blocks)
    return Block(data, 1, sum(block.lines for block in blocks), sum(block.crs for block in blocks))


def _parse(parts: Sequence[_Part], month: Month, alone: set[int]) -> Iterator[CheckedRows]:
    """The rows of files of one kind, with their numbers; `alone` gets the places of those that must be read alone."""
    rows = _parse_at_once(parts, month)
    if rows is not None:
        yield rows
    elif len(parts) == 1:
        alone.add(parts[0].place)
    else:
        half = len(parts) // 2
        yield from _parse(parts[:half], month, alone)
        yield from _parse(parts[half:], month, alone)


def _parse_at_once(parts: Sequence[_Part], month: Month) -> CheckedRows | None:
    """The rows of files; None if one of them must be read alone."""
    try:
        if parts[0].kind[0] == "parquet":
            table = pa.concat_tables([part.body for part in parts]).unify_dictionaries().combine_chunks()
            batches = table.to_batches()
            rows = to_raw_rows(batches[0], _numbers(parts)) if len(batches) == 1 else None
        else:
            lines = _joined([part.body for part in parts if isinstance(part.body, Block)])
            rows = parse_bodies(parts[0].header, lines) if parts[0].kind[0] == "csv" else parse_json_fast(lines)
            rows = None if rows is None else RawRows(rows.table, _numbers(parts), [])
        return None if rows is None else check_rows(rows, "", month)
    except _ODD:
        return None


def _numbers(parts: Sequence[_Part]) -> np.ndarray:
    """The number of each row, int64."""
    rows = np.array([part.rows for part in parts])
    first = np.array([part.place << _LINE_BITS | part.first for part in parts]) - (np.cumsum(rows) - rows)
    return np.repeat(first, rows) + np.arange(rows.sum())


def _rejects_by_file(
    rejected: pa.RecordBatch, locations: Sequence[str], parts: Mapping[int, _Part]
) -> dict[int, list[pa.RecordBatch]]:
    """The rejects of each file that has some, in a batch for each of its blocks."""
    number = rejected.column("line").to_numpy()
    place, line = number >> _LINE_BITS, number & ((1 << _LINE_BITS) - 1)
    found: dict[int, list[pa.RecordBatch]] = {}
    for of_file in np.unique(place).tolist():
        in_last = line >= parts[of_file].last_block
        for rows in (np.flatnonzero((place == of_file) & ~in_last), np.flatnonzero((place == of_file) & in_last)):
            if len(rows):
                columns = {
                    "file": [locations[of_file]] * len(rows),
                    "line": line[rows],
                    "reason": rejected.column("reason").take(pa.array(rows)),
                }
                found.setdefault(of_file, []).append(pa.RecordBatch.from_pydict(columns, schema=REJECT))
    return found
