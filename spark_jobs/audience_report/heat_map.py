"""The pages of a report: by segment, in the heat map, or of everybody."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spark_jobs.audience_report.cards import Segment
from spark_jobs.audience_report.tables import Table

MOST_PAGES = 40  # of the heat map
_STRONG = (1.2, 1.6, 2.5, 4.0)  # times as usual elsewhere, from which a cell of the heat map is darker
PERCENT_FROM = 200  # people: of fewer, a share by figures that are rounded to tens is too rough to be shown


@dataclass(frozen=True)
class Cell:
    """A page in a segment, in the heat map: the share, how far from usual, from −4 to 4, and the lift."""

    share: float | None
    step: int
    lift: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class HeatRow:
    """A page of the heat map."""

    page_id: str
    name: str
    everybody: float | None  # its share of all people
    cells: Sequence[Cell]  # a segment each


def heat_map(segments: Sequence[Segment], profiles: Sequence[Mapping[str, Any]], people: int | None) -> list[HeatRow]:
    """The most telling pages, those of a segment together, in the order of the segments."""
    by_page: dict[str, list[Mapping[str, Any]]] = {}
    for row in profiles:
        by_page.setdefault(row["dimension_id"], []).append(row)
    pages = {
        page: rows for page, rows in by_page.items() if any(row["people"] is not None for row in rows)
    }  # one that hardly anybody is on tells nothing
    strongest = {page: max(rows, key=_strength) for page, rows in pages.items()}
    order = sorted(pages, key=lambda page: (-_strength(strongest[page]), page))
    # Each segment has its share of the rows, or those of a large and clear one would leave none to the others.
    each = MOST_PAGES // len(segments)
    chosen: dict[str, None] = {}
    for segment in segments:
        own = [page for page in order if strongest[page]["cluster_id"] == segment.cluster_id]
        chosen |= dict.fromkeys(page for page in own[:each] if strongest[page]["distinctive"])
    chosen |= dict.fromkeys(page for page in order[:MOST_PAGES] if page not in chosen)
    shown = list(chosen)[:MOST_PAGES]
    shown.sort(
        key=lambda page: (
            not strongest[page]["distinctive"],
            strongest[page]["cluster_id"] if strongest[page]["distinctive"] else 0,
            -_strength(strongest[page]),
            page,
        )
    )
    return [_heat_row(page, pages[page], segments, people) for page in shown]


def _strength(row: Mapping[str, Any]) -> float:
    return float("-inf") if row["z"] is None else float(row["z"])


def _heat_row(page: str, rows: Sequence[Mapping[str, Any]], segments: Sequence[Segment], people: int | None) -> HeatRow:
    of_segment = {row["cluster_id"]: row for row in rows}
    nothing = Cell(None, 0, None, None, None)
    cells = [_cell(of_segment[s.cluster_id]) if s.cluster_id in of_segment else nothing for s in segments]
    return HeatRow(page, rows[0]["dimension_name"] or page, _of_everybody(rows[0], people), cells)


def _of_everybody(row: Mapping[str, Any], people: int | None) -> float | None:
    """The share of all people, by published figures alone."""
    if row["people"] is None or row["rest_people"] is None or not people:
        return None
    return min(1.0, float(round((row["people"] + row["rest_people"]) / people, 2)))


def _cell(row: Mapping[str, Any]) -> Cell:
    lift, low, high = row["lift"], row["lift_low"], row["lift_high"]
    step = 0
    if row["share"] is None:
        lift = None  # of so few people nothing is said, by a color either
    if lift is not None and low is not None and low > 1:
        step = max(1, sum(lift >= limit for limit in _STRONG))
    elif lift is not None and high is not None and high < 1:
        step = -4 if lift == 0 else -max(1, sum(1 / lift >= limit for limit in _STRONG))
    return Cell(row["share"], step, lift, low, high)


def liked(profiles: Sequence[Mapping[str, Any]], people: int) -> Table | None:
    """The pages that most people are on, where all of them are one audience."""
    rows = sorted(
        (row for row in profiles if row["people"] is not None),
        key=lambda row: (-row["people"], row["dimension_id"]),
    )[:MOST_PAGES]
    if not rows:
        return None
    shares = people >= PERCENT_FROM
    return Table(
        "pages",
        ["page", "people", *(["share"] if shares else [])],
        [
            [row["dimension_name"] or row["dimension_id"], row["people"], *([row["share"]] if shares else [])]
            for row in rows
        ],
    )


def heat_table(heat: Sequence[HeatRow], segments: Sequence[Segment]) -> Table:
    """The shares of the heat map, a row a page."""
    return Table(
        "pages-by-segment",
        ["dimension_id", "dimension_name", "everybody", *(segment.name for segment in segments)],
        [[row.page_id, row.name, row.everybody, *(cell.share for cell in row.cells)] for row in heat],
    )
