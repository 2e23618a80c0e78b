"""Raw audience actions: files of a month in, checked rows out, and a record of every row that breaks a rule."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from spark_jobs import storage
from spark_jobs.config import ACTIONS
from spark_jobs.errors import InputError, UnreadableFile

_BLOCK = 8 << 20  # bytes of text that are parsed at a time
_BATCH = 1 << 17  # Parquet rows that are read at a time

RAW = pa.schema(
    [
        ("user_id", pa.string()),
        ("page_id", pa.string()),
        ("action", pa.string()),
        ("gender", pa.string()),
        ("count", pa.int64()),
        ("timestamp", pa.string()),
    ]
)
ACTION = pa.schema(
    [
        ("user_id", pa.string()),
        ("page_id", pa.string()),
        ("gender", pa.string()),
        ("action", pa.int8()),  # its place in ACTIONS
        ("count", pa.int64()),
    ]
)
REJECT = pa.schema([("file", pa.string()), ("line", pa.int64()), ("reason", pa.string())])

NO_USER = "user_id is missing"
NO_PAGE = "page_id is missing"
BAD_ACTION = f"action is none of {', '.join(ACTIONS)}"
BAD_COUNT = "count is no whole number from 1 to 2^63-1"
BAD_TIMESTAMP = "timestamp is not ISO 8601"
OTHER_MONTH = "timestamp is outside the month"
NOT_UTF8 = "line is not UTF-8"
NOT_JSON = "line is no JSON object"
NOT_CSV = "line has another number of fields than the header"


def no_string(field: str) -> str:
    """The reason to reject a row whose `field` is of another type."""
    return f"{field} is no string"


@dataclass(frozen=True)
class Month:
    """A calendar month in UTC, from the start of its first day to that of the next month's."""

    start: datetime
    end: datetime

    @classmethod
    def parse(cls, key: str) -> "Month":
        """The month of a partition key.

        Raises:
            InputError: The key is not of the form YYYY-MM.
        """
        try:
            start = datetime.strptime(key, "%Y-%m").replace(tzinfo=timezone.utc)
        except ValueError:
            raise InputError(f"{key!r} is no month; one is named YYYY-MM, such as 2024-01.") from None
        end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
        return cls(start, end)


@dataclass(frozen=True)
class Checked:
    """Some rows of a file: those accepted (schema ACTION) and those rejected (schema REJECT)."""

    accepted: pa.RecordBatch
    rejected: pa.RecordBatch


def read_file(location: str, month: Month) -> Iterator[Checked]:
    """Read and check one raw file of any format.

    Raises:
        UnreadableFile: It can't be read, or lacks a column.
    """
    read = _reader(location)
    try:
        with storage.at(location).open("rb") as file:
            for rows in read(file):
                yield _check(rows, location, month)
    except UnreadableFile:
        raise
    except (OSError, EOFError, zlib.error, pa.ArrowException, UnicodeDecodeError) as error:
        raise UnreadableFile(location, error) from error


def check_file_type(location: str) -> None:
    """Check that a file has one of the endings of raw data.

    Raises:
        UnreadableFile: It has not.
    """
    _reader(location)


@dataclass
class _Rows:
    """Rows as read (schema RAW) with their lines, and the lines that hold no row, with the reason."""

    table: pa.Table
    lines: np.ndarray  # int64, the 1-based line (Parquet: row) of each row in `table`
    broken: list[tuple[int, str]]


def _reader(location: str) -> Callable[[IO[bytes]], Iterator[_Rows]]:
    readers: dict[str, Callable[[IO[bytes]], Iterator[_Rows]]] = {
        ".parquet": lambda file: _read_parquet(file, location),
        ".jsonl": _read_json_lines,
        ".jsonl.gz": _read_gzipped_json_lines,
        ".csv": lambda file: _read_csv(file, location),
    }
    for ending, read in readers.items():
        if location.endswith(ending):
            return read
    raise UnreadableFile(location, f"it is no raw data file, which end in {', '.join(readers)}")


# --- the rules -------------------------------------------------------------------------------------


