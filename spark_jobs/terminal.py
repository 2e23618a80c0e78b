"""Tables and ages, as people read them in a terminal."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import TypeVar

Item = TypeVar("Item")


def as_table(columns: Mapping[str, Callable[[Item], str]], items: Iterable[Item]) -> str:
    """A line of column names, and a line an item; the last column may be of any width.

    Args:
        columns: What to show of an item, by column name.
        items: The items, in order.
    """
    rows = [list(columns), *([show(item) for show in columns.values()] for item in items)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(columns) - 1)]
    lines = ([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]] for row in rows)
    return "\n".join("  ".join(line).rstrip() for line in lines)


def as_age(since: datetime | None) -> str:
    """How long ago something was, such as `3 min`; empty if that is not known."""
    if since is None:
        return ""
    seconds = (datetime.now(timezone.utc) - since) / timedelta(seconds=1)
    for unit, size in {"d": 86400, "h": 3600, "min": 60}.items():
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"
