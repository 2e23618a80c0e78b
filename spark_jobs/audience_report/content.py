"""What a report says, made from an output of kmeans and the output of k_selection that it took its k from.

All figures are published ones (`spark_jobs.clusters.published`): those that are exact in what is read, such as the
users of a manifest, are rounded here, and no text that a job wrote about exact figures is taken over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
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
    sources: Sources | None = None,
    clearness: Mapping[int, Clearness] = MappingProxyType({}),
    comparisons: Sequence[Mapping[str, Any]] = (),
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
        sources: What the clusters were made from; None where that is not known.
        clearness: How clearly people belong, by cluster; without those of which it can't be said.
        comparisons: The rows of its `comparisons.parquet` that are shown.
    """
    config = kmeans["config"]
    min_people = int(config.get("min_people", 10))
    users = int(kmeans["summary"]["users"])
    people = published.count(users, min_people)
    # One that is too small to be said anything of is not described by its pages and scores either.
    described = people is not None
    apart = described and summary["k"] > 1
    known = known_clusters(followed) if followed is not None else {}
    # Code version 5 of kmeans has none; of few people, nothing is said of any.
    of_all = summary.get("actions") if people is not None and people >= heat_map.PERCENT_FROM else None
    segments = [segment_of(row, known.get(row["cluster_id"]), of_all) for row in summary["segments"]] if apart else []
    rows = rows_of(segments, followed)
    heat = heat_map.heat_map(segments, profiles, people) if apart else []
    chosen = k_selection["summary"] if k_selection is not None and described else None
    headline, lede, advice = answer.answer(summary, rows, people, users, min_people)
    if people is not None and k_selection is not None and summary["verdict"] == "too_few":
        lede = [f"{people:,} people, of whom {certainty.judged(k_selection, min_people)} to judge by. {' '.join(lede)}"]
    return Content(
        month=month,
        category=category,
        private=private,
        min_people=min_people,
        people=people,
        verdict=summary["verdict"],
        headline=headline,
        who=answer.who(month, int(kmeans["summary"]["clustering_inputs"]["min_actions"])) if described else "",
        lede=lede,
        advice=advice,
        segments=segments,
        rows=rows,
        heat=heat,
        liked=heat_map.liked(profiles, people) if people is not None and not apart else None,
        curve=certainty.curve_of(chosen) if chosen else None,
        tried=certainty.tried(chosen, min_people) if chosen and chosen["tried"] else None,
        verdict_text=certainty.verdict(summary, k_selection if chosen else None, min_people, len(rows) < len(segments)),
        statistics=certainty.statistics(chosen) if chosen else "",
        found_from=certainty.found_from(kmeans["summary"]["learned_from"], users, min_people) if apart else "",
        quality=quality_of(kmeans, people, min_people, sources or Sources(), followed),
        checks=making.checks_of(kmeans),
        parameters=making.parameters(kmeans, k_selection),
        command=making.command(month, category, kmeans, k_selection),
        using=making.using(month, category, rows, followed) if rows else [],
        months=None if followed is None else months_of(followed, flows, apart, min_people),
        clearness=clearness,
        baselines=baselines_of(segments, comparisons, profiles) if comparisons else {},
        does=mix.doing(of_all, of_all, people),
    )
