"""Asset checks: what the jobs verified of their outputs, and how much changed since the month before.

Each check is evaluated for each partition, so that a run of one month hides nothing of another. What was found of an
output goes with its record, so that evaluating it again, when the output is reused, reads nothing.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData

from audience_explorer_dagster import planning, settings
from audience_explorer_dagster.partitions import Partition, month_by_category, months
from audience_explorer_dagster.records import people

CheckedRecord = AssetCheckEvaluationTargetMaterializationData  # the record that an evaluation is of
Check = dict[str, Any]  # `passed`, `found` (figures by name) and `why`, as in a manifest
Checks = dict[str, Check]  # by the check's name

DRIFT = "drift"
HAS_SEGMENTS = "has_segments"
_WARNINGS = {"rejects", DRIFT, HAS_SEGMENTS}
_PASSED: Check = {"passed": True}
_MOST_TOLD = 5  # partitions in a line of a log

_SCHEMA = {"schema": "The output's tables have their columns and types, and no value where none may be missing."}
_DESCRIPTIONS: dict[str, dict[str, str]] = {
    planning.GROUPED_USERS: {
        **_SCHEMA,
        "conservation": "Summed over all users, the counts of each action equal those of the accepted raw rows.",
        "rejects": "The share of raw rows that break a rule is less than half of what would fail the month.",
        DRIFT: "Users and pages are about as many as in the month before.",
    },
    planning.CLUSTERING_INPUTS: {
        **_SCHEMA,
        "conservation": "Every user has one profile, and the profiles' weights add up to the users.",
        DRIFT: "Users and pages in use are about as many as in the month before.",
    },
    planning.K_SELECTION: {
        **_SCHEMA,
        "k_in_range": "With segments, the chosen k is one of those tried, from 2 to k_max; without, it is 1.",
        HAS_SEGMENTS: "There are segments. Where there are none, or too few people to tell, the partition's page says"
        " what to do.",
    },
    planning.KMEANS: {
        **_SCHEMA,
        "every_user_once": "Every user of the inputs is in one cluster, none is in two, and all files agree.",
        "centers_in_range": "Every center lies between the least and the greatest value of the data, by dimension.",
        "figures_published": "What is published of segments says nothing of fewer than min_people people, and no two"
        " segments have the same name.",
        DRIFT: "Users are about as many, and spread over clusters about as evenly, as in the month before.",
    },
    planning.SEGMENTS: {
        **_SCHEMA,
        "every_user_once": "Every user of the clusters is in one group of segments, and none is in two.",
        "segments_are_somewhere": "Each living segment has people, each group of people a segment, and no two living"
        " segments have the same name or color.",
    },
    planning.AUDIENCE_REPORT: {
        "self_contained": "The page refers to nothing outside itself, so that it can be passed on as one file.",
    },
}
# What is compared with the month before: figures of a record's metadata.
_COMPARED = {
    planning.GROUPED_USERS: ("users", "pages"),
    planning.CLUSTERING_INPUTS: ("users", "dimensions_in_use"),
    planning.KMEANS: ("users",),
}
_OF_PEOPLE = {"users", "pages"}  # pages are each person's: those of grouped users


def specs(asset: str) -> list[dg.AssetCheckSpec]:
    """The checks of an asset."""
    partitions = months if asset == planning.GROUPED_USERS else month_by_category
    return [
        dg.AssetCheckSpec(name, asset=asset, description=description, partitions_def=partitions)
        for name, description in _DESCRIPTIONS[asset].items()
    ]


def drift_limit() -> float:
    """The share by which a figure may change from month to month before that is a warning, AUDIENCE_EXPLORER_DRIFT."""
    return settings.read().drift


def has_drift(asset: str) -> bool:
    """Whether an asset is compared with the month before."""
    return asset in _COMPARED


def drift(asset: str, now: Mapping[str, Any], before: Mapping[str, Any] | None, limit: float) -> Check:
    """Compare a partition's figures with those of the month before.

    The change of a figure is 1 − smaller/larger, so that halving and doubling are 0.5 both. Of people, who are rounded
    in records, it is the least change that there can have been. That of cluster sizes is the share of users that would
    have to be in another cluster (the total variation distance of the sizes, in order).

    Args:
        asset: The asset.
        now: The figures, as in a record's metadata.
        before: Those of the month before; None if there is no record of it.
        limit: The largest change that is none to warn of, 0 to 1.
    """
    if before is None:
        return {"passed": True, "found": {}, "why": "there is no record of the month before"}
    compared = [name for name in _COMPARED[asset] if name in now and name in before]
    changes = {name: _change(_span(now, name), _span(before, name)) for name in compared}
    found: dict[str, Any] = {name: f"{_told(before, name)} → {_told(now, name)}" for name in changes}
    if asset == planning.KMEANS:
        changes["cluster_sizes"] = _moved(people.sizes_about(now), people.sizes_about(before))
        found["cluster_sizes"] = f"{changes['cluster_sizes']:.0%} of users elsewhere"
    too_much = [f"{name} changed by at least {change:.0%}" for name, change in changes.items() if change > limit]
    why = f"{', '.join(too_much)} since the month before, more than {limit:.0%}" if too_much else ""
    return {"passed": not too_much, "found": found, "why": why}


def _span(details: Mapping[str, Any], name: str) -> tuple[int, int]:
    """The least and the most that a figure of a record may be."""
    return people.span(details, name) if name in _OF_PEOPLE else (int(details[name]), int(details[name]))


def _told(details: Mapping[str, Any], name: str) -> str:
    return people.told(details, name) if name in _OF_PEOPLE else str(details[name])


def _change(now: tuple[int, int], before: tuple[int, int]) -> float:
    """The least change between two figures, each known to lie within a range."""
    (_, most_of_smaller), (least_of_larger, _) = sorted((now, before))
    return 1 - most_of_smaller / least_of_larger if most_of_smaller < least_of_larger else 0.0


def _moved(now: list[int], before: list[int]) -> float:
    if not sum(now) or not sum(before):
        return float(sum(now) != sum(before))
    shares = [[size / sum(sizes) for size in sizes] for sizes in (now, before)]
    longest = max(map(len, shares))
    padded = [share + [0.0] * (longest - len(share)) for share in shares]
    return sum((abs(a - b) for a, b in zip(*padded, strict=True)), 0.0) / 2


def evaluations(
    asset: str, partition: Partition, checks: Checks, record: CheckedRecord
) -> Iterator[dg.AssetCheckEvaluation]:
    """An evaluation of each check that an output was made with; outputs of early versions lack some.

    Args:
        asset: The asset.
        partition: The output's partition.
        checks: What was found of the output.
        record: The output's newest record: Dagster shows no evaluation of an older one.
    """
    for name in _DESCRIPTIONS[asset].keys() & checks.keys():
        check = checks[name]
        yield dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(asset),
            check_name=name,
            passed=check["passed"],
            severity=severity(name),
            description=check["why"] or None,
            # Dagster plots numbers over the partitions.
            metadata={
                figure: value if isinstance(value, (int, float)) else str(value)
                for figure, value in check["found"].items()
            },
            target_materialization_data=record,
            partition=partition.key,
        )


def severity(name: str) -> dg.AssetCheckSeverity:
    """How bad it is that a check fails."""
    return dg.AssetCheckSeverity.WARN if name in _WARNINGS else dg.AssetCheckSeverity.ERROR


def failures(asset: str, found: Mapping[Partition, Checks]) -> Iterator[tuple[str, str]]:
    """The checks that failed for some partitions, each with a line on the first of them, for a log."""
    for name in _DESCRIPTIONS[asset]:
        of_partition = {partition: checks.get(name, _PASSED) for partition, checks in found.items()}
        failed = [f"{partition}: {check['why']}" for partition, check in of_partition.items() if not check["passed"]]
        if failed:
            yield name, f"{len(failed)} of {len(found)} partitions: {'; '.join(failed[:_MOST_TOLD])}"
