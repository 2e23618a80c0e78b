"""What a report says of each segment compared with everybody, and with each other segment: the reader's choice.

It is made from the rows of comparisons.parquet, whose figures are all published ones, and shows them as they are.
Clusters are compared as they were found: where people merged segments, each part by itself, as its card shows it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs.audience_report.tables import Table
from spark_jobs.clusters.published import SEGMENT

if TYPE_CHECKING:
    from spark_jobs.audience_report.cards import Segment

ALL_OTHERS = 12  # segments: of so many, each is compared with each
LARGEST = 8  # others that each is compared with, of more

_FEW, _PAGES, _PAGES_OF_MORE = 6, 5, 3  # segments, and the pages of each comparison; and those where there are more


@dataclass(frozen=True)
class Page:
    """A page that sets a segment apart from a baseline."""

    row: Mapping[str, Any]  # of comparisons.parquet
    month_share: float | None  # of all people of the month; only against everybody

    @property
    def name(self) -> str:
        """Its name, or else its id."""
        return str(self.row["dimension_name"] or self.row["dimension_id"])


@dataclass(frozen=True)
class Baseline:
    """A segment compared with everybody, or with another one."""

    label: str  # such as `everybody`, or `2 · Espresso, Latte Art`
    cluster_id: int | None  # None for everybody
    there: str  # the head of the column with the baseline's shares
    pages: Sequence[Page]  # that set the segment apart, the strongest first

    @property
    def has_month(self) -> bool:
        """Whether shares of all people of the month are known."""
        return any(page.month_share is not None for page in self.pages)


def shown(comparisons: pa.Table, k: int) -> list[dict[str, Any]]:
    """The rows of comparisons.parquet that a report of k segments shows, the strongest of each comparison first."""
    rows = comparisons.filter(comparisons["distinctive"])
    if k > ALL_OTHERS:
        # A segment that is among the largest itself has one other fewer.
        near = pc.or_kleene(pc.is_null(rows["baseline_cluster_id"]), pc.less(rows["baseline_cluster_id"], LARGEST))
        rows = rows.filter(near)
    pages = _PAGES if k <= _FEW else _PAGES_OF_MORE
    taken: dict[tuple[int, int | None], int] = {}
    strongest = []
    for row in rows.sort_by([("z", "descending"), ("dimension_id", "ascending")]).to_pylist():
        pair = row["cluster_id"], row["baseline_cluster_id"]
        taken[pair] = taken.get(pair, 0) + 1
        if taken[pair] <= pages:
            strongest.append(row)
    return strongest


def baselines_of(
    segments: Sequence["Segment"], rows: Iterable[Mapping[str, Any]], profiles: Iterable[Mapping[str, Any]]
) -> dict[int, list[Baseline]]:
    """What each cluster is compared with, beside all others, by its id.

    Args:
        segments: As their cards show them, by cluster.
        rows: As `shown` gives them.
        profiles: The rows of profiles.parquet, for the shares of the month.
    """
    month = {row["dimension_id"]: row["month_share"] for row in profiles}
    pages: dict[tuple[int, int | None], list[Page]] = {}
    for row in rows:
        everybody = row["baseline"] != SEGMENT
        page = Page(row, month.get(row["dimension_id"]) if everybody else None)
        pages.setdefault((row["cluster_id"], row["baseline_cluster_id"]), []).append(page)
    others = segments if len(segments) <= ALL_OTHERS else segments[:LARGEST]
    compared = {}
    for one in segments:
        against = [Baseline("everybody", None, "Everybody", pages.get((one.cluster_id, None), []))]
        for other in others:
            if other.cluster_id != one.cluster_id:
                found = pages.get((one.cluster_id, other.cluster_id), [])
                against.append(Baseline(f"{other.number} · {other.name}", other.cluster_id, "There", found))
        compared[one.cluster_id] = against
    return compared


def comparisons_table(segments: Sequence["Segment"], baselines: Mapping[int, Sequence[Baseline]]) -> Table:
    """What is shown, a row a segment, baseline and page; the names of segments are in the other tables."""
    figures = ["people", "share", "baseline_people", "baseline_share", "lift", "lift_low", "lift_high"]
    rows = [
        [
            segment.cluster_id,
            "everybody" if baseline.cluster_id is None else baseline.cluster_id,
            page.row["dimension_id"],
            *(page.row[figure] for figure in figures),
        ]
        for segment in segments
        for baseline in baselines.get(segment.cluster_id, ())
        for page in baseline.pages
    ]
    return Table("comparisons", ["cluster_id", "baseline", "dimension_id", *figures], rows)
