"""What a report says of the data that it is made from: what was read and refused, and what changed since last month.

Counts are exact in what is read, and published ones in what is said (`spark_jobs.clusters.published`), rows as well as
people.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spark_jobs.audience_report import cards
from spark_jobs.audience_report.heat_map import PERCENT_FROM
from spark_jobs.audience_report.months import period
from spark_jobs.audience_report.tables import Table
from spark_jobs.clusters import published
from spark_jobs.outputs import Manifest

LARGE_CHANGE = 0.5  # of a number of people in a month; also what AUDIENCE_EXPLORER_DRIFT warns from, by default

_REFUSED_FROM = 0.001  # of the rows, from which it is said first that some were refused
_MOST_PAGES = 40  # that are named


@dataclass(frozen=True)
class Sources:
    """What is there of the outputs that clusters were made from.

    Attributes:
        inputs: The manifest of the clustering inputs; None if they are gone.
        dimensions: Their pages: rows with `dimension_id`, `dimension_name` and `users`.
        grouped: The manifest of the month's grouped users; None if they are gone, or were not made by this project.
    """

    inputs: Manifest | None = None
    dimensions: Sequence[Mapping[str, Any]] = ()
    grouped: Manifest | None = None


@dataclass(frozen=True)
class Quality:
    """What a report says of its data. Tables that have nothing to say are None."""

    findings: Sequence[str]  # what one should know, in sentences
    table: Table
    refused: Table | None  # rows by reason
    unused: Table | None  # the pages that hardly anybody is on


@dataclass(frozen=True)
class _Before:
    """The published figures of the last month before that is known."""

    month: str
    people: int | None
    month_users: int | None


def quality_of(
    kmeans: Manifest, people: int | None, min_people: int, sources: Sources, followed: Mapping[str, Any] | None
) -> Quality:
    """What a report says of its data.

    Args:
        kmeans: The manifest of the clusters.
        people: How many people they have, as published.
        min_people: The fewest that anything is said of.
        sources: What the clusters were made from.
        followed: The `segments.json` of their followed segments, which has the months before; None without.
    """
    before = None if followed is None else _before(followed)
    month_users = _month_users(sources, min_people)
    counts = _row_counts(sources.grouped, min_people)
    unused = _unused(sources.dimensions, min_people)
    rows: list[list[Any]] = [["people", cards.counted(people, min_people)]]
    if month_users is not None:
        rows.append(["people on any page in the month", month_users])
    if people is not None:
        rows.append(_learned_from(kmeans["summary"], min_people))
    rows += [[f"rows {what}", count] for what, count in counts.items()]
    if sources.dimensions:
        rows.append(["pages of the category", len(sources.dimensions)])
        rows.append([f"pages that fewer than {min_people} people are on", len(unused)])
    if people is not None:
        rows.append(["converged", "yes" if kmeans["summary"]["converged"] else "no"])
    rows.append(["computed by", kmeans["summary"]["engine"]])
    table = Table("data-quality", ["what", "value"], rows)
    if before is not None:
        table = _with_changes(table, before, people, month_users)
    return Quality(
        findings=_findings(before, people, month_users, counts, unused, sources, min_people),
        table=table,
        refused=_refused(sources.grouped, min_people),
        unused=Table("pages-hardly-used", ["page", "page id"], unused[:_MOST_PAGES]) if unused else None,
    )


def change(now: int | None, before: int | None) -> float | None:
    """The change of a published number of people, such as 0.04 for 4 % more; None where it would be too rough."""
    if now is None or before is None or min(now, before) < PERCENT_FROM:
        return None
    return round(now / before - 1, 2) + 0.0  # never -0.0


def _is_large(now: int | None, before: int | None) -> bool:
    """Whether a number of people halved or doubled, as the check `drift` measures it; None is of hardly anybody."""
    smaller, larger = sorted((now or 0, before or 0))
    return larger >= PERCENT_FROM and 1 - smaller / larger > LARGE_CHANGE


def _before(followed: Mapping[str, Any]) -> _Before | None:
    months = [month for month in followed["history"] if month["month"] == followed["since"]]
    if not months:
        return None
    return _Before(months[0]["month"], months[0]["users"], months[0].get("month_users"))


def _month_users(sources: Sources, min_people: int) -> int | None:
    users = None if sources.inputs is None else sources.inputs["summary"].get("month_users")
    return None if users is None else published.count(int(users), min_people)


def _row_counts(grouped: Manifest | None, min_people: int) -> dict[str, int | str]:
    """The month's raw rows."""
    if grouped is None:
        return {}
    rows, refused = int(grouped["summary"]["rows"]), int(grouped["summary"]["rejected"])
    return {
        "of raw data": cards.counted(published.count(rows, min_people), min_people),
        "refused, because they break a rule": cards.counted(published.count(refused, min_people), min_people),
    }


