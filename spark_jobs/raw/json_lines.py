"""Raw actions as JSON lines, plain or gzipped."""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.json

from spark_jobs.errors import UnreadableFile
from spark_jobs.raw.rules import NOT_JSON, NOT_UTF8, RAW, TWICE, RawRows, not_a_string
from spark_jobs.raw.text import BOM, Block, read_blocks

_SMALL_BYTES = 1 << 16  # that a thread is not worth its start for
_DIGITS = 20  # of a number of 64 bits, with its sign


def read_gzipped_json_lines(file: IO[bytes], location: str) -> Iterator[RawRows]:
    """Read an open `.jsonl.gz`, block by block.

    Raises:
        UnreadableFile: It is not in gzip's format.
    """
    try:
        with gzip.open(file) as text:
            yield from read_json_lines(text, location)
            if file.tell() == 0:
                raise EOFError("it is empty, and not even an empty gzip file")
    except zlib.error as error:
        raise UnreadableFile(location, error) from error


def read_json_lines(file: IO[bytes] | gzip.GzipFile, location: str) -> Iterator[RawRows]:
    """Read an open `.jsonl`, block by block.

    Raises:
        UnreadableFile: A line is too long.
    """
    for read in read_blocks(file, location):
        block = plain_lines(read)
        yield parse_json_fast(block) or _parse_json_lines(block)


def plain_lines(read: Block) -> Block:
    """The lines of a block without a byte order mark at the file's start, ended by LF where a CR did alone."""
    data = read.data.removeprefix(BOM) if read.first == 1 else read.data
    if read.crs:  # No JSON text has a CR but between its tokens, and there it ends a line.
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return Block(data, read.first, read.lines)


def parse_json_fast(block: Block) -> RawRows | None:
    """Parse a block with Arrow; None if a line may hold anything but one object: then it is parsed line by line."""
    data, lines = block.data, block.lines
    starts = data.startswith(b"{") + data.count(b"\n{")
    ends = data.count(b"}\n") + (data.count(b"}\r\n") if b"\r" in data else 0)
    if not starts == ends == lines:
        return None
    try:
        data.decode()
        table = pa.json.read_json(
            pa.BufferReader(data),
            pa.json.ReadOptions(block_size=len(data) + 1, use_threads=len(data) > _SMALL_BYTES),
            pa.json.ParseOptions(explicit_schema=RAW, unexpected_field_behavior="ignore"),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None
    if table.num_rows != lines:
        return None
    return RawRows(table.select(RAW.names).combine_chunks(), np.arange(block.first, block.first + lines), [])


def _parse_json_lines(block: Block) -> RawRows:
    """Parse a block line by line, with a reason for each line that holds no row."""
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    broken: list[tuple[int, str]] = []
    for number, line in enumerate(block.split_lines(), block.first):
        if not line.strip():
            continue
        row, why = _parse_json_line(line)
        if row is None:
            broken.append((number, why))
        else:
            rows.append(row)
            numbers.append(number)
    return RawRows(pa.Table.from_pylist(rows, schema=RAW), np.array(numbers, np.int64), broken)


def _parse_json_line(line: bytes) -> tuple[dict[str, Any] | None, str]:
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return None, NOT_UTF8
    try:
        value = json.loads(text, object_pairs_hook=tuple, parse_int=_whole)
    except ValueError:
        return None, NOT_JSON
    except RecursionError:
        return _parse_deep(line)
    if not isinstance(value, tuple):  # which stands for an object; an array is a list
        return None, NOT_JSON
    fields = dict(value)
    if len(fields) < len(value) and not _are_once(name for name, _ in value):
        return None, TWICE
    row = {name: fields.get(name) for name in RAW.names}
    for name in ("user_id", "page_id", "action", "gender", "timestamp"):
        field = row[name]
        if field is not None and not isinstance(field, str):
            return None, not_a_string(name)
        if field is not None and any("\ud800" <= char <= "\udfff" for char in field):
            return None, NOT_UTF8  # an escaped half of a surrogate pair is not a character
    count = row["count"]
    if count is not None and (type(count) is not int or not 1 <= count < 2**63):
        row["count"] = 0  # not a reason yet: a rule that comes before may be broken as well
    return row, ""


def _parse_deep(line: bytes) -> tuple[dict[str, Any] | None, str]:
    """Parse a line with Arrow, which reads any depth, as it does in a block where every line is an object."""
    alone = parse_json_fast(Block(line.strip(b" \t\r\n") + b"\n", 1, 1))
    return (None, NOT_JSON) if alone is None else (alone.table.to_pylist()[0], "")


def _whole(digits: str) -> int:
    """A whole number; 0, which breaks the rule for counts, for one of so many digits that Python reads none of them."""
    return int(digits) if len(digits) <= _DIGITS else 0


def _are_once(keys: Iterable[str]) -> bool:
    """Whether no field of a raw action is there twice. Which one counts is not said, so none does."""
    known = [key for key in keys if key in RAW.names]
    return len(set(known)) == len(known)
