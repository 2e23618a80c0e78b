"""What a report says of months: what changed, how large each segment was, and who went where.

It is made from an output of follow_segments, whose figures are all published ones, and shows them as they are, without
sums and differences. A figure that is None is of fewer people than may be said.
"""

import calendar
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from spark_jobs.audience_report.tables import Table

_MOST_NAMES = 3  # in the label of several segments
_TOP_STEP = 0.05  # the scale of sizes ends at a multiple of it
_DARKER = (0.02, 0.1, 0.25, 0.5)  # of the people who were in the segment, from which a cell is darker
_LABELS = {
    "birth": "New",
    "return": "Back",
    "split": "Split",
    "merge": "Merged",
    "death": "Gone",
    "change": "Changed",
}
_ENDS = ("death", "merge")

WIDTH, HEIGHT = 600, 48  # of the drawing of a segment's sizes
_BASE, _TOP = 44, 5  # of its lines


@dataclass(frozen=True)
class Known:
    """What a cluster is, or several clusters: one segment, or some that can't be told apart this month."""

    name: str
    color: int
    segment_ids: Sequence[int]
    numbers: str = ""  # of the cards, such as `2, 5`; empty where there is none
    part_of: str = ""  # the name without the number of the part; empty where it is in one cluster alone


@dataclass(frozen=True)
class Happened:
    """An event: a word for it, and a sentence."""

    label: str
    what: str


@dataclass(frozen=True)
class Size:
    """A segment in a month: its people, or those of a group that it shares."""

    people: int | None
    share: float | None
    shared_with: Sequence[str]  # the names of the others
    told_apart: bool  # whether the month tells any segments apart

    @property
    def own(self) -> float | None:
        """The share, where it is that of the segment alone."""
        return None if self.shared_with or not self.told_apart else self.share


@dataclass(frozen=True)
class Trend:
    """A segment over the months, and how it is drawn: the paths are of a drawing of WIDTH × HEIGHT."""

    known: Known
    living: bool
    story: Sequence[str]  # how it began, and ended
    sizes: Sequence[Size | None]  # a month each; None where it was not, or nothing is known of the month
    summary: str  # of the drawing, in words
    was: str  # the first figure, such as `36% in Jan 2024`; empty where it is the only one
    line: str
    area: str
    dots: str
    rings: str
    begins: str
    ends: str

    @property
    def now(self) -> Size | None:
        """The last month."""
        return self.sizes[-1]


@dataclass(frozen=True)
class Sizes:
    """The sizes of the segments over the months."""

    months: Sequence[str]  # from the first to the last, with those that are missing
    users: Sequence[int | None]
    known: Sequence[bool]  # whether anything is known of the month
    trends: Sequence[Trend]
    top: float  # the share at the top of each drawing
    shades: Sequence[tuple[float, float]]  # where months are without figures, and how wide
    table: Table
    width: int = WIDTH
    height: int = HEIGHT

    @property
    def labels(self) -> list[str]:
        """The months, such as `Mar 2024`."""
        return [short(month) for month in self.months]


@dataclass(frozen=True)
class Flow:
    """Some people who went one way: how dark it is drawn, from 0 to 4, and whether they stayed."""

    people: int | None
    step: int
    stayed: bool


@dataclass(frozen=True)
class Flows:
    """Who went where. The last column is of those who left, the last row of those who came."""

    columns: Sequence[Known]
    rows: Sequence[tuple[Known | None, Sequence[Flow | None]]]  # without whom they came from, who came
    table: Table


@dataclass(frozen=True)
class Months:
    """What is known of a category's segments over the months."""

    month: str
    since: str | None  # None in the first month
    events: Sequence[Happened]
    nothing: str  # what is said where there are no events
    notes: Sequence[str]
    sizes: Sizes | None
    flows: Flows | None


