"""What a report says, made from an output of kmeans and the output of k_selection that it took its k from.

All figures are published ones (`spark_jobs.clusters.published`): those that are exact in what is read, such as the
users of a manifest, are rounded here, and no text that a job wrote about exact figures is taken over.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

from spark_jobs.audience_report import curves, mix
from spark_jobs.audience_report.months import Known, Months, known_clusters, months_of, period
from spark_jobs.audience_report.tables import Table
from spark_jobs.clusters import published
from spark_jobs.config import ClusteringInputsConfig, KMeansConfig, KSelectionConfig, StepConfig
from spark_jobs.options import to_arguments
from spark_jobs.outputs import Manifest

MOST_PAGES = 40  # of the heat map

_PERCENT_FROM = 200  # people: of fewer, a share by figures that are rounded to tens is too rough to be shown
_CLEARLY = 2.0  # times the evidence that is needed

SOLIDITIES = {  # and what each means
    "solid": "found again among other people like these",
    "fair": "mostly found again among other people like these",
    "doubtful": "often comes out otherwise among other people like these: don't rely on it",
}
_STRONG = (1.2, 1.6, 2.5, 4.0)  # times as usual elsewhere, from which a cell of the heat map is darker
_WORDS = ["No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve"]
_CHECKS = {
    "schema": "All tables have their columns, types and rules",
    "every_user_once": "Everybody is in one segment, nobody in two, and all files agree",
    "centers_in_range": "Every center lies within the data",
    "figures_published": "No published figure is of too few people",
}
_PREDICTION = "prediction"
_BY_SCORE = {
    _PREDICTION: "How well segments that are seen on half of the pages predict the other half; 0 is no better than"
    " popularity alone."
}
_AT_LEAST = {_PREDICTION: (0.0, 0.1)}  # what the scale has: in a smaller one, differences of nothing look like a cliff
_SCORES = {
    "prediction": _PREDICTION,
    "silhouette": "silhouette",
    "calinski_harabasz": "Calinski-Harabasz index",
    "elbow": "distance to the centers",
}


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


@dataclass(frozen=True)
class Segment:
    """A cluster, as its card shows it: a segment, or a part of one."""

    number: int  # from 1
    cluster_id: int
    name: str
    part_of: str  # the name of the segment that it is a part of; empty where it is a segment of its own
    color: int
    segment_ids: Sequence[int]  # where segments are followed
    people: int | None
    share: float | None
    solidity: str  # empty where it is not known
    what_it_means: str
    stability: float | None
    activity: Mapping[str, float | None]
    gender: Sequence[tuple[str, float | None]]
    distinctive: Sequence[Mapping[str, Any]]
    typical: Sequence[str]
    does: "mix.Doing | None" = None  # None where it is not known

    @property
    def told_gender(self) -> str:
        """The gender split, such as `f: 55%, m: 40%`, or by code; what is not published is left out."""
        told = [(gender, share) for gender, share in self.gender if share]
        coded = any(gender.isdigit() for gender, _ in told)
        split = ", ".join(f"{'code ' if gender.isdigit() else ''}{gender}: {share:.0%}" for gender, share in told)
        return f"{split} (the codes are those of your data)" if coded else split

    @property
    def into(self) -> list[str]:
        """The names of the pages that set it apart, the strongest first."""
        return [page["dimension_name"] for page in self.distinctive]


@dataclass(frozen=True)
class Row:
    """A segment in the overview, with all of its parts. Where segments are not followed, each cluster is one."""

    name: str
    color: int
    segment_ids: Sequence[int]  # where segments are followed
    people: int | None
    share: float | None
    parts: Sequence[Segment]

    @property
    def numbers(self) -> str:
        """The numbers of its cards, such as `1, 4`."""
        return ", ".join(str(part.number) for part in self.parts)

    @property
    def drawn(self) -> float:
        """The share, as a length."""
        return self.share or 0.0

    @property
    def solidities(self) -> list[str]:
        """How solid its parts are, the most solid first; none where it is not known."""
        return [name for name in SOLIDITIES if any(part.solidity == name for part in self.parts)]

    @property
    def into(self) -> list[str]:
        """The names of the pages that set its parts apart, the strongest first."""
        by_rank = zip_longest(*(part.into for part in self.parts))
        return list(dict.fromkeys(page for page in chain.from_iterable(by_rank) if page is not None))

    @property
    def told_into(self) -> str:
        """What it is into, beside what its name says already."""
        if not self.into:
            return "nothing in particular"
        others = [page for page in self.into if page not in self.name]
        if not others:
            return ""
        return f"{'also' if len(others) < len(self.into) else 'into'} {', '.join(others[:3])}"


@dataclass(frozen=True)
class Content:
    """All that a report says. What is empty or None is left out of the page."""

    month: str
    category: str
    private: bool
    min_people: int
    people: int | None
    verdict: str | None
    headline: str
    who: str  # who is counted; empty where there is nobody to say it of
    lede: Sequence[str]
    advice: str
    segments: Sequence[Segment]  # none where there are no segments to draw
    rows: Sequence[Row]  # the same people by segments, the largest first: what is counted and compared
    heat: Sequence[HeatRow]
    liked: Table | None  # the pages, where everybody is one audience
    curve: "curves.Curve | None"
    tried: Table | None
    verdict_text: Sequence[str]
    statistics: str  # the same, for statisticians; empty where nothing was measured
    found_from: str  # whom the segments were found from; empty where it is everybody
    quality: Table
    checks: Table
    parameters: Table
    command: str
    using: Sequence[tuple[str, str]]  # what can be done with the segments, and the command for it
    months: Months | None  # where segments are followed
    does: "mix.Doing | None" = None  # what all people do; None where it is not known

    @property
    def period(self) -> str:
        """The month, such as `March 2024`."""
        return period(self.month)

    @property
    def curve_caption(self) -> str:
        """What the curve shows."""
        assert self.curve is not None
        by = _BY_SCORE.get(self.curve.score, f"The {self.curve.score} by number of segments.")
        return f"{by} The filled dot is the number that was taken."

    def whole_of(self, part: Segment) -> Row:
        """The segment that a cluster is a part of."""
        return next(row for row in self.rows if part in row.parts)

    @property
    def segments_table(self) -> Table:
        """The segments, a row each."""
        columns = ["cluster_id", "name", "people", "share", "solidity", "stability"]
        followed = any(row.segment_ids for row in self.rows)
        rows: list[list[Any]] = []
        for row in self.rows:
            part = row.parts[0] if len(row.parts) == 1 else None  # figures of parts can't be added up
            activity = [None] * len(_ACTIVITY) if part is None else [*part.activity.values()]
            rows.append(
                [
                    part.cluster_id if part is not None else " ".join(str(each.cluster_id) for each in row.parts),
                    *(row.name, _counted(row.people, self.min_people), row.share, " ".join(row.solidities)),
                    *(None if part is None else part.stability, *activity, "; ".join(row.into)),
                    *([" ".join(map(str, row.segment_ids))] if followed else []),
                ]
            )
        columns += [*(f"actions_{name}" for name in _ACTIVITY), "into", *(["segment_ids"] if followed else [])]
        return Table("segments", columns, rows)

    @property
    def distinctive_table(self) -> Table:
        """The pages that set the segments apart, a row a segment and page."""
        columns = ["dimension_id", "dimension_name", "people", "share", "rest_share", "lift", "low", "high"]
        return Table(
            "distinctive-pages",
            ["cluster_id", "segment", *columns],
            [
                [segment.cluster_id, segment.name, *(page[column] for column in columns)]
                for segment in self.segments
                for page in segment.distinctive
            ],
        )

    @property
    def gender_table(self) -> Table:
        """The gender split of the segments, a row a segment and gender."""
        rows = [
            [segment.cluster_id, segment.name, gender, share]
            for segment in self.segments
            for gender, share in segment.gender
        ]
        return Table("gender", ["cluster_id", "segment", "gender", "share"], rows)

    @property
    def actions_table(self) -> Table:
        """What the people of the segments do, a row a segment and action."""
        return mix.table((segment.cluster_id, segment.name, segment.does) for segment in self.segments)

    @property
    def heat_table(self) -> Table:
        """The shares of the heat map, a row a page."""
        return Table(
            "pages-by-segment",
            ["dimension_id", "dimension_name", "everybody", *(segment.name for segment in self.segments)],
            [[row.page_id, row.name, row.everybody, *(cell.share for cell in row.cells)] for row in self.heat],
        )


_ACTIVITY = ("quartile_1", "median", "quartile_3")


def content_of(
    month: str,
    category: str,
    private: bool,
    kmeans: Manifest,
    summary: Mapping[str, Any],
    profiles: Sequence[Mapping[str, Any]],
    k_selection: Manifest | None,
    followed: Mapping[str, Any] | None = None,
    flows: Sequence[Mapping[str, Any]] = (),
) -> Content:
    """What the report of a category in a month says.

    Args:
        month: Such as `2024-03`.
        category: Its name.
        private: Whether it is a private one.
        kmeans: The manifest of the output of kmeans.
        summary: Its `summary.json`.
        profiles: The rows of its `profiles.parquet`: a segment and page each.
        k_selection: The manifest of the output of k_selection that k is from; None if k was given.
        followed: The `segments.json` of the followed segments of these clusters; None where they are not followed.
        flows: The rows of their `flows.parquet`.
    """
    config = kmeans["config"]
    min_people = int(config.get("min_people", 10))
    users = int(kmeans["summary"]["users"])
    people = published.count(users, min_people)
    # One that is too small to be said anything of is not described by its pages and scores either.
    described = people is not None
    apart = described and summary["k"] > 1
    known = known_clusters(followed) if followed is not None else {}
    of_all = summary.get("actions")  # code version 5 of kmeans has none
    segments = [_segment(row, known.get(row["cluster_id"]), of_all) for row in summary["segments"]] if apart else []
    rows = _rows(segments, followed)
    heat = _heat_map(segments, profiles, people) if apart else []
    chosen = k_selection["summary"] if k_selection is not None and described else None
    headline, lede, advice = _answer(summary, rows, people, users, min_people)
    if people is not None and k_selection is not None and summary["verdict"] == "too_few":
        lede = [f"{people:,} people, of whom {_judged(k_selection, min_people)} to judge by. {' '.join(lede)}"]
    return Content(
        month=month,
        category=category,
        private=private,
        min_people=min_people,
        people=people,
        verdict=summary["verdict"],
        headline=headline,
        who=_who(month, int(kmeans["summary"]["clustering_inputs"]["min_actions"])) if described else "",
        lede=lede,
        advice=advice,
        segments=segments,
        rows=rows,
        heat=heat,
        liked=_liked(profiles, people) if people is not None and not apart else None,
        curve=_curve(chosen) if chosen else None,
        tried=_tried(chosen, min_people) if chosen and chosen["tried"] else None,
        verdict_text=_verdict(summary, k_selection if chosen else None, min_people, len(rows) < len(segments)),
        statistics=_statistics(chosen) if chosen else "",
        found_from=_found_from(kmeans["summary"]["learned_from"], users, min_people) if apart else "",
        quality=_quality(kmeans, people, min_people),
        checks=Table(
            "checks",
            ["check", "result"],
            [
                [_CHECKS.get(name, name), "passed" if check["passed"] else "failed"]
                for name, check in kmeans.get("checks", {}).items()
            ],
        ),
        parameters=_parameters(kmeans, k_selection),
        command=_command(month, category, kmeans, k_selection),
        using=_using(month, category, rows, followed) if rows else [],
        months=None if followed is None else months_of(followed, flows, apart, min_people),
        does=mix.doing(of_all, of_all, people),
    )


def in_words(number: int) -> str:
    """A number of things, at the beginning of a sentence."""
    return _WORDS[number] if number < len(_WORDS) else str(number)


def _who(month: str, min_actions: int) -> str:
    """Who is counted, and what being on a page is."""
    often = f" at least {min_actions} times in all" if min_actions > 1 else ""
    return (
        f"People who liked or commented on one or more of this category's pages, or posts of theirs,{often} in"
        f" {period(month)}. Whoever did so is “on” that page."
    )


def _answer(
    summary: Mapping[str, Any], rows: Sequence[Row], people: int | None, users: int, min_people: int
) -> tuple[str, list[str], str]:
    """The headline, what comes after it, and what to do."""
    verdict, k = summary["verdict"], int(summary["k"])
    if not users:
        return (
            "Nobody",
            ["No user of this month has an action on this category's pages."],
            "Ask whoever runs Audience Explorer to check this category's page ids, and whether the month's raw data has"
            " these pages.",
        )
    if people is None:
        return f"Fewer than {min_people} people", ["Of so few people, nothing more is said."], ""
    if verdict == "none":
        return (
            f"No segments: {people:,} people are one audience",
            ["What somebody likes says nothing about what else they like, beyond what is popular with everybody."],
            "Treat them as one audience. To look again, with more people and more pages, ask whoever runs Audience"
            " Explorer to put this category together with related ones.",
        )
    if verdict == "too_few":
        return (
            f"Too few active people to tell segments: {people:,} in all",
            ["There may be segments, but so few people can't show them."],
            "Treat them as one audience for now. Wait for a month with more people, or ask whoever runs Audience"
            " Explorer to add pages to this category.",
        )
    if k == 1:
        return f"{people:,} people, in one group as asked for", [], ""
    if verdict is None:
        headline = f"{in_words(len(rows))} groups among {people:,} people"
        origin = [
            f"Somebody set the number to {in_words(k).lower()}. Whether there really are {in_words(k).lower()} was not"
            " checked."
        ]
    else:
        headline, origin = f"{in_words(len(rows))} segments among {people:,} people", []
    return headline, [_sizes(rows, min_people), *origin], ""


def _sizes(rows: Sequence[Row], min_people: int) -> str:
    largest, smallest = rows[0], rows[-1]

    def told(row: Row) -> str:
        return f"fewer than {min_people} people" if row.share is None else f"{row.share:.0%}"

    return (
        f"The largest is “{largest.name}” with {told(largest)}, the smallest “{smallest.name}” with {told(smallest)}."
    )


def _rows(segments: Sequence[Segment], followed: Mapping[str, Any] | None) -> list[Row]:
    """The segments, the largest first; one of several parts has figures of its own, for rounded ones don't add up."""
    sizes = {} if followed is None else {row["segment_id"]: row for row in followed["segments"]}
    parts: dict[tuple[int, ...], list[Segment]] = {}
    for segment in segments:
        of = tuple(segment.segment_ids) if segment.part_of else (-segment.number,)
        parts.setdefault(of, []).append(segment)
    rows = []
    for of, own in parts.items():
        first = own[0]
        people, share = first.people, first.share
        if first.part_of:
            people, share = sizes[of[0]]["people"], sizes[of[0]]["share"]
        name = first.part_of or first.name
        rows.append(Row(name, first.color, first.segment_ids, people, share, own))
    return sorted(rows, key=lambda row: -(row.people or 0))