def _learned_from(summary: Mapping[str, Any], min_people: int) -> list[Any]:
    learned = summary["learned_from"]
    learned_from = published.count(int(learned["users"]), min_people)
    active = f" (at least {learned['min_actions']} likes or comments)" if learned["min_actions"] else ""
    return [f"people active enough to find segments by{active}", cards.counted(learned_from, min_people)]


def _unused(dimensions: Sequence[Mapping[str, Any]], min_people: int) -> list[list[Any]]:
    """Names and ids of the pages that hardly anybody is on. How many of them nobody is on is not said."""
    return [
        [page["dimension_name"] or page["dimension_id"], page["dimension_id"]]
        for page in dimensions
        if page["users"] < min_people
    ]


def _refused(grouped: Manifest | None, min_people: int) -> Table | None:
    """The refused rows by reason; those of fewer rows than are said come last."""
    reasons = {} if grouped is None else grouped["summary"]["rejects"]
    if not reasons:
        return None
    counted = [[reason, published.count(int(rows), min_people)] for reason, rows in reasons.items()]
    counted.sort(key=lambda row: (-(row[1] or 0), row[0]))
    return Table("refused-rows", ["reason", "rows"], [[reason, cards.counted(n, min_people)] for reason, n in counted])


def _with_changes(table: Table, before: _Before, people: int | None, month_users: int | None) -> Table:
    """The table with what changed since the month before, in a column of its own."""
    changes = {
        "people": change(people, before.people),
        "people on any page in the month": change(month_users, before.month_users),
    }
    rows = [[*row, None if (by := changes.get(row[0])) is None else f"{by:+.0%}"] for row in table.rows]
    return Table(table.name, [*table.columns, f"since {before.month}"], rows)


def _findings(
    before: _Before | None,
    people: int | None,
    month_users: int | None,
    counts: Mapping[str, int | str],
    unused: Sequence[Any],
    sources: Sources,
    min_people: int,
) -> list[str]:
    said = _changes_in_words(before, people, month_users) if before is not None else []
    rows, refused = [*counts.values(), None, None][:2]
    if isinstance(rows, int) and isinstance(refused, int) and refused >= _REFUSED_FROM * rows:
        said.append(f"{refused / rows:.1%} of the rows of the month's raw data break a rule, and were left out.")
    if unused:
        pages, has = len(sources.dimensions), "has" if len(unused) == 1 else "have"
        said.append(
            f"{len(unused)} of the category's {pages} page{'s' * (pages != 1)} {has} fewer than {min_people} people. If"
            " that is unexpected, check the ids in the category file."
        )
    return said


def _changes_in_words(before: _Before, people: int | None, month_users: int | None) -> list[str]:
    """What became of the numbers of people, and whether that is more than is usual."""
    said = []
    by = change(people, before.people)
    if by is not None and people is not None:
        more = f"{abs(by):.0%} {'more' if by > 0 else 'fewer'} than" if by else "as many as"
        said.append(f"{people:,} people: {more} in {period(before.month)}.")
    if month_users is None:  # it is not known, which is not a change
        before = replace(before, month_users=None)
    large = [
        what
        for what, now, was in (
            ("this category's people", people, before.people),
            ("the month's people on any page", month_users, before.month_users),
        )
        if was is not None and _is_large(now, was)
    ]
    if large:
        said.append(
            f"The number of {' and that of '.join(large)} changed by more than {LARGE_CHANGE:.0%}. Ask whether all of"
            " the month's raw data has arrived before you rely on what changed."
        )
    return said
