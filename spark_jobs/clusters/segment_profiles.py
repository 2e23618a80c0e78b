"""What each segment is, in figures that may be published: its people, what sets it apart, and a name.

How many people like what is counted of everybody. What sets a segment apart, and who is typical of it, is measured on
people who are drawn at random where there are many, so that it takes bounded time on any audience.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from spark_jobs.clusters import action_mix, baselines, clustering, names, published, stability
from spark_jobs.clusters.learned import Clusters
from spark_jobs.clusters.lifts import Lifts, lifts, only_here, unknown_lifts
from spark_jobs.clusters.likes import LEARN, Likes, count_held_out
from spark_jobs.clusters.published import SEGMENT_PROFILE
from spark_jobs.clusters.traits import Quartiles, Traits
from spark_jobs.config import KMeansConfig, parse_scaling
from spark_jobs.vectors import clustering_inputs
from spark_jobs.vectors.clustering_inputs import InputsMetadata, Sample

_COMPARED = 200_000  # people, drawn where there are more, on whom segments are compared
_MOST_DISTINCTIVE, _MOST_TYPICAL = 8, 8
_TYPICAL_SHARE = 0.1  # of a segment's people: those nearest to the center


@dataclass(frozen=True)
class SegmentProfiles:
    """What k segments are."""

    pages: pa.Table  # SEGMENT_PROFILE, by cluster_id and in the order of the dimensions
    segments: list[dict[str, Any]]  # by cluster_id, as summary.json has them
    names: list[str]
    actions: dict[str, dict[str, Any]] | None  # everybody's mix, published; None where it is not known
    distinctive: list[list[str]]  # of each segment the ids of all pages that set it apart, the strongest first
    comparisons: pa.Table  # SEGMENT_COMPARISON: each segment against everybody, and against each other one


def profile_segments(
    metadata: InputsMetadata, found: Clusters, traits: Traits, config: KMeansConfig, strict: bool
) -> SegmentProfiles:
    """Say what each segment is.

    Args:
        metadata: The inputs.
        found: The clusters.
        traits: Of their people, all of whom were counted.
        config: Of k-means.
        strict: Whether every profile is checked.

    Raises:
        InputError: The profiles can't be read.
    """
    ids, page_names = (metadata.dimensions[name].to_pylist() for name in ("dimension_id", "dimension_name"))
    page_names = [name or page for name, page in zip(page_names, ids, strict=True)]
    if not found.k:
        return SegmentProfiles(SEGMENT_PROFILE.empty_table(), [], [], None, [], baselines.nothing_compared())
    min_people = config.min_people
    drawn = clustering_inputs.sample(metadata, found.learned.min_actions, 2 * LEARN, _COMPARED, config.seed, strict)
    likes = _likes(metadata, found, drawn, config)
    compared, own = _compare(found, likes, min_people)
    strongest = [_strongest(compared, cluster) for cluster in range(found.k)]
    named = names.names_of([[page_names[d] for d in strongest[c] if own[c, d]][: names.PAGES] for c in range(found.k)])
    pages = _pages(metadata, found, compared, min_people)
    typical = [[page_names[page] for page in of_cluster] for of_cluster in _typical(drawn, found.centers, min_people)]
    apart = _apart(pages, compared, strongest, ids, page_names)
    segments = _segments(found, traits, named, apart, typical, min_people)
    everybody = None if traits.mix is None else action_mix.publish(traits.mix.of_all(), min_people)
    distinctive = [[ids[page] for page in of_cluster] for of_cluster in strongest]
    against = _against(metadata, found, likes, compared, page_names, min_people)
    return SegmentProfiles(pages, segments, named, everybody, distinctive, against)


def _segments(
    found: Clusters,
    traits: Traits,
    named: list[str],
    apart: list[list[dict[str, Any]]],
    typical: list[list[str]],
    min_people: int,
) -> list[dict[str, Any]]:
    """The segments by cluster_id, as `summary.json` has them."""
    activity, mix, total = traits.activity(), traits.mix, int(found.users.sum())
    return [
        {
            "cluster_id": cluster,
            "name": named[cluster],
            "people": published.count(people, min_people),
            "share": published.share(people, total, min_people),
            "stability": stability.rounded(found.learned.stability[cluster]),
            "solidity": stability.in_words(found.learned.stability[cluster]),
            "activity": _activity(activity[cluster], people, min_people),
            "actions": None if mix is None else action_mix.publish(mix.of(cluster), min_people),
            "gender": _genders(traits.genders(cluster), people, min_people),
            "distinctive": apart[cluster],
            "typical": typical[cluster],
        }
        for cluster, people in enumerate(found.users.tolist())
    ]


def _apart(
    pages: pa.Table, compared: Lifts, strongest: list[list[int]], ids: list[str], names: list[str]
) -> list[list[dict[str, Any]]]:
    """The pages that set each segment apart most, with their published figures."""
    shares = pages.select(("people", "share", "rest_share")).to_pylist()
    return [
        [
            {
                "dimension_id": ids[page],
                "dimension_name": names[page],
                **shares[cluster * len(ids) + page],
                "lift": published.ratio(compared.lift[cluster, page]),
                "low": published.ratio(compared.low[cluster, page]),
                "high": published.ratio(compared.high[cluster, page]),
            }
            for page in of_cluster[:_MOST_DISTINCTIVE]
        ]
        for cluster, of_cluster in enumerate(strongest)
    ]


def _against(
    metadata: InputsMetadata, found: Clusters, likes: Likes | None, compared: Lifts, names: list[str], min_people: int
) -> pa.Table:
    """Each segment beside everybody and beside each other one, as `comparisons.parquet` holds it."""
    if likes is None:
        return baselines.nothing_compared()
    ids = metadata.dimensions["dimension_id"].to_pylist()
    counted = baselines.Counted(found.dimensions.member_count, found.users, ids, names)
    return baselines.comparisons(counted, likes, compared, min_people)


def _likes(metadata: InputsMetadata, found: Clusters, drawn: Sample, config: KMeansConfig) -> Likes | None:
    """Who likes what, counted so that segments can be compared; None for a single one."""
    if found.k == 1:
        return None
    keep_length = "l2" in parse_scaling(metadata.config["scaling"])
    return count_held_out(drawn.profiles, drawn.weight, drawn.fit_weight, found.centers, keep_length, config.seed)


def _compare(found: Clusters, likes: Likes | None, min_people: int) -> tuple[Lifts, np.ndarray]:
    """How each segment differs from all other people, and (k, d) whether no other likes a page about as much."""
    shape = found.centers.shape
    if likes is None:
        return unknown_lifts(shape), np.zeros(shape, bool)
    # Without a page its people may be placed elsewhere: there may be enough in a segment that has few of them.
    enough = found.dimensions.member_count >= min_people
    return lifts(likes, min_people).only_where(enough), only_here(likes)


def _strongest(compared: Lifts, cluster: int) -> list[int]:
    """The pages that set a segment apart, by how sure that is."""
    found = np.flatnonzero(compared.distinctive[cluster])
    return [int(page) for page in found[np.argsort(-compared.z[cluster, found], kind="stable")]]


def _pages(metadata: InputsMetadata, found: Clusters, compared: Lifts, min_people: int) -> pa.Table:
    fans, users = found.dimensions.member_count, found.users
    total, everybody = int(users.sum()), fans.sum(axis=0)
    ids, page_names, in_month = (
        metadata.dimensions[name].to_pylist() for name in ("dimension_id", "dimension_name", "users")
    )
    month = metadata.month_users
    month_share = [None if month is None else published.share(people, month, min_people) for people in in_month]
    columns: dict[str, list[Any]] = {name: [] for name in SEGMENT_PROFILE.names}
    for cluster, people in enumerate(users.tolist()):
        here = fans[cluster].tolist()
        elsewhere = (everybody - fans[cluster]).tolist()
        columns["cluster_id"] += [cluster] * len(ids)
        columns["dimension_id"] += ids
        columns["dimension_name"] += page_names
        columns["people"] += [published.count(n, min_people) for n in here]
        columns["share"] += [published.share(n, people, min_people) for n in here]
        columns["rest_people"] += [published.count(n, min_people) for n in elsewhere]
        columns["rest_share"] += [published.share(n, total - people, min_people) for n in elsewhere]
        columns["month_share"] += month_share
        columns["lift"] += map(published.ratio, compared.lift[cluster].tolist())
        columns["lift_low"] += map(published.ratio, compared.low[cluster].tolist())
        columns["lift_high"] += map(published.ratio, compared.high[cluster].tolist())
        columns["z"] += map(published.z_score, compared.z[cluster].tolist())
        columns["distinctive"] += compared.distinctive[cluster].tolist()
    return pa.table(columns, schema=SEGMENT_PROFILE)


def _typical(drawn: Sample, centers: np.ndarray, min_people: int) -> list[list[int]]:
    """The pages that at least half of the people nearest to each center like, those of most people first.

    The nearest are a tenth of the segment's people, and so many that each page is of `min_people` at least.
    """
    labels, distances, _ = clustering.assign(drawn.profiles, centers)
    chosen: list[list[int]] = []
    for cluster in range(len(centers)):
        members = np.flatnonzero((labels == cluster) & (drawn.weight > 0))
        members = members[np.argsort(distances[members], kind="stable")]
        up_to = np.cumsum(drawn.weight[members])
        people = int(up_to[-1]) if len(up_to) else 0
        wanted = max(2 * min_people, round(_TYPICAL_SHARE * people))
        if people < wanted:
            chosen.append([])
            continue
        nearest = members[: int(np.searchsorted(up_to, wanted)) + 1]
        weight = drawn.weight[nearest]
        fans = weight @ (drawn.profiles[nearest] > 0)
        most = np.argsort(-fans, kind="stable")[:_MOST_TYPICAL]
        chosen.append([int(page) for page in most if 2 * fans[page] >= weight.sum()])
    return chosen


def _activity(quartiles: Quartiles | None, people: int, min_people: int) -> dict[str, int | None]:
    """Quartiles of the actions; each says something of a quarter or half of the people."""
    quarter, half = (quartiles if people >= parts * min_people else None for parts in (4, 2))
    return {
        "quartile_1": None if quarter is None else quarter.first,
        "median": None if half is None else half.median,
        "quartile_3": None if quarter is None else quarter.third,
    }


def _genders(genders: dict[str, int], people: int, min_people: int) -> dict[str, float]:
    """The share of each gender that enough people have."""
    shares = {gender: published.share(number, people, min_people) for gender, number in genders.items()}
    return {gender: share for gender, share in shares.items() if share is not None}
