"""Timestamps of raw actions, as ISO 8601 writes them."""

import re
from datetime import datetime, timedelta, timezone

import pyarrow as pa
import pyarrow.compute as pc

UTC_SECONDS = pa.timestamp("s", tz="UTC")

_ISO_8601 = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})"
    r"(?:[Tt ](\d{2}):(\d{2})(?::(\d{2})(?:[.,]\d{1,9})?)?(?:[Zz]|([+-])([01]\d|2[0-3])(?::?([0-5]\d))?)?)?",
    re.ASCII,
)
# Nearly all timestamps have the second form once fractions of a second are cut off and zero offsets are written as Z.
_TO_SECONDS = r"^(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:[.,]\d{1,9})?(?:[Zz]|[+-]00(?::?00)?)?$"
# Arrow has a year 0000, and Python has none: it is left to Python, so that what is beside a text does not matter.
_SECONDS = r"^(?:\d{3}[1-9]|\d{2}[1-9]\d|\d[1-9]\d{2}|[1-9]\d{3})-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$"


def parse_timestamps(column: pa.StringArray) -> pa.TimestampArray:
    """Timestamps to the second, UTC; null where a text is not a timestamp."""
    text = pc.replace_substring_regex(column, _TO_SECONDS, r"\1T\2Z")
    usual = pc.fill_null(pc.match_substring_regex(text, _SECONDS), True)
    if pc.all(usual).as_py() is not False:
        try:
            return pc.cast(text, UTC_SECONDS)
        except pa.ArrowInvalid:  # such as the 30th of February
            pass
    return pa.array([None if value is None else parse_timestamp(value) for value in column.to_pylist()], UTC_SECONDS)


def parse_timestamp(text: str) -> datetime | None:
    """A date, or a date and time, in ISO 8601's extended format, to the second; UTC where no zone is given.

    None if the text is not one. `datetime.fromisoformat` accepts other texts on each version of Python.
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
