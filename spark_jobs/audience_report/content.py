"""What a report says, made from an output of kmeans and the output of k_selection that it took its k from.

All figures are published ones (`spark_jobs.clusters.published`): those that are exact in what is read, such as the
users of a manifest, are rounded here, and no text that a job wrote about exact figures is taken over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spark_jobs.audience_report import answer, card_tables, certainty, curves, heat_map, making, mix
from spark_jobs.audience_report.baselines import Baseline, baselines_of, comparisons_table
from spark_jobs.audience_report.cards import Row, Segment, rows_of, segment_of
from spark_jobs.audience_report.heat_map import HeatRow
from spark_jobs.audience_report.months import Months, known_clusters, months_of, period
from spark_jobs.audience_report.quality import Quality, Sources, quality_of
from spark_jobs.audience_report.tables import Table
from spark_jobs.clusters import published
from spark_jobs.clusters.clearness import Clearness
from spark_jobs.outputs import Manifest


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
    curve: curves.Curve | None
    tried: Table | None
    verdict_text: Sequence[str]
    statistics: str  # the same, for statisticians; empty where nothing was measured
    found_from: str  # whom the segments were found from; empty where it is everybody
    quality: Quality
    checks: Table
    parameters: Table
    command: str
    using: Sequence[tuple[str, str]]  # what can be done with the segments, and the command for it
    months: Months | None  # where segments are followed
    clearness: Mapping[int, Clearness]  # by cluster; only of those of which it can be said
    baselines: Mapping[int, Sequence[Baseline]]  # by cluster: what it is compared with
    does: mix.Doing | None  # what all people do; None where it is not known

    @property
    def period(self) -> str:
        """The month, such as `March 2024`."""
        return period(self.month)

    @property
    def curve_caption(self) -> str:
        """What the curve shows."""
        assert self.curve is not None
        return certainty.curve_caption(self.curve)

    def whole_of(self, part: Segment) -> Row:
        """The segment that a cluster is a part of."""
        return next(row for row in self.rows if part in row.parts)

    @property
    def segments_table(self) -> Table:
        """The segments, a row each."""
        return card_tables.segments_table(self.rows, self.min_people)

    @property
    def distinctive_table(self) -> Table:
        """The pages that set the segments apart, a row a segment and page."""
        return card_tables.distinctive_table(self.segments)

    @property
    def comparisons_table(self) -> Table:
        """The pages that set the segments apart from other baselines than all others."""
        return comparisons_table(self.segments, self.baselines)

    @property
    def gender_table(self) -> Table:
        """The gender split of the segments, a row a segment and gender."""
        return card_tables.gender_table(self.segments)

    @property
    def actions_table(self) -> Table:
        """What the people of the segments do, a row a segment and action."""
        return mix.table((segment.cluster_id, segment.name, segment.does) for segment in self.segments)

    @property
    def heat_table(self) -> Table:
        """The shares of the heat map, a row a page."""
        return heat_map.heat_table(self.heat, self.segments)


@dataclass(frozen=True)
class ReportInputs:
    """What the report of a category in a month is made from.

    Attributes:
        month: Such as `2024-03`.
        category: Its name.
        private: Whether it is a private one.
        kmeans: The manifest of the output of kmeans.
        summary: Its `summary.json`.
        profiles: The rows of its `profiles.parquet`: a segment and page each.
        k_selection: The manifest of the output of k_selection that k is from; None if k was given.
        followed: The `segments.json` of the followed segments of these clusters; None where they are not followed.
        flows: The rows of their `flows.parquet`.
        sources: What the clusters were made from; empty where that is not known.
        clearness: How clearly people belong, by cluster; without those of which it can't be said.
        comparisons: The rows of its `comparisons.parquet` that are shown.
    """

    month: str
    category: str
    private: bool
    kmeans: Manifest
    summary: Mapping[str, Any]
    profiles: Sequence[Mapping[str, Any]]
    k_selection: Manifest | None
    followed: Mapping[str, Any] | None
    flows: Sequence[Mapping[str, Any]]
    sources: Sources
    clearness: Mapping[int, Clearness]
    comparisons: Sequence[Mapping[str, Any]]

    @property
    def min_people(self) -> int:
        """Of how many people at least something may be said."""
        return int(self.kmeans["config"].get("min_people", 10))

    @property
    def users(self) -> int:
        """How many people there are, which may not be shown as it is."""
        return int(self.kmeans["summary"]["users"])

    @property
    def people(self) -> int | None:
        """How many people there are, as it may be shown; None if nothing may be said of them."""
        return published.count(self.users, self.min_people)

    @property
    def apart(self) -> bool:
        """Whether there are segments to tell apart: few people are not described by their pages and scores either."""
        return self.people is not None and self.summary["k"] > 1

    @property
    def chosen(self) -> Mapping[str, Any] | None:
        """How k was chosen, where that may be said."""
        return None if self.k_selection is None or self.people is None else self.k_selection["summary"]


def content_of(read: ReportInputs) -> Content:
    """What the report of a category in a month says."""
    kmeans, summary, people, least = read.kmeans, read.summary, read.people, read.min_people
    # Code version 5 of kmeans has none; of few people, nothing is said of any.
    of_all = summary.get("actions") if people is not None and people >= heat_map.PERCENT_FROM else None
    segments = _segments(read, of_all)
    rows = rows_of(segments, read.followed)
    chosen = read.chosen
    headline, lede, advice = answer.answer(summary, rows, people, read.users, least)
    if people is not None and read.k_selection is not None and summary["verdict"] == "too_few":
        lede = [f"{people:,} people, of whom {certainty.judged(read.k_selection, least)} to judge by. {' '.join(lede)}"]
    by_choice = read.k_selection if chosen else None
    min_actions = int(kmeans["summary"]["clustering_inputs"]["min_actions"])
    learned_from = kmeans["summary"]["learned_from"]
    return Content(
        month=read.month,
        category=read.category,
        private=read.private,
        min_people=least,
        people=people,
        verdict=summary["verdict"],
        headline=headline,
        who=answer.who(read.month, min_actions) if people is not None else "",
        lede=lede,
        advice=advice,
        segments=segments,
        rows=rows,
        heat=heat_map.heat_map(segments, read.profiles, people) if read.apart else [],
        liked=heat_map.liked(read.profiles, people) if people is not None and not read.apart else None,
        curve=certainty.curve_of(chosen) if chosen else None,
        tried=certainty.tried(chosen, least) if chosen and chosen["tried"] else None,
        verdict_text=certainty.verdict(summary, by_choice, least, len(rows) < len(segments)),
        statistics=certainty.statistics(chosen) if chosen else "",
        found_from=certainty.found_from(learned_from, read.users, least) if read.apart else "",
        quality=quality_of(kmeans, people, least, read.sources, read.followed),
        checks=making.checks_of(kmeans),
        parameters=making.parameters(kmeans, read.k_selection),
        command=making.command(read.month, read.category, kmeans, read.k_selection),
        using=making.using(read.month, read.category, rows, read.followed) if rows else [],
        months=None if read.followed is None else months_of(read.followed, read.flows, read.apart, least),
        clearness=read.clearness,
        baselines=baselines_of(segments, read.comparisons, read.profiles) if read.comparisons else {},
        does=mix.doing(of_all, of_all, people),
    )


def _segments(read: ReportInputs, of_all: Mapping[str, Any] | None) -> list[Segment]:
    if not read.apart:
        return []
    known = known_clusters(read.followed) if read.followed is not None else {}
    return [segment_of(row, known.get(row["cluster_id"]), of_all) for row in read.summary["segments"]]
