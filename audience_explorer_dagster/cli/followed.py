"""What the commands read of followed segments."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spark_jobs.outputs import read_json
from spark_jobs.raw.months import list_months

if TYPE_CHECKING:
    from audience_explorer_dagster.store import Store

ASSET = "segments"


@dataclass(frozen=True)
class Followed:
    """The current output of a month: its segments.

    Attributes:
        folder: Where it is.
        month: Such as `2024-01`.
        rows: The segments, as in `segments.json`.
        applied: The edits that it was made with, as `edits.decisive` gives them.
        events: What happened until then, the oldest first.
    """

    folder: str
    month: str
    rows: list[dict[str, Any]]
    applied: list[dict[str, Any]]
    events: list[dict[str, Any]]

    @property
    def ids(self) -> set[int]:
        """The ids of all segments that there were until then."""
        return {row["segment_id"] for row in self.rows}

    @property
    def living(self) -> list[dict[str, Any]]:
        """The segments that have not ended."""
        return [row for row in self.rows if row["ended"] is None]

    def before_edits(self) -> list[dict[str, Any]]:
        """The segments as they are without any edit: `id`, `name`, `ended`, and what else `state.json` has.

        Raises:
            InputError: It can't be read.
        """
        segments: list[dict[str, Any]] = read_json(self.folder, "state.json")["segments"]
        return segments


def followed_months(store: "Store", category: str) -> list[str]:
    """The months of which there is a current output, in order."""
    from audience_explorer_dagster.partitions import Partition

    months = list_months(store.all_outputs(ASSET))
    return [month for month in months if store.current(ASSET, Partition(month, category)) is not None]


def read_followed(store: "Store", category: str, month: str) -> Followed | None:
    """The segments of a month; None if there are none.

    Raises:
        InputError: A file of the output can't be read.
    """
    from audience_explorer_dagster.partitions import Partition

    current = store.current(ASSET, Partition(month, category))
    return None if current is None else read_output(current.folder)


def read_output(folder: str) -> Followed:
    """The segments in an output's folder.

    Raises:
        InputError: A file of the output can't be read.
    """
    found = read_json(folder, "segments.json")
    # An earlier version wrote no history.
    history = found.get("history") or [found]
    events = [event for of_month in history for event in of_month["events"]]
    return Followed(folder, found["month"], found["segments"], found.get("edits", []), events)