def months_of(followed: Mapping[str, Any], flows: Sequence[Mapping[str, Any]], drawn: bool, min_people: int) -> Months:
    """What a report says of months.

    Args:
        followed: The `segments.json` of an output of follow_segments.
        flows: The rows of its `flows.parquet`.
        drawn: Whether the report draws segments; if not, it says in words alone what became of them.
        min_people: The fewest people that anything is said of.
    """
    series = len(followed["history"]) > 1 and any(month["segments"] for month in followed["history"])
    return Months(
        month=followed["month"],
        since=followed["since"],
        events=[Happened(_LABELS[event["kind"]], event["what"]) for event in followed["events"]],
        nothing=_nothing(followed),
        notes=_notes(followed, drawn),
        sizes=_sizes(followed, min_people) if drawn and series else None,
        flows=_flows(followed, flows, min_people) if drawn and flows and known_clusters(followed) else None,
    )


def period(month: str) -> str:
    """A month, such as `March 2024`."""
    year, number = month.split("-")
    return f"{calendar.month_name[int(number)]} {year}"


def short(month: str) -> str:
    """A month, such as `Mar 2024`."""
    year, number = month.split("-")
    return f"{calendar.month_abbr[int(number)]} {year}"


# --- which cluster is which segment ----------------------------------------------------------------


def known_clusters(followed: Mapping[str, Any]) -> dict[int, Known]:
    """What each cluster is; nothing in a month whose clusters can't be told apart."""
    segments = {segment["segment_id"]: segment for segment in followed["segments"]}
    groups: dict[tuple[int, ...], list[int]] = {}
    for segment in _living(followed):
        if clusters := tuple(segment["cluster_ids"]):
            groups.setdefault(clusters, []).append(segment["segment_id"])
    if len(groups) < 2:
        return {}
    known = {}
    for clusters, ids in groups.items():
        one = _known(ids, segments)
        for place, cluster in enumerate(clusters, 1):
            part = f" (part {place})" if len(clusters) > 1 else ""
            whole = one.name if part else ""
            known[cluster] = Known(f"{one.name}{part}", one.color, one.segment_ids, str(cluster + 1), whole)
    return known