def _check(rows: _Rows, location: str, month: Month) -> Checked:
    table = rows.table
    count = table["count"].combine_chunks().fill_null(1)
    action = pc.index_in(table["action"].combine_chunks(), value_set=pa.array(ACTIONS))
    inside, parsed = _timestamps_in(table["timestamp"].combine_chunks(), month)
    # The first rule that a row breaks is the reason it is rejected for.
    rules = [
        (NO_USER, _is_missing(table["user_id"])),
        (NO_PAGE, _is_missing(table["page_id"])),
        (BAD_ACTION, action.is_null().to_numpy(zero_copy_only=False)),
        (BAD_COUNT, count.to_numpy(zero_copy_only=False) < 1),
        (BAD_TIMESTAMP, ~parsed),
        (OTHER_MONTH, ~inside),
    ]
    reason = np.full(table.num_rows, -1)
    for number, (_, breaks) in reversed(list(enumerate(rules))):
        reason[breaks] = number
    good = reason < 0
    gender = table["gender"].combine_chunks()
    gender = pc.if_else(pc.equal(pc.fill_null(gender, ""), ""), "0", gender)
    accepted = pa.RecordBatch.from_arrays(
        [
            table["user_id"].combine_chunks(),
            table["page_id"].combine_chunks(),
            gender,
            action.cast(pa.int8()),
            count,
        ],
        schema=ACTION,
    )
    bad = [(int(line), rules[number][0]) for line, number in zip(rows.lines[~good], reason[~good], strict=True)]
    bad = sorted(bad + rows.broken)
    rejected = pa.RecordBatch.from_pydict(
        {"file": [location] * len(bad), "line": [line for line, _ in bad], "reason": [why for _, why in bad]},
        schema=REJECT,
    )
    return Checked(accepted if good.all() else accepted.filter(pa.array(good)), rejected)


