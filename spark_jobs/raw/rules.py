"""Raw audience actions: files of a month in, checked rows out, and a record of every row that breaks a rule."""

import csv
import gzip
import io
import itertools
import json
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
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
from spark_jobs.outputs.schemas import AT_LEAST_1, Table

_BLOCK = 8 << 20  # bytes of text that are parsed at a time
_BATCH = 1 << 19  # Parquet rows, or records of a CSV, that are read at a time
_LINES_A_RECORD = 100  # most lines that a record of a CSV may have
_OFTEN = ("page_id", "action", "gender")  # columns of texts that are there often
_BOM = b"\xef\xbb\xbf"

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
# Texts that are there often travel as codes and a dictionary, and each is looked at once. Users are not: among the rows
# that are read at a time, most are there once or twice.
OFTEN = pa.dictionary(pa.int32(), pa.string())
ACTION = pa.schema(
    [
        ("user_id", pa.string()),
        ("page_id", OFTEN),
        ("gender", OFTEN),
        ("action", pa.int8()),  # its place in ACTIONS
        ("count", pa.int64()),
    ]
)
REJECT = pa.schema([("file", pa.string()), ("line", pa.int64()), ("reason", pa.string())])

ACCEPTED = Table(
    "accepted raw actions",
    ACTION,
    filled=("user_id", "page_id", "gender"),
    ranges={"action": (0, len(ACTIONS) - 1), "count": AT_LEAST_1},
)
REJECTS = Table("rejects", REJECT, filled=("file", "reason"), ranges={"line": AT_LEAST_1}, key="line")

NO_USER = "user_id is missing"
NO_PAGE = "page_id is missing"
BAD_ACTION = f"action is none of {', '.join(ACTIONS)}"
BAD_COUNT = "count is no whole number from 1 to 2^63-1"
BAD_TIMESTAMP = "timestamp is not ISO 8601"
OTHER_MONTH = "timestamp is outside the month"
NOT_UTF8 = "line is not UTF-8"
NOT_JSON = "line is no JSON object"
NOT_CSV = "line is no record with as many fields as the header"


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
            end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
        except ValueError:
            raise InputError(f"{key!r} is no month; one is named YYYY-MM, such as 2024-01.") from None
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
    except (OSError, EOFError, zlib.error, pa.ArrowException, UnicodeError, csv.Error, KeyError) as error:
        raise UnreadableFile(location, error) from error


def check_file_type(location: str) -> None:
    """Check that a file has one of the endings of raw data.

    Raises:
        UnreadableFile: It has not.
    """
    _reader(location)


@dataclass
class _Rows:
    """Rows as read with their lines, and the lines that hold no row, with the reason.

    The columns are RAW's, but that texts may be dictionary-encoded, and timestamps parsed (to seconds, UTC).
    """

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
    user = table["user_id"].combine_chunks()
    page, action, gender = (_encoded(table[name]) for name in _OFTEN)
    count = table["count"].combine_chunks().fill_null(1)
    place = _by_code(action, pc.fill_null(pc.index_in(action.dictionary, value_set=pa.array(ACTIONS)), -1), -1)
    inside, parsed = _timestamps_in(table["timestamp"].combine_chunks(), month)
    # The first rule that a row breaks is the reason it is rejected for.
    rules = [
        (NO_USER, pc.equal(pc.fill_null(user, ""), "").to_numpy(zero_copy_only=False)),
        (NO_PAGE, _by_code(page, pc.equal(page.dictionary, ""), True)),
        (BAD_ACTION, place < 0),
        (BAD_COUNT, count.to_numpy(zero_copy_only=False) < 1),
        (BAD_TIMESTAMP, ~parsed),
        (OTHER_MONTH, ~inside),
    ]
    reason = np.full(table.num_rows, -1)
    for number, (_, breaks) in reversed(list(enumerate(rules))):
        reason[breaks] = number
    good = reason < 0
    accepted = pa.RecordBatch.from_arrays(
        [user, page, _known_or_0(gender), pa.array(place.astype(np.int8)), count], schema=ACTION
    )
    bad = [(int(line), rules[number][0]) for line, number in zip(rows.lines[~good], reason[~good], strict=True)]
    bad = sorted(bad + rows.broken)
    rejected = pa.RecordBatch.from_pydict(
        {"file": [location] * len(bad), "line": [line for line, _ in bad], "reason": [why for _, why in bad]},
        schema=REJECT,
    )
    return Checked(accepted if good.all() else accepted.filter(pa.array(good)), rejected)


