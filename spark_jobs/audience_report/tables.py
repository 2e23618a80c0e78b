"""The tables of a report: each is also offered as CSV, in a link that holds all of it."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes a text for that begins so


@dataclass(frozen=True)
class Table:
    """A table: its name, which is that of its CSV, the names of its columns, and its rows."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    @property
    def csv(self) -> str:
        """The table as CSV; what is not known is empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([without_formula(column) for column in self.columns])
        writer.writerows([without_formula(value) for value in row] for row in self.rows)
        return text.getvalue()

    @property
    def link(self) -> str:
        """A link that is the CSV."""
        return f"data:text/csv;charset=utf-8,{quote(self.csv, safe='/,')}"


def without_formula(value: Any) -> Any:
    """A cell of a CSV that no spreadsheet computes: a text that would be a formula begins with an apostrophe."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"  # page names are whatever somebody wrote
    return value