def _is_missing(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(pc.equal(pc.fill_null(column, ""), "").combine_chunks().to_numpy(zero_copy_only=False))


def _timestamps_in(column: pa.Array, month: Month) -> tuple[np.ndarray, np.ndarray]:
    """For each timestamp whether it lies in the month, and whether it is one; both hold where none is given."""
    given = column.is_valid().to_numpy(zero_copy_only=False)
    utc = pa.timestamp("us", tz="UTC")
    parsed: pa.Array
    try:
        parsed = pc.cast(column, utc)  # all with a zone
    except pa.ArrowInvalid:
        parsed = pa.array([_parse_timestamp(text) for text in column.to_pylist()], utc)
    valid = parsed.is_valid().to_numpy(zero_copy_only=False)
    inside = pc.and_(pc.greater_equal(parsed, pa.scalar(month.start, utc)), pc.less(parsed, pa.scalar(month.end, utc)))
    is_inside = pc.fill_null(inside, False).to_numpy(zero_copy_only=False)
    return is_inside | ~given, valid | ~given


def _parse_timestamp(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        # Python 3.10 does not read a final Z.
        value = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith(("Z", "z")) else text)
        return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


# --- Parquet ---------------------------------------------------------------------------------------


def _read_parquet(file: IO[bytes], location: str) -> Iterator[_Rows]:
    parquet = pq.ParquetFile(file)
    names = set(parquet.schema_arrow.names)
    _require_columns(names, location)
    line = 1
    for batch in parquet.iter_batches(batch_size=_BATCH, columns=[name for name in RAW.names if name in names]):
        columns = [
            _as_raw(batch.column(field.name), field, location)
            if field.name in names
            else pa.nulls(batch.num_rows, field.type)
            for field in RAW
        ]
        lines = np.arange(line, line + batch.num_rows)
        line += batch.num_rows
        yield _Rows(pa.Table.from_arrays(columns, schema=RAW), lines, [])


def _as_raw(column: pa.Array, field: pa.Field, location: str) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    fits = {
        "count": pa.types.is_integer(kind),
        "timestamp": pa.types.is_timestamp(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind),
    }.get(field.name, pa.types.is_string(kind) or pa.types.is_large_string(kind))
    if not fits and not pa.types.is_null(kind):
        raise UnreadableFile(location, f"its column {field.name} is of type {kind}, not {field.type}")
    if pa.types.is_timestamp(kind):
        # A timestamp without a zone is UTC, by the contract.
        return pc.strftime(column.cast(pa.timestamp("us", tz="UTC")), format="%Y-%m-%dT%H:%M:%SZ")
    if pa.types.is_unsigned_integer(kind):
        # One beyond 64 bits with a sign is no count; 0 breaks the rule for it.
        column = (
            pc.if_else(pc.less_equal(column, 2**63 - 1), column, pa.scalar(0, kind)) if kind == pa.uint64() else column
        )
    return column.cast(field.type)


def _require_columns(names: set[str], location: str) -> None:
    missing = [name for name in ("user_id", "page_id", "action") if name not in names]
    if missing:
        raise UnreadableFile(location, f"it has no column {', '.join(missing)}")


# --- text ------------------------------------------------------------------------------------------


def _read_gzipped_json_lines(file: IO[bytes]) -> Iterator[_Rows]:
    with gzip.open(file) as text:
        yield from _read_json_lines(text)


def _read_json_lines(file: IO[bytes] | gzip.GzipFile) -> Iterator[_Rows]:
    for block, first, lines in _blocks(file):
        yield _parse_json_fast(block, first, lines) or _parse_json_lines(block, first)


def _blocks(file: IO[bytes] | gzip.GzipFile, first: int = 1) -> Iterator[tuple[bytes, int, int]]:
    """Cut text into blocks of whole lines: the bytes, the number of the first line, and how many there are."""
    rest = b""
    while chunk := file.read(_BLOCK):
        cut = chunk.rfind(b"\n") + 1
        if not cut:
            rest += chunk
            continue
        block, rest = rest + chunk[:cut], chunk[cut:]
        lines = block.count(b"\n")
        yield block, first, lines
        first += lines
    if rest:
        yield rest + b"\n", first, 1


def _parse_json_fast(block: bytes, first: int, lines: int) -> _Rows | None:
    """Parse a block with Arrow; None where that does not give a row a line, so that each line must be looked at."""
    try:
        block.decode()
        table = pa.json.read_json(
            pa.BufferReader(block),
            pa.json.ReadOptions(block_size=len(block) + 1),
            pa.json.ParseOptions(explicit_schema=RAW, unexpected_field_behavior="ignore"),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None
    if table.num_rows != lines:
        return None
    return _Rows(table.select(RAW.names).combine_chunks(), np.arange(first, first + lines), [])


def _parse_json_lines(block: bytes, first: int) -> _Rows:
    """Parse a block line by line, telling apart what is wrong with each."""
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    broken: list[tuple[int, str]] = []
    for number, line in enumerate(block.split(b"\n")[:-1], first):
        if not line.strip():
            continue
        row, why = _parse_json_line(line)
        if row is None:
            broken.append((number, why))
        else:
            rows.append(row)
            numbers.append(number)
    return _Rows(pa.Table.from_pylist(rows, schema=RAW), np.array(numbers, np.int64), broken)


def _parse_json_line(line: bytes) -> tuple[dict[str, Any] | None, str]:
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return None, NOT_UTF8
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None, NOT_JSON
    if not isinstance(value, dict):
        return None, NOT_JSON
    row = {name: value.get(name) for name in RAW.names}
    for name in ("user_id", "page_id", "action", "gender", "timestamp"):
        field = row[name]
        if field is not None and not isinstance(field, str):
            return None, no_string(name)
        if field is not None and any("\ud800" <= char <= "\udfff" for char in field):
            return None, NOT_UTF8  # an escaped half of a surrogate pair is no character
    count = row["count"]
    if count is not None and (type(count) is not int or not 1 <= count < 2**63):
        return None, BAD_COUNT
    return row, ""


def _read_csv(file: IO[bytes], location: str) -> Iterator[_Rows]:
    """A record is a line: a quoted field may hold commas and quotes, and no line break."""
    header = file.readline().removeprefix(b"\xef\xbb\xbf").decode()
    names = next(csv.reader([header]), [])
    _require_columns(set(names), location)
    if len(set(names)) < len(names):
        raise UnreadableFile(location, "its header names a column twice")
    for block, first, lines in _blocks(file, first=2):
        yield _parse_csv_fast(block, names, first, lines) or _parse_csv_lines(block, names, first)


def _parse_csv_fast(block: bytes, names: list[str], first: int, lines: int) -> _Rows | None:
    known = [name for name in RAW.names if name in names]
    try:
        block.decode()
        table = pa.csv.read_csv(
            pa.BufferReader(block),
            pa.csv.ReadOptions(column_names=names, block_size=len(block) + 1, use_threads=False),
            pa.csv.ParseOptions(ignore_empty_lines=False),
            pa.csv.ConvertOptions(
                include_columns=known,
                column_types={name: RAW.field(name).type for name in known},
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None
    if table.num_rows != lines:
        return None
    columns = [
        table[field.name].combine_chunks() if field.name in known else pa.nulls(lines, field.type) for field in RAW
    ]
    return _Rows(pa.Table.from_arrays(columns, schema=RAW), np.arange(first, first + lines), [])


def _parse_csv_lines(block: bytes, names: list[str], first: int) -> _Rows:
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    broken: list[tuple[int, str]] = []
    for number, line in enumerate(block.split(b"\n")[:-1], first):
        if not line.strip():
            continue
        try:
            fields = next(csv.reader(io.StringIO(line.decode().rstrip("\r")), strict=True))
        except UnicodeDecodeError:
            broken.append((number, NOT_UTF8))
            continue
        except (csv.Error, StopIteration):
            broken.append((number, NOT_CSV))
            continue
        if len(fields) != len(names):
            broken.append((number, NOT_CSV))
            continue
        value = dict(zip(names, fields, strict=True))
        row: dict[str, Any] = {name: value.get(name) or None for name in RAW.names}
        count = row["count"]
        if count is not None:
            whole = count.isascii() and count.isdigit() and len(count) <= 19
            row["count"] = int(count) if whole and int(count) < 2**63 else 0
        rows.append(row)
        numbers.append(number)
    return _Rows(pa.Table.from_pylist(rows, schema=RAW), np.array(numbers, np.int64), broken)
