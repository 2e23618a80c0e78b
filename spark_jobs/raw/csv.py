"""Raw actions as CSV with a header."""

import csv
import io
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from spark_jobs.errors import UnreadableFile
from spark_jobs.raw.rules import NOT_CSV, NOT_UTF8, RAW, RawRows, require_columns
from spark_jobs.raw.text import BOM, MAX_LINE_BYTES, Block, read_blocks

_RECORDS = 1 << 19  # that are parsed at a time
_LINES_A_RECORD = 100  # most lines that a record may have
_EMPTY_LINES = (b"\n\n", b"\n\r", b"\r\r")  # how an empty line after another looks; the last where a CR ends lines

# The module has a limit for fields and Arrow has none, and a field's neighbours decide which of them parses it.
csv.field_size_limit(MAX_LINE_BYTES)


def read_csv(file: IO[bytes], location: str) -> Iterator[RawRows]:
    """Read an open `.csv`, block by block.

    Raises:
        UnreadableFile: Its header is not one, lacks a column, or names one twice; or a line is too long.
    """
    blocks = read_blocks(file, location)
    first = next(blocks, Block(b"\n", 1, 1))
    header, beside = first.split_first()
    names = _parse_header(header, location)
    blocks = itertools.chain([beside] if beside.lines else [], blocks)
    for block in blocks:
        rows = _parse_fast(block, names)
        if rows is None:
            # A quoted field may go on in the next block, so the rest of the file is read record by record.
            yield from _parse_records(itertools.chain([block], blocks), names, block.first)
            return
        yield rows


def split_header(whole: Block) -> tuple[bytes, Block]:
    """The header of a file that is one block, and its other lines. Files of the same header can be read together."""
    return whole.split_first()


def parse_bodies(header: bytes, lines: Block) -> RawRows | None:
    """Parse lines of any number of files of the same header; None if one may hold anything but one record.

    Raises:
        UnreadableFile: The header is not one; the error names no file.
    """
    return _parse_fast(lines, _parse_header(header, "")) if lines.lines else None


def _parse_header(line: bytes, location: str) -> list[str]:
    try:
        header = line.removeprefix(BOM).decode().rstrip("\r\n")
        names = next(csv.reader([header], strict=True), [])
    except UnicodeDecodeError as error:
        raise UnreadableFile(location, "its header is not UTF-8") from error
    except csv.Error as error:
        raise UnreadableFile(location, f"its header is not CSV: {error}") from error
    require_columns(set(names), location)
    if len(set(names)) < len(names):
        raise UnreadableFile(location, "its header names a column twice")
    return names


def _parse_fast(block: Block, names: list[str]) -> RawRows | None:
    """Parse a block with Arrow, which takes the same line ends; None if a line may hold anything but one record."""
    data = block.data
    # Arrow drops a byte order mark at the start of what it is given, where it may be part of a field.
    if data.startswith((b"\n", b"\r", BOM)) or any(empty in data for empty in _EMPTY_LINES[: 3 if block.crs else 2]):
        return None
    known = [name for name in RAW.names if name in names]
    try:
        text = data.decode()
        if '"' in text:
            # Arrow accepts `"a"b` as ab. Python's parser, which reads records, must accept the block as well.
            deque(csv.reader(io.StringIO(text, newline=""), strict=True), maxlen=0)
        table = pa.csv.read_csv(
            pa.BufferReader(data),
            pa.csv.ReadOptions(column_names=names, block_size=len(data) + 1, use_threads=False),
            pa.csv.ParseOptions(ignore_empty_lines=False),
            pa.csv.ConvertOptions(
                include_columns=known,
                column_types=dict.fromkeys(known, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError, csv.Error):
        return None
    if table.num_rows != block.lines:
        return None
    numbers = np.arange(block.first, block.first + block.lines)
    return _to_rows({name: table[name].combine_chunks() for name in known}, numbers, [])


def _parse_records(blocks: Iterable[Block], names: list[str], first: int) -> Iterator[RawRows]:
    """Parse record by record, with a reason for each line that holds no row."""
    lines = itertools.chain.from_iterable(block.split_lines() for block in blocks)
    records = _records(lines, len(names), first)
    while batch := list(itertools.islice(records, _RECORDS)):
        good = [(number, fields) for number, fields, _ in batch if fields is not None]
        columns = {
            name: pa.array([fields[names.index(name)] or None for _, fields in good], pa.string())
            for name in RAW.names
            if name in names
        }
        broken = [(number, why) for number, fields, why in batch if fields is None]
        yield _to_rows(columns, np.array([number for number, _ in good], np.int64), broken)


def _records(lines: Iterator[bytes], width: int, first: int) -> Iterator[tuple[int, list[str] | None, str]]:
    """The records of a CSV: the line each starts on, its fields, or what is wrong with that line.

    A quoted field may hold line breaks. Where a quote is not closed within `_LINES_A_RECORD` lines (and as many bytes
    as a line may have) in a way that gives the right number of fields, only the line with the quote is broken, and the
    next one starts a record.
    """
    number, waiting = first, deque(itertools.islice(lines, 1))
    while waiting:
        taken, fields, why = _next_record(waiting, lines, width)
        for _ in range(taken):
            waiting.popleft()
        if fields is not None or why:
            yield number, fields, why
        number += taken
        if not waiting:
            waiting.extend(itertools.islice(lines, 1))


def _next_record(waiting: "deque[bytes]", lines: Iterator[bytes], width: int) -> tuple[int, list[str] | None, str]:
    """The record at the front of `waiting`, which grows from `lines`: how many lines, its fields, what is wrong."""
    if not waiting[0].strip():
        return 1, None, ""
    text, size = "", 0
    for taken in range(1, _LINES_A_RECORD + 1):
        if taken > len(waiting):
            line = next(lines, None)
            if line is None:
                break
            waiting.append(line)
        size += len(waiting[taken - 1])
        if taken > 1 and size > MAX_LINE_BYTES:
            break
        try:
            text += waiting[taken - 1].decode()
        except UnicodeDecodeError:
            return 1, None, NOT_UTF8 if taken == 1 else NOT_CSV
        try:
            # Before Python 3.11 the module refuses NUL. Half a surrogate pair, which UTF-8 never has, stands for it.
            record = io.StringIO(text.rstrip("\r\n").replace("\0", "\udc00"), newline="")
            fields = [field.replace("\udc00", "\0") for field in next(csv.reader(record, strict=True))]
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                continue  # within an open quote
            break
        if len(fields) == width:
            return taken, fields, ""
        break
    return 1, None, NOT_CSV


def _to_rows(columns: dict[str, pa.Array], lines: np.ndarray, broken: list[tuple[int, str]]) -> RawRows:
    """Rows of RAW of a CSV's columns, all of them text."""
    length = len(lines)
    arrays = {field.name: columns.get(field.name, pa.nulls(length, pa.string())) for field in RAW}
    arrays["count"] = _parse_counts(arrays["count"])
    return RawRows(pa.Table.from_arrays(list(arrays.values()), schema=RAW), lines, broken)


def _parse_counts(text: pa.StringArray) -> pa.Int64Array:
    """Whole numbers of 64 bits; 0, which breaks the rule for counts, for other texts."""
    whole = pc.match_substring_regex(text, "^[0-9]{1,19}$")
    # Of 19 digits, those up to 2^63-1: texts of the same length compare as the numbers do.
    small = pc.or_(pc.less(pc.binary_length(text), 19), pc.less_equal(text, str(2**63 - 1)))
    return pc.if_else(pc.and_(whole, small), text, pc.if_else(text.is_valid(), "0", None)).cast(pa.int64())