def _segment(row: Mapping[str, Any], known: Known | None, of_all: Mapping[str, Any] | None) -> Segment:
    solidity = row["solidity"] if row["solidity"] in SOLIDITIES else ""
    stability = row["stability"]
    gender = sorted(row["gender"].items(), key=lambda item: (item[0] == "0", item[0]))
    return Segment(
        number=row["cluster_id"] + 1,
        cluster_id=row["cluster_id"],
        name=row["name"] if known is None else known.name,
        part_of="" if known is None else known.part_of,
        color=row["cluster_id"] if known is None else known.color,
        segment_ids=() if known is None else known.segment_ids,
        people=row["people"],
        share=row["share"],
        solidity=solidity,
        what_it_means=SOLIDITIES.get(solidity, ""),
        stability=None if stability is None else round(stability, 2),
        activity={name: row["activity"].get(name) for name in _ACTIVITY},
        gender=[("not known" if value == "0" else value, share) for value, share in gender],
        distinctive=row["distinctive"],
        typical=row["typical"],
        does=mix.doing(row.get("actions"), of_all, row["people"]),
    )


def _counted(people: int | None, min_people: int) -> int | str:
    return f"<{min_people}" if people is None else people


# --- the heat map ----------------------------------------------------------------------------------


def _heat_map(segments: Sequence[Segment], profiles: Sequence[Mapping[str, Any]], people: int | None) -> list[HeatRow]:
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


