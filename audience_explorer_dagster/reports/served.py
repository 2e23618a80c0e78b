"""What a server of reports shows: an index, and the current report of a partition. Nothing else can be had.

What a visitor asks for is a category and a month. Both are checked before they are part of any path, and the folder is
the one that `current.json` of that partition names.
"""

import html
import re
from dataclasses import dataclass, replace

from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import AUDIENCE_REPORT
from audience_explorer_dagster.reports.current import find_current, list_current
from audience_explorer_dagster.store import Store
from spark_jobs import storage
from spark_jobs.audience_report.page import render_bar, render_index
from spark_jobs.errors import InputError
from spark_jobs.raw.months import list_months
from spark_jobs.vectors.category_files import check_name

_MONTH = re.compile(r"[0-9]{4}-(?:0[1-9]|1[0-2])")
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">')
_HEADER = "<header>\n"  # of the page, below which the bar stands
_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Served:
    """The reports of a root, as a visitor may see them.

    Attributes:
        store: Where they are.
        private: Whether those of private categories are shown.
    """

    store: Store
    private: bool = False

    def index(self) -> str:
        """The index, as it is now; its links are those of this server."""
        listed = [one for one in list_current(self.store) if self.private or not one.private]
        return render_index([replace(one, link=f"{one.category}/{one.month}") for one in listed])

    def report(self, category: str, month: str) -> str | None:
        """The page of the current report of a category in a month, with links to others; None if there is none."""
        partition = _checked(category, month)
        found = None if partition is None else self._location(partition)
        if partition is None or found is None:
            return None
        try:
            page = storage.at(found).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        before, after = self._neighbors(partition)
        return page.replace(_HEADER, f"{_HEADER}{render_bar(before, after)}", 1)

    def _location(self, partition: Partition) -> str | None:
        """Where the page of a partition is, if it may be shown."""
        listed = find_current(self.store, partition)
        return None if listed is None or (listed.private and not self.private) else listed.link

    def _neighbors(self, partition: Partition) -> tuple[str | None, str | None]:
        """The months before and after with a report of the same category that may be shown."""
        months = list_months(self.store.all_outputs(AUDIENCE_REPORT))

        def first(candidates: list[str]) -> str | None:
            return next((m for m in candidates if self._location(Partition(m, partition.category)) is not None), None)

        before = [month for month in months if month < partition.month]
        return first(before[::-1]), first([month for month in months if month > partition.month])


def _checked(category: str, month: str) -> Partition | None:
    """The partition that a visitor names; None if there can be none of that name."""
    try:
        check_name(category)
    except InputError:
        return None
    return Partition(month, category) if _MONTH.fullmatch(month) else None


def headers_of(page: str) -> dict[str, str]:
    """The headers that a page is sent with: it runs what is in it alone, and no cache or other page keeps it."""
    found = _POLICY.search(page)
    policy = _NOTHING if found is None else html.unescape(found[1])
    return {
        "Content-Security-Policy": f"{policy}; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-store, private",
    }
