"""Names, tables, ages, durations and sizes, as people read them in a terminal."""

import io
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import TypeVar

Item = TypeVar("Item")

_LEAST_OF_LAST = 20  # characters of a table's last column in a terminal; what is longer is cut, as paths have no words
# What a terminal obeys, breaks a line at, shows nothing of, or has no character for: controls (ESC, newlines), formats
# (such as U+202E, which turns the text behind it around), separators of lines and paragraphs, half surrogates.
_UNSEEN = ("Cc", "Cf", "Zl", "Zp", "Cs")
_JOINERS = "\u200c\u200d"  # which shape emojis and some scripts
_UNITS = {"d": 86400, "h": 3600, "min": 60}  # in seconds


def visible(text: str) -> str:
    """A text in one line that shows what is in it, and does nothing to a terminal: ESC becomes `\\x1b`.

    Names of pages, categories and files are other people's, and may hold anything.
    """
    if text.isprintable():
        return text
    return "".join(map(_escape, text))


def visible_lines(text: str) -> str:
    """The same of each line of a text, which stay lines."""
    return "\n".join(map(visible, text.split("\n")))


def _escape(char: str) -> str:
    if unicodedata.category(char) not in _UNSEEN or char in _JOINERS:
        return char
    return char.encode("unicode_escape").decode()


def as_table(columns: Mapping[str, Callable[[Item], str]], items: Iterable[Item]) -> str:
    """A line of column names, and a line an item; the last column may be of any width.

    Where a terminal shows it, cells are wrapped to fit its width. Where that would cut words, each item is a few lines.
    Everything else gets the same lines at any time. Cells are shown as `visible` has them.

    Args:
        columns: What to show of an item, by column name.
        items: The items, in order.
    """
    cells = [list(columns), *([show(item) for show in columns.values()] for item in items)]
    rows = [list(map(visible, row)) for row in cells]
    return _for_a_terminal(rows) if sys.stdout.isatty() else _as_lines(rows)


def _as_lines(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]) - 1)]
    lines = ([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]] for row in rows)
    return "\n".join("  ".join(line).rstrip() for line in lines)


def _for_a_terminal(rows: Sequence[Sequence[str]]) -> str:
    """The rows as a table that fits the terminal; the first row has the names of the columns."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = Console().width
    words = [_longest_word(row[place] for row in rows) for place in range(len(rows[0]))]
    words[-1] = min(words[-1], _LEAST_OF_LAST)
    if sum(words) + 2 * (len(words) - 1) > width:
        return _as_blocks(rows)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name, least in zip(rows[0], words, strict=True):
        table.add_column(Text(name), overflow="fold", min_width=least)
    for row in rows[1:]:
        table.add_row(*map(Text, row))  # text, for a cell may hold what rich takes for markup
    console = Console(file=io.StringIO(), width=width, force_terminal=True)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def _longest_word(cells: Iterable[str]) -> int:
    return max((len(word) for cell in cells for word in cell.split()), default=0)


def _as_blocks(rows: Sequence[Sequence[str]]) -> str:
    """Lines for each row: its first cell, and below it the others that hold something, after their columns' names."""
    first, *names = rows[0]
    widest = max(map(len, names), default=0)
    blocks = (
        [
            f"{first}: {row[0] or '–'}",
            *(f"  {name.ljust(widest)}  {cell}" for name, cell in zip(names, row[1:], strict=True) if cell),
        ]
        for row in rows[1:]
    )
    return "\n".join("\n".join(block) for block in blocks)


def as_age(since: datetime | None) -> str:
    """How long ago something was, such as `3 min`; empty if that is not known."""
    return "" if since is None else as_duration((datetime.now(timezone.utc) - since) / timedelta(seconds=1))


def as_duration(seconds: float) -> str:
    """Some seconds in the unit that fits, such as `3 min`."""
    for unit, size in _UNITS.items():
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def as_size(count: int) -> str:
    """Some bytes in the unit that fits, such as `1.2 GB`."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