def _liked(profiles: Sequence[Mapping[str, Any]], people: int) -> Table | None:
    """The pages that most people are on, where all of them are one audience."""
    rows = sorted(
        (row for row in profiles if row["people"] is not None),
        key=lambda row: (-row["people"], row["dimension_id"]),
    )[:MOST_PAGES]
    if not rows:
        return None
    shares = people >= _PERCENT_FROM
    return Table(
        "pages",
        ["page", "people", *(["share"] if shares else [])],
        [
            [row["dimension_name"] or row["dimension_id"], row["people"], *([row["share"]] if shares else [])]
            for row in rows
        ],
    )


# --- the verdict -----------------------------------------------------------------------------------


def _verdict(summary: Mapping[str, Any], k_selection: Manifest | None, min_people: int, parts: bool) -> list[str]:
    """How sure it is, in plain words."""
    if k_selection is None:
        return [] if summary["verdict"] else ["Whether there are segments, and how many, was not checked: k was given."]
    if summary["verdict"] == "too_few":
        return []  # what is to be said is said first
    told = [_how_sure(summary["verdict"], k_selection["summary"])]
    if summary["verdict"] == "segments":
        told.append("How many there are is less sure than that there are some.")
    if parts:
        told.append("The number below is that of the groups that were found; some of them are parts of one segment.")
    told.append(f"Of all, {_judged(k_selection, min_people)} to judge by.")
    return told


