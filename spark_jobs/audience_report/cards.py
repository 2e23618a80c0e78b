"""The cards of a report: a cluster each, and the segments that clusters are, or are parts of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

from spark_jobs.audience_report import mix
from spark_jobs.audience_report.months import Known

SOLIDITIES = {  # and what each means
    "solid": "found again among other people like these",
    "fair": "mostly found again among other people like these",
    "doubtful": "often comes out otherwise among other people like these: don't rely on it",
}
ACTIVITY = ("quartile_1", "median", "quartile_3")


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
    does: mix.Doing | None  # None where it is not known

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


def rows_of(segments: Sequence[Segment], followed: Mapping[str, Any] | None) -> list[Row]:
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


def segment_of(row: Mapping[str, Any], known: Known | None, of_all: Mapping[str, Any] | None) -> Segment:
    """The card of a cluster.

    Args:
        row: The one of the cluster in `summary.json`.
        known: The segment that it is, if it is followed.
        of_all: What all people of the category do, as `summary.json` has it; None where it is not known.
    """
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
        activity={name: row["activity"].get(name) for name in ACTIVITY},
        gender=[("not known" if value == "0" else value, share) for value, share in gender],
        distinctive=row["distinctive"],
        typical=row["typical"],
        does=mix.doing(row.get("actions"), of_all, row["people"]),
    )


def counted(people: int | None, min_people: int) -> int | str:
    """A published count, or that it is of fewer people than may be said."""
    return f"<{min_people}" if people is None else people
