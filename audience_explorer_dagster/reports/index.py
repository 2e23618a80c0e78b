"""The index of a root's current reports, a file beside them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from audience_explorer_dagster.planning import AUDIENCE_REPORT
from audience_explorer_dagster.reports.current import list_current
from audience_explorer_dagster.store import Store
from spark_jobs import storage
from spark_jobs.audience_report.page import Listed, render_index

_INDEX, _PRIVATE_INDEX = "index.html", "index-private.html"
_TRIES = 3  # to write it, while others make reports


def write_index(store: Store, private: bool = False) -> tuple[str, Sequence[Listed]]:
    """Write the index anew; where it is, and what it lists.

    Its links are relative, so that both can be moved together. A writer whose list is old by the time that it is
    written, because another one made reports meanwhile, writes it again.

    Args:
        store: Where the reports are.
        private: List private categories as well, in an index of its own.
    """
    below = store.all_outputs(AUDIENCE_REPORT)
    index = storage.join(below, _PRIVATE_INDEX if private else _INDEX)
    written: Sequence[Listed] | None = None
    for _ in range(_TRIES):
        listed = [one for one in list_current(store) if private or not one.private]
        if listed == written:
            break
        links = [replace(one, link=one.link.removeprefix(f"{below}/")) for one in listed]
        storage.write_text(index, render_index(links))
        written = listed
    return index, listed


def keep_index_current(store: Store, warn: Callable[[str], object]) -> None:
    """Write the index after a run that changed what is current; that it can't be written fails nothing."""
    try:
        write_index(store)
    except Exception as error:  # whatever it is: the reports are there, and the next run writes it
        warn(f"The index of reports can't be written: {error}")