def _how_sure(verdict: str, chosen: Mapping[str, Any]) -> str:
    evidence, needed = chosen.get("evidence"), float(chosen.get("evidence_needed") or 0)
    if verdict == "segments":
        if evidence is None:
            return "There are segments."
        very, far = ("Very sure", "far more") if evidence >= _CLEARLY * needed else ("Sure", "more")
        return f"{very} that there are segments: what people like hangs together {far} than chance would do."
    if evidence is None:
        return "It takes more pages to see segments, or any number of them would leave one with too few people."
    if evidence < needed:
        return "No sign of segments: the pages hang together no more than chance could do."
    return "What people like hangs together a little, but what is popular says as much about it as segments would."


def _judged(k_selection: Manifest, min_people: int) -> str:
    """How many people did enough, such as `about 10 did enough (8 or more likes or comments each)`."""
    judged = published.count(int(k_selection["summary"]["people_judged"]), min_people)
    least = int(k_selection["config"]["fit_min_actions"])
    often = f" ({least} or more likes or comments each)" if least > 1 else ""
    return f"{f'about {judged:,}' if judged is not None else f'fewer than {min_people}'} did enough{often}"


def _statistics(chosen: Mapping[str, Any]) -> str:
    evidence, needed = chosen.get("evidence"), chosen.get("evidence_needed")
    if evidence is None:
        return ""
    return (
        f"The evidence that there are segments is {round(evidence, 1) + 0.0:.1f}, in standard errors; {needed:.1f} is"
        f" what at most 1 in {1 / chosen['false_alarm_rate']:.0f} audiences without segments reach."
    )


