"""What raw audience actions must be like: accepted rows, and a record of every row that breaks a rule."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs.config import ACTIONS
from spark_jobs.errors import InputError, UnreadableFile
from spark_jobs.outputs.schemas import AT_LEAST_1, TableRules
from spark_jobs.raw.timestamps import UTC_SECONDS, parse_timestamps

REPETITIVE = ("page_id", "action", "gender")  # columns of few distinct texts

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
# Columns of few distinct texts are dictionary-encoded, and each text is checked once. User ids are not: most of them
# occur once or twice among the rows that are read at a time.
CODED_TEXT = pa.dictionary(pa.int32(), pa.string())
ACTION = pa.schema(
    [
        ("user_id", pa.string()),
        ("page_id", CODED_TEXT),
        ("gender", CODED_TEXT),
        ("action", pa.int8()),  # its place in ACTIONS
        ("count", pa.int64()),
    ]
)
REJECT = pa.schema([("file", pa.string()), ("line", pa.int64()), ("reason", pa.string())])

ACCEPTED = TableRules(
    "accepted raw actions",
    ACTION,
    non_empty=("user_id", "page_id", "gender"),
    ranges={"action": (0, len(ACTIONS) - 1), "count": AT_LEAST_1},
)
REJECTS = TableRules("rejects", REJECT, non_empty=("file", "reason"), ranges={"line": AT_LEAST_1}, key="line")

NO_USER = "user_id is missing"
NO_PAGE = "page_id is missing"
BAD_ACTION = f"action is none of {', '.join(ACTIONS)}"
BAD_COUNT = "count is no whole number from 1 to 2^63-1"
BAD_TIMESTAMP = "timestamp is not ISO 8601"
OTHER_MONTH = "timestamp is outside the month"
NOT_UTF8 = "line is not UTF-8"
NOT_JSON = "line is no JSON object"
TWICE = "a field is there twice"
NOT_CSV = "line is no record with as many fields as the header"


def not_a_string(field: str) -> str:
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
            month = cls(start, end)
            if month.key != key:  # such as 2024-1, which Python reads
                raise ValueError
        except ValueError:
            raise InputError(f"{key!r} is not a month; one is named YYYY-MM, such as 2024-01.") from None
        return month

    @property
    def key(self) -> str:
        """Its partition key, YYYY-MM."""
        return self.start.date().isoformat()[:7]


@dataclass
class RawRows:
    """Rows as read with their lines, and the lines that hold no row, with the reason.

    The columns are those of RAW; texts may be dictionary-encoded, and timestamps parsed (to seconds, UTC).
    """

    table: pa.Table
    lines: np.ndarray  # int64, the 1-based line (Parquet: row) of each row in `table`
    broken: list[tuple[int, str]]


@dataclass(frozen=True)
class CheckedRows:
    """Some rows of a file: those accepted (schema ACTION) and those rejected (schema REJECT)."""

    accepted: pa.RecordBatch
    rejected: pa.RecordBatch


def require_columns(names: AbstractSet[str], location: str) -> None:
    """Check that a file has the required columns.

    Raises:
        UnreadableFile: One is missing.
    """
    missing = [name for name in ("user_id", "page_id", "action") if name not in names]
    if missing:
        raise UnreadableFile(location, f"it has no column {', '.join(missing)}")


def check_rows(rows: RawRows, location: str, month: Month) -> CheckedRows:
    """Split rows into those accepted and those that break a rule, whose first broken rule is the reason."""
    table = rows.table
    user = table["user_id"].combine_chunks()
    page, action, gender = (_encoded(table[name]) for name in REPETITIVE)
    count = table["count"].combine_chunks().fill_null(1)
    place = by_code(action, pc.fill_null(pc.index_in(action.dictionary, value_set=pa.array(ACTIONS)), -1), -1)
    inside, parsed = _timestamps_in(table["timestamp"].combine_chunks(), month)
    rules = [
        (NO_USER, pc.equal(pc.fill_null(user, ""), "").to_numpy(zero_copy_only=False)),
        (NO_PAGE, by_code(page, pc.equal(page.dictionary, ""), True)),
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
    return CheckedRows(accepted if good.all() else accepted.filter(pa.array(good)), rejected)


def _encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """A text column as codes and a dictionary that holds no null."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    whole = column.unify_dictionaries().combine_chunks()
    return whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole


def by_code(column: pa.DictionaryArray, of_value: pa.Array, of_null: Any) -> np.ndarray:
    """Of each row (n,) what holds for its value (`of_value`, by code), or for a null."""
    by_code = np.append(of_value.to_numpy(zero_copy_only=False), of_null)
    return np.asarray(by_code[pc.fill_null(column.indices, len(by_code) - 1).to_numpy()])


def _known_or_0(gender: pa.DictionaryArray) -> pa.DictionaryArray:
    """Genders with `0` for those that are missing or empty."""
    values = pa.concat_arrays([gender.dictionary, pa.array(["0"])])
    values = pc.if_else(pc.equal(values, ""), "0", values)
    return pa.DictionaryArray.from_arrays(pc.fill_null(gender.indices, len(values) - 1), values)


def _timestamps_in(column: pa.Array, month: Month) -> tuple[np.ndarray, np.ndarray]:
    """For each timestamp whether it lies in the month, and whether it is one; both hold where none is given."""
    given = column.is_valid().to_numpy(zero_copy_only=False)
    parsed = parse_timestamps(column) if pa.types.is_string(column.type) else column
    valid = parsed.is_valid().to_numpy(zero_copy_only=False)
    inside = pc.and_(
        pc.greater_equal(parsed, pa.scalar(month.start, UTC_SECONDS)),
        pc.less(parsed, pa.scalar(month.end, UTC_SECONDS)),
    )
    is_inside = pc.fill_null(inside, False).to_numpy(zero_copy_only=False)
    return is_inside | ~given, valid | ~given
