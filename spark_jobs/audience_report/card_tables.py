"""The tables of a report's cards, as they are offered as CSV."""

from collections.abc import Sequence
from typing import Any

from spark_jobs.audience_report.cards import ACTIVITY, Row, Segment, counted
from spark_jobs.audience_report.tables import Table


def segments_table(rows_shown: Sequence[Row], min_people: int) -> Table:
    """The segments, a row each."""
    columns = ["cluster_id", "name", "people", "share", "solidity", "stability"]
    followed = any(row.segment_ids for row in rows_shown)
    rows: list[list[Any]] = []
    for row in rows_shown:
        part = row.parts[0] if len(row.parts) == 1 else None  # figures of parts can't be added up
        activity = [None] * len(ACTIVITY) if part is None else [*part.activity.values()]
        rows.append(
            [
                part.cluster_id if part is not None else " ".join(str(each.cluster_id) for each in row.parts),
                *(row.name, counted(row.people, min_people), row.share, " ".join(row.solidities)),
                *(None if part is None else part.stability, *activity, "; ".join(row.into)),
                *([" ".join(map(str, row.segment_ids))] if followed else []),
            ]
        )
    columns += [*(f"actions_{name}" for name in ACTIVITY), "into", *(["segment_ids"] if followed else [])]
    return Table("segments", columns, rows)


def distinctive_table(segments: Sequence[Segment]) -> Table:
    """The pages that set the segments apart, a row a segment and page."""
    columns = ["dimension_id", "dimension_name", "people", "share", "rest_share", "lift", "low", "high"]
    return Table(
        "distinctive-pages",
        ["cluster_id", "segment", *columns],
        [
            [segment.cluster_id, segment.name, *(page[column] for column in columns)]
            for segment in segments
            for page in segment.distinctive
        ],
    )


def gender_table(segments: Sequence[Segment]) -> Table:
    """The gender split of the segments, a row a segment and gender."""
    rows = [
        [segment.cluster_id, segment.name, gender, share] for segment in segments for gender, share in segment.gender
    ]
    return Table("gender", ["cluster_id", "segment", "gender", "share"], rows)