def _found_from(learned: Mapping[str, Any], users: int, min_people: int) -> str:
    """Whom the segments were found from, if not everybody."""
    number = published.count(int(learned["users"]), min_people)
    if number is None or not learned["min_actions"] or learned["users"] >= users:
        return ""
    return (
        f"The segments were found from the {number:,} most active people ({learned['min_actions']} or more likes or"
        " comments); the others were put into the segment that they fit best."
    )


def _curve(chosen: Mapping[str, Any]) -> "curves.Curve | None":
    score = _score_of(chosen)
    points = [(row["k"], row[score]) for row in chosen["tried"] if row.get(score) is not None]
    if len(points) < 2:
        return None
    return curves.curve(points, int(chosen["k"]), _SCORES[chosen["criterion"]], _AT_LEAST.get(chosen["criterion"]))


def _score_of(chosen: Mapping[str, Any]) -> str:
    return "wssse" if chosen["criterion"] == "elbow" else str(chosen["criterion"])


def _tried(chosen: Mapping[str, Any], min_people: int) -> Table:
    scores = list(dict.fromkeys([_score_of(chosen), "silhouette"]))
    rows = [
        [
            row["k"],
            # Without the sign that -0.0 has.
            *(None if row.get(score) is None else round(row[score], 3) + 0.0 for score in scores),
            _counted(published.count(int(row["smallest_segment"]), min_people), min_people),
        ]
        for row in chosen["tried"]
    ]
    return Table("number-of-segments", ["k", *scores, "smallest segment"], rows)