def _living(followed: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [segment for segment in followed["segments"] if segment["ended"] is None]


def _known(ids: Sequence[int], segments: Mapping[int, Mapping[str, Any]]) -> Known:
    """Some segments, as one."""
    if not ids:
        return Known("Not told apart", 0, ids)
    ids = sorted(ids)
    clusters = sorted({cluster for number in ids for cluster in segments[number]["cluster_ids"]})
    names = [segments[number]["name"] for number in ids]
    others = len(names) - _MOST_NAMES
    told = names if others < 2 else [*names[:_MOST_NAMES], f"{others} others"]
    return Known(" / ".join(told), segments[ids[0]]["color"], ids, ", ".join(str(cluster + 1) for cluster in clusters))


# --- what changed ----------------------------------------------------------------------------------


def _nothing(followed: Mapping[str, Any]) -> str:
    if followed["since"] is None:
        return "This is the first month that is followed."
    before = [month for month in followed["history"] if month["month"] == followed["since"]]
    were = {segment["segment_id"] for month in before for segment in month["segments"]}
    if were and were == {segment["segment_id"] for segment in _living(followed)}:
        return f"No segment appeared, ended, split or merged since {period(followed['since'])}."
    nothing = "Nothing that these months can show"
    return f"{nothing}." if were or _living(followed) else f"{nothing}: they have no segments to follow."


def _notes(followed: Mapping[str, Any], drawn: bool) -> list[str]:
    """What has happened to segments without being an event."""
    notes = []
    if followed["since"] is not None:
        _, *between, _ = _calendar(followed["since"], followed["month"])
        if between:
            missing = f"{period(between[0])} is" if len(between) == 1 else "The months between are"
            notes.append(f"{missing} missing.")
    living, known = _living(followed), known_clusters(followed)
    if not known and len(living) == 1 and _merged_by_hand(living[0]):
        notes.append(f"Its groups are all {_named(living)} now: somebody merged them by hand.")
    elif not known and living:
        why = "Its groups are not clearly apart" if drawn else "It can't show them"
        notes.append(
            f"{period(followed['month'])} does not tell segments apart. {why}: {_named(living)} live on, unseen."
        )
    elif not known and drawn:
        notes.append("No two of its groups are clearly apart, so there is no segment to follow yet.")
    said: set[int] = set()
    for segment in living if known else []:
        shared = [other for other in living if other["segment_id"] in segment["shares_them_with"]]
        if shared and segment["segment_id"] not in said:
            said |= {other["segment_id"] for other in shared}
            notes.append(f"{_named([segment, *shared])} are in one group this month, and all live on.")
        if len(segment["cluster_ids"]) > 1 and not shared:
            parts = " and ".join(str(cluster + 1) for cluster in segment["cluster_ids"])
            if _merged_by_hand(segment):
                notes.append(f"{_named([segment])} has several parts, {parts}, because somebody merged them by hand.")
            else:
                notes.append(f"{_named([segment])} is in several groups, {parts}, which are not clearly apart.")
        if segment["new_by_sight"]:
            notes.append(f"{_named([segment])} is told apart from now on. Such people were there before, among others.")
    in_events = {number for event in followed["events"] for number in event["before"]}
    notes += [
        f"{_named([segment])} is no longer followed: it never was clearly a group of its own."
        for segment in followed["segments"]
        if segment["ended"] == followed["month"] and segment["segment_id"] not in in_events
    ]
    return notes


def _merged_by_hand(segment: Mapping[str, Any]) -> bool:
    return len(segment["cluster_ids"]) > 1 and "merged" in segment.get("edited", ())


def _named(segments: Sequence[Mapping[str, Any]]) -> str:
    *first, last = [f"“{segment['name']}”" for segment in segments]
    return f"{', '.join(first)} and {last}" if first else last


# --- sizes -----------------------------------------------------------------------------------------


def _sizes(followed: Mapping[str, Any], min_people: int) -> Sizes:
    history = {month["month"]: month for month in followed["history"]}
    months = list(_calendar(min(history), max(history)))
    segments = {segment["segment_id"]: segment for segment in followed["segments"]}
    told_apart = [month in history and _tells_apart(history[month]) for month in months]
    sizes: dict[int, list[Size | None]] = {}
    for place, month in enumerate(months):
        for row in history[month]["segments"] if month in history else []:
            of_segment = sizes.setdefault(row["segment_id"], [None] * len(months))
            others = [segments[other]["name"] for other in row.get("shares_them_with", [])]
            of_segment[place] = Size(row["people"], row["share"], others, told_apart[place])
    shown = [
        size.share for row in sizes.values() for size in row if size and size.told_apart and size.share is not None
    ]
    top = max(_TOP_STEP, ceil(max(shown, default=0) / _TOP_STEP - 1e-9) * _TOP_STEP)
    trends = [_trend(segments[number], sizes[number], months, top, followed) for number in _in_order(followed, sizes)]
    width = WIDTH / len(months)
    return Sizes(
        months=months,
        users=[history[month]["users"] if month in history else None for month in months],
        known=[month in history for month in months],
        trends=trends,
        top=top,
        shades=[(round(width * place, 1), round(width, 1)) for place, told in enumerate(told_apart) if not told],
        table=_sizes_table(months, trends, min_people),
    )


def _calendar(first: str, last: str) -> Iterator[str]:
    while first <= last:
        yield first
        first = _after(first)


def _after(month: str) -> str:
    year, number = (int(part) for part in month.split("-"))
    return f"{year + number // 12}-{number % 12 + 1:02}"


def _tells_apart(month: Mapping[str, Any]) -> bool:
    """Whether a month of the history tells segments apart: not all of them share their people."""
    rows = month["segments"]
    return len(rows) > 1 and any(len(row.get("shares_them_with", [])) < len(rows) - 1 for row in rows)


def _in_order(followed: Mapping[str, Any], sizes: Mapping[int, Any]) -> list[int]:
    """The segments in the order of the cards, then those that are gone, the last first."""

    def place(segment: Mapping[str, Any]) -> tuple[Any, ...]:
        if segment["ended"] is None:
            return (0, min(segment["cluster_ids"], default=0), segment["segment_id"])
        return (1, -int(segment["ended"].replace("-", "")), segment["segment_id"])

    return [s["segment_id"] for s in sorted(followed["segments"], key=place) if s["segment_id"] in sizes]


def _trend(
    segment: Mapping[str, Any],
    sizes: Sequence[Size | None],
    months: Sequence[str],
    top: float,
    followed: Mapping[str, Any],
) -> Trend:
    width = WIDTH / len(months)
    # A point stands in the middle of its month.
    points = [
        None if size is None or size.share is None else (round(width * (place + 0.5), 1), _y(size.share / top))
        for place, size in enumerate(sizes)
    ]
    own = [
        point if size is not None and size.own is not None else None for point, size in zip(points, sizes, strict=True)
    ]
    shared = [
        p if size and size.told_apart and size.shared_with else None for p, size in zip(points, sizes, strict=True)
    ]
    lines = [line for line in _unbroken(own) if len(line) > 1]
    drawn = [place for place, point in enumerate(own) if point]
    marked = [place for place in range(len(months)) if own[place] or shared[place]]
    events = [event for month in followed["history"] for event in month["events"]]
    number = segment["segment_id"]
    begins = {e["month"] for e in events if number in e["after"] and number not in e["before"]}
    ends = {e["month"] for e in events if e["kind"] in _ENDS and number in e["before"] and number not in e["after"]}
    stops = [max((place for place in marked if months[place] < month), default=None) for month in sorted(ends)]
    return Trend(
        known=_known([number], {number: segment}),
        living=segment["ended"] is None,
        story=_story(segment, events, {s["segment_id"]: s["name"] for s in followed["segments"]}, months[0]),
        sizes=sizes,
        summary=_summary(sizes, months),
        was=_was(sizes, months),
        line="".join(_path(line) for line in lines),
        area="".join(f"{_path(line)}V{_BASE}H{line[0][0]:g}Z" for line in lines),
        dots="".join(_dot(own[place]) for place in drawn),
        rings="".join(_dot(point) for point in shared),
        begins="".join(_dot(own[place]) for place in drawn if months[place] in begins),
        ends="".join(_bar(own[place] or shared[place]) for place in stops if place is not None),
    )


def _y(of_top: float) -> float:
    return round(_BASE - of_top * (_BASE - _TOP), 1)


_Point = tuple[float, float]


def _unbroken(points: Sequence[_Point | None]) -> list[list[_Point]]:
    """The points that stand side by side."""
    lines: list[list[_Point]] = [[]]
    for point in points:
        if point is None:
            lines.append([])
        else:
            lines[-1].append(point)
    return lines


def _path(points: Sequence[_Point]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


def _dot(point: _Point | None) -> str:
    """A line without length: with round ends it is a dot, however the drawing is stretched."""
    return "" if point is None else f"M{point[0]:g} {point[1]:g}h0"


def _bar(point: _Point | None) -> str:
    return "" if point is None else f"M{point[0]:g} {max(0, point[1] - 10):g}V{min(HEIGHT, point[1] + 10):g}"


def _own(sizes: Sequence[Size | None], months: Sequence[str]) -> list[tuple[float, str]]:
    """The figures that a segment has alone, with their months."""
    return [(size.own, month) for size, month in zip(sizes, months, strict=True) if size and size.own is not None]


def _was(sizes: Sequence[Size | None], months: Sequence[str]) -> str:
    own = _own(sizes, months)
    return f"{own[0][0]:.0%} in {short(own[0][1])}" if len(own) > 1 else ""


def _summary(sizes: Sequence[Size | None], months: Sequence[str]) -> str:
    own = _own(sizes, months)
    if not own:
        return "No month has a figure of its own."
    (first, began), (last, ended) = own[0], own[-1]
    return f"{first:.0%} in {short(began)}" + (f", {last:.0%} in {short(ended)}" if began != ended else "")


def _story(
    segment: Mapping[str, Any], events: Sequence[Mapping[str, Any]], names: Mapping[int, str], first: str
) -> list[str]:
    """How a segment began, what happened to it, and how it ended."""
    number = segment["segment_id"]
    told, began, ended = [], segment["born"] <= first, segment["ended"] is None
    for event in events:
        others = [
            f"“{names[n]}”" for n in {**dict.fromkeys(event["before"]), **dict.fromkeys(event["after"])} if n != number
        ]
        other, in_month = " and ".join(others), f"in {short(event['month'])}"
        was, is_now = number in event["before"], number in event["after"]
        began |= is_now and not was
        ended |= was and not is_now
        if event["kind"] == "split" and (was or is_now):
            told.append(f"{other} split off {in_month}" if was else f"split from {other} {in_month}")
        elif event["kind"] == "merge" and was and event.get("by_hand") and not is_now:
            told.append(f"merged into {other} {in_month}")
        elif event["kind"] == "merge" and was:
            told.append(
                f"took in {other} {in_month}" if is_now else f"one group with {other} since {short(event['month'])}"
            )
        elif was or is_now:
            told.append(f"{_LABELS[event['kind']].lower()} {in_month}")
    if not began:
        told.insert(0, f"told apart since {short(segment['born'])}")
    if not ended:
        told.append(f"no longer followed since {short(segment['ended'])}")
    return told


def _sizes_table(months: Sequence[str], trends: Sequence[Trend], min_people: int) -> Table:
    rows = [
        [
            *(month, trend.known.segment_ids[0], trend.known.name),
            *(f"<{min_people}" if size.people is None else size.people, size.share, "; ".join(size.shared_with)),
        ]
        for place, month in enumerate(months)
        for trend in trends
        if (size := trend.sizes[place]) is not None
    ]
    return Table("sizes-by-month", ["month", "segment_id", "segment", "people", "share", "together_with"], rows)


# --- flows -----------------------------------------------------------------------------------------

_Way = tuple[int, ...] | None  # segments; None for those who were not there


def _flows(followed: Mapping[str, Any], flows: Sequence[Mapping[str, Any]], min_people: int) -> Flows:
    segments = {segment["segment_id"]: segment for segment in followed["segments"]}
    people = {(_way(row["from_segments"]), _way(row["to_segments"])): row["people"] for row in flows}
    to = list(dict.fromkeys(way for _, way in people if way is not None))
    to.sort(key=lambda ids: min((c for number in ids for c in segments[number]["cluster_ids"]), default=0))
    column = {number: place for place, ids in enumerate(to) for number in ids}
    # A row stands where its column does, so that those who stayed are on the diagonal.
    sources = list(dict.fromkeys(way for way, _ in people if way is not None))
    sources.sort(key=lambda ids: min((column.get(number, len(to)) for number in ids), default=len(to)))
    then = [month for month in followed["history"] if month["month"] == followed["since"]]
    had = {segment["segment_id"]: segment["people"] for month in then for segment in month["segments"]}

    def flow(were: _Way, are: _Way) -> Flow | None:
        if (were, are) not in people:
            return None
        number = people[were, are]
        all_then = had.get(were[0]) if were and are is not None else None
        step = sum(number >= limit * all_then for limit in _DARKER) if number is not None and all_then else 0
        return Flow(number, step, bool(set(were or ()) & set(are or ())))

    ways: list[_Way] = [*sources, None]
    cells = [[flow(were, are) for are in [*to, None]] for were in ways]
    columns = [_known(ids, segments) for ids in to]
    labels = [None if ids is None else _known_before(ids, segments) for ids in ways]
    table = Table(
        "who-went-where",
        [
            f"segment in {followed['since']}",
            *(f"{known.name} in {followed['month']}" for known in columns),
            f"not active in {followed['month']}",
        ],
        [
            [
                f"not active in {followed['since']}" if known is None else known.name,
                *(None if cell is None else f"<{min_people}" if cell.people is None else cell.people for cell in row),
            ]
            for known, row in zip(labels, cells, strict=True)
        ],
    )
    return Flows(columns, list(zip(labels, cells, strict=True)), table)


def _known_before(ids: Sequence[int], segments: Mapping[int, Mapping[str, Any]]) -> Known:
    """What was a group in the month before: if it is in several clusters now, no one says in which it was then."""
    known = _known(ids, segments)
    return replace(known, numbers="") if "," in known.numbers else known


def _way(ids: Sequence[int] | None) -> _Way:
    return None if ids is None else tuple(ids)