def _encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """A text column as codes and a dictionary that holds no null."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    whole = column.unify_dictionaries().combine_chunks()
    return whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole


def _by_code(column: pa.DictionaryArray, of_value: pa.Array, of_null: Any) -> np.ndarray:
    """For each row what holds for its value, or for none."""
    by_code = np.append(of_value.to_numpy(zero_copy_only=False), of_null)
    return np.asarray(by_code[pc.fill_null(column.indices, len(by_code) - 1).to_numpy()])


def _known_or_0(gender: pa.DictionaryArray) -> pa.DictionaryArray:
    """Genders with `0` for those that are missing or empty."""
    values = pa.concat_arrays([gender.dictionary, pa.array(["0"])])
    values = pc.if_else(pc.equal(values, ""), "0", values)
    return pa.DictionaryArray.from_arrays(pc.fill_null(gender.indices, len(values) - 1), values)


_ISO_8601 = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})"
    r"(?:[Tt ](\d{2}):(\d{2})(?::(\d{2})(?:[.,]\d{1,9})?)?(?:[Zz]|([+-])(\d{2}):?(\d{2})?)?)?",
    re.ASCII,
)
# What is left of most when the part of a second is cut off, and zero offsets are written as Z.
_TO_SECONDS = r"^(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:[.,]\d{1,9})?(?:[Zz]|[+-]00(?::?00)?)?$"
_SECONDS = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$"
_UTC = pa.timestamp("s", tz="UTC")


def _timestamps_in(column: pa.Array, month: Month) -> tuple[np.ndarray, np.ndarray]:
    """For each timestamp whether it lies in the month, and whether it is one; both hold where none is given."""
    given = column.is_valid().to_numpy(zero_copy_only=False)
    parsed = _parse_timestamps(column) if pa.types.is_string(column.type) else column
    valid = parsed.is_valid().to_numpy(zero_copy_only=False)
    inside = pc.and_(
        pc.greater_equal(parsed, pa.scalar(month.start, _UTC)), pc.less(parsed, pa.scalar(month.end, _UTC))
    )
    is_inside = pc.fill_null(inside, False).to_numpy(zero_copy_only=False)
    return is_inside | ~given, valid | ~given


def _parse_timestamps(column: pa.Array) -> pa.Array:
    """Timestamps to the second, null where a text is none."""
    text = pc.replace_substring_regex(column, _TO_SECONDS, r"\1T\2Z")
    usual = pc.fill_null(pc.match_substring_regex(text, _SECONDS), True)
    if pc.all(usual).as_py() is not False:
        try:
            return pc.cast(text, _UTC)
        except pa.ArrowInvalid:  # such as the 30th of February
            pass
    return pa.array([None if value is None else parse_timestamp(value) for value in column.to_pylist()], _UTC)


def parse_timestamp(text: str) -> datetime | None:
    """A date, or a date and time, as ISO 8601 has it (extended format), to the second; UTC where no zone is given.

    None where it is none. The same on every version of Python, whose `fromisoformat` differ.
    """
    match = _ISO_8601.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, sign, offset_hour, offset_minute = match.groups(default="0")
    try:
        value = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), tzinfo=timezone.utc)
        offset = timedelta(hours=int(offset_hour), minutes=int(offset_minute))
        return value + offset if sign == "-" else value - offset
    except (ValueError, OverflowError):
        return None


# --- Parquet ---------------------------------------------------------------------------------------


def _read_parquet(file: IO[bytes], location: str) -> Iterator[_Rows]:
    footer = pq.read_metadata(file)
    names = set(footer.schema.to_arrow_schema().names)
    _require_columns(names, location)
    parquet = pq.ParquetFile(file, metadata=footer, read_dictionary=[name for name in _OFTEN if name in names])
    line = 1
    wanted = [name for name in RAW.names if name in names]
    for batch in parquet.iter_batches(batch_size=_BATCH, columns=wanted, use_threads=False):  # the tasks are threads
        columns = [
            _as_raw(batch.column(field.name), field, location)
            if field.name in names
            else pa.nulls(batch.num_rows, field.type)
            for field in RAW
        ]
        lines = np.arange(line, line + batch.num_rows)
        line += batch.num_rows
        good = np.logical_and.reduce([_is_utf8(column) for column in columns])
        if not good.all():
            columns = [_mended(column).filter(pa.array(good)) for column in columns]
        yield _Rows(pa.table(columns, RAW.names), lines[good], [(int(broken), NOT_UTF8) for broken in lines[~good]])


def _is_utf8(column: pa.Array) -> np.ndarray:
    """Of each row whether its text, if it is one, is UTF-8."""
    if pa.types.is_dictionary(column.type):
        return _by_code(column, pa.array(_is_utf8(column.dictionary)), True)
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return np.array([_decodes(value) for value in column.cast(pa.binary()).to_pylist()], bool)
    return np.ones(len(column), bool)


def _mended(column: pa.Array) -> pa.Array:
    """The column with empty texts for those in its dictionary that are not UTF-8, for all of them are looked at."""
    if not pa.types.is_dictionary(column.type):
        return column
    values = column.dictionary
    values = pc.if_else(pa.array(_is_utf8(values)), values, "")
    return pa.DictionaryArray.from_arrays(column.indices, values)


def _decodes(value: bytes | None) -> bool:
    try:
        (value or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def _as_raw(column: pa.Array, field: pa.Field, location: str) -> pa.Array:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    fits = {
        "count": pa.types.is_integer(kind),
        "timestamp": pa.types.is_timestamp(kind) or is_text,
    }.get(field.name, is_text)
    if not fits and not pa.types.is_null(kind):
        raise UnreadableFile(location, f"its column {field.name} is of type {kind}, not {field.type}")
    if pa.types.is_dictionary(column.type):
        if is_text and field.name != "timestamp":
            values = column.dictionary.cast(field.type)
            return pa.DictionaryArray.from_arrays(column.indices.cast(pa.int32()), values)
        column = column.dictionary_decode()
    if pa.types.is_timestamp(kind):
        # A timestamp without a zone is UTC, by the contract.
        return column.cast(pa.timestamp("s", tz=kind.tz or "UTC"), safe=False).cast(_UTC)
    if kind == pa.uint64():
        # One beyond 64 bits with a sign is no count; 0 breaks the rule for it.
        largest = pa.scalar(2**63 - 1, pa.uint64())
        column = pc.if_else(pc.less_equal(column, largest), column, pa.scalar(0, pa.uint64()))
    return column.cast(field.type)


def _require_columns(names: set[str], location: str) -> None:
    missing = [name for name in ("user_id", "page_id", "action") if name not in names]
    if missing:
        raise UnreadableFile(location, f"it has no column {', '.join(missing)}")


# --- text ------------------------------------------------------------------------------------------


def _read_gzipped_json_lines(file: IO[bytes]) -> Iterator[_Rows]:
    with gzip.open(file) as text:
        yield from _read_json_lines(text)
        if file.tell() == 0:
            raise EOFError("it is empty, and not even an empty gzip file")


def _read_json_lines(file: IO[bytes] | gzip.GzipFile) -> Iterator[_Rows]:
    for block, first, lines in _blocks(file):
        text = block.removeprefix(_BOM) if first == 1 else block
        yield _parse_json_fast(text, first, lines) or _parse_json_lines(text, first)


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
    """Parse a block with Arrow; None where a line may hold anything but one object, so that each must be looked at."""
    starts = block.startswith(b"{") + block.count(b"\n{")
    ends = block.count(b"}\n") + block.count(b"}\r\n")
    if not starts == ends == lines:
        return None
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
        row["count"] = 0  # breaks the rule for it, and perhaps the row breaks one that comes before
    return row, ""


def _read_csv(file: IO[bytes], location: str) -> Iterator[_Rows]:
    header = file.readline().removeprefix(_BOM).decode()
    names = next(csv.reader([header], strict=True), [])
    _require_columns(set(names), location)
    if len(set(names)) < len(names):
        raise UnreadableFile(location, "its header names a column twice")
    blocks = _blocks(file, first=2)
    for block, first, lines in blocks:
        rows = _parse_csv_fast(block, names, first, lines)
        if rows is None:
            # A quoted field may go on in the next block, so the rest of the file is read record by record.
            rest = itertools.chain([block], (block for block, _, _ in blocks))
            yield from _parse_csv_records(rest, names, first)
            return
        yield rows


def _parse_csv_fast(block: bytes, names: list[str], first: int, lines: int) -> _Rows | None:
    """Parse a block with Arrow; None where a line may hold anything but one record."""
    if block.startswith((b"\n", b"\r\n")) or b"\n\n" in block or b"\n\r\n" in block:
        return None
    known = [name for name in RAW.names if name in names]
    try:
        text = block.decode()
        if '"' in text:
            # Arrow takes `"a"b` for ab. So Python's parser, that of records, must find nothing wrong either.
            deque(csv.reader(io.StringIO(text, newline=""), strict=True), maxlen=0)
        table = pa.csv.read_csv(
            pa.BufferReader(block),
            pa.csv.ReadOptions(column_names=names, block_size=len(block) + 1, use_threads=False),
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
    if table.num_rows != lines:
        return None
    return _csv_rows({name: table[name].combine_chunks() for name in known}, np.arange(first, first + lines), [])


def _parse_csv_records(blocks: Iterable[bytes], names: list[str], first: int) -> Iterator[_Rows]:
    """Parse record by record, telling apart what is wrong with each."""
    lines = itertools.chain.from_iterable(block.split(b"\n")[:-1] for block in blocks)
    records = _csv_records(lines, len(names), first)
    while batch := list(itertools.islice(records, _BATCH)):
        good = [(number, fields) for number, fields, _ in batch if fields is not None]
        columns = {
            name: pa.array([fields[names.index(name)] or None for _, fields in good], pa.string())
            for name in RAW.names
            if name in names
        }
        broken = [(number, why) for number, fields, why in batch if fields is None]
        yield _csv_rows(columns, np.array([number for number, _ in good], np.int64), broken)


def _csv_records(lines: Iterator[bytes], width: int, first: int) -> Iterator[tuple[int, list[str] | None, str]]:
    """The records of a CSV: the line each starts on, its fields, or what is wrong with that line.

    A quoted field may hold line breaks. Where a quote is not closed within `_LINES_A_RECORD` lines in a way that gives
    the right number of fields, only the line with the quote is broken, and the next one starts a record.
    """
    number, waiting = first, deque(itertools.islice(lines, 1))
    while waiting:
        taken, fields, why = _csv_record(waiting, lines, width)
        for _ in range(taken):
            waiting.popleft()
        if fields is not None or why:
            yield number, fields, why
        number += taken
        if not waiting:
            waiting.extend(itertools.islice(lines, 1))


def _csv_record(waiting: "deque[bytes]", lines: Iterator[bytes], width: int) -> tuple[int, list[str] | None, str]:
    """The record at the front of `waiting`, which grows from `lines`: how many lines, its fields, what is wrong."""
    if not waiting[0].strip():
        return 1, None, ""
    text = ""
    for taken in range(1, _LINES_A_RECORD + 1):
        if taken > len(waiting):
            line = next(lines, None)
            if line is None:
                break
            waiting.append(line)
        try:
            text += ("\n" if taken > 1 else "") + waiting[taken - 1].decode()
        except UnicodeDecodeError:
            return 1, None, NOT_UTF8 if taken == 1 else NOT_CSV
        try:
            # Before Python 3.11 the module refuses NUL. Half a surrogate pair can stand for it, for no UTF-8 has one.
            record = io.StringIO(text.removesuffix("\r").replace("\0", "\udc00"), newline="")
            fields = [field.replace("\udc00", "\0") for field in next(csv.reader(record, strict=True))]
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                continue  # within an open quote
            break
        if len(fields) == width:
            return taken, fields, ""
        break
    return 1, None, NOT_CSV


def _csv_rows(columns: dict[str, pa.Array], lines: np.ndarray, broken: list[tuple[int, str]]) -> _Rows:
    """Rows of RAW of a CSV's columns, all of them text."""
    length = len(lines)
    arrays = {field.name: columns.get(field.name, pa.nulls(length, pa.string())) for field in RAW}
    arrays["count"] = _parse_counts(arrays["count"])
    return _Rows(pa.Table.from_arrays(list(arrays.values()), schema=RAW), lines, broken)


def _parse_counts(text: pa.StringArray) -> pa.Int64Array:
    """Whole numbers of 64 bits; 0, which breaks the rule, for what is none."""
    whole = pc.match_substring_regex(text, "^[0-9]{1,19}$")
    # Of 19 digits, those up to 2^63-1; as texts of the same length compare as the numbers do.
    small = pc.or_(pc.less(pc.binary_length(text), 19), pc.less_equal(text, str(2**63 - 1)))
    return pc.if_else(pc.and_(whole, small), text, pc.if_else(text.is_valid(), "0", None)).cast(pa.int64())