# --- how it was made -------------------------------------------------------------------------------


def _quality(kmeans: Manifest, people: int | None, min_people: int) -> Table:
    summary = kmeans["summary"]
    learned = summary["learned_from"]
    rows: list[list[Any]] = [["people", _counted(people, min_people)]]
    if people is not None:
        learned_from = published.count(int(learned["users"]), min_people)
        active = f" (at least {learned['min_actions']} likes or comments)" if learned["min_actions"] else ""
        rows += [
            [f"people active enough to find segments by{active}", _counted(learned_from, min_people)],
            ["converged", "yes" if summary["converged"] else "no"],
        ]
    return Table("data-quality", ["what", "value"], [*rows, ["computed by", summary["engine"]]])


def _parameters(kmeans: Manifest, k_selection: Manifest | None) -> Table:
    steps: list[tuple[str, Mapping[str, Any]]] = [("clustering_inputs", kmeans["summary"]["clustering_inputs"])]
    steps += [("k_selection", k_selection["config"])] if k_selection is not None else []
    steps += [("kmeans", kmeans["config"])]
    rows = [[step, *pair] for step, config in steps for pair in _flat(config)]
    return Table("parameters", ["step", "parameter", "value"], rows)


def _flat(config: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{key}", part) for key, part in _flat(value))
        elif name != "label" and value is not None:
            # A label names a variant, and the same result may have several.
            yield name, str(value)


def _command(month: str, category: str, kmeans: Manifest, k_selection: Manifest | None) -> str:
    """The command that makes it again: what is not given has its default."""
    options = [
        *_not_default(ClusteringInputsConfig, kmeans["summary"]["clustering_inputs"]),
        *(_not_default(KSelectionConfig, k_selection["config"], _OF_KMEANS_ALONE) if k_selection is not None else ()),
        *_not_default(KMeansConfig, kmeans["config"], {"label"}),
    ]
    return " ".join(["audience-explorer pipeline", f"--month {month}", f"--category {category}", *options])


def _using(month: str, category: str, rows: Sequence[Row], followed: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What to do with the segments: commands for the first of them."""
    first, of = rows[0], shlex.quote(category)
    names = {} if followed is None else {row["segment_id"]: row["name"] for row in followed["segments"]}
    # What is not followed, or not told apart this month, has no name by which it could be asked for.
    asked = f"--cluster {first.parts[0].cluster_id}"
    if first.segment_ids:
        asked = f"--segment {shlex.quote(names[first.segment_ids[0]])}"
    export = f"audience-explorer export --category {of} --month {month} {asked} --output people.csv"
    told = [(f"The people of “{first.name}”, in a file:", export)]
    if first.segment_ids:
        rename = f"audience-explorer segments rename {of} {first.segment_ids[0]} 'A better name'"
        told.append(("Another name for it, in all months:", rename))
    return told


_OF_KMEANS_ALONE = {"n_init", "seed", "fit_min_actions"}  # options of the command by these names set kmeans's


def _not_default(model: type[StepConfig], config: Mapping[str, Any], but: Iterable[str] = ()) -> list[str]:
    default = to_arguments(model())
    pairs = to_arguments(model(**{name: value for name, value in config.items() if name not in set(but)}))
    known = set(zip(default[::2], default[1::2], strict=True))
    return [
        f"{option} {shlex.quote(value)}"
        for option, value in zip(pairs[::2], pairs[1::2], strict=True)
        if (option, value) not in known
    ]
