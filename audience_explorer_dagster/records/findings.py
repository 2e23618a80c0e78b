"""What was found, in words for people who know no statistics: what it is, how sure it is, and what to do about it."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from audience_explorer_dagster import planning
from audience_explorer_dagster.records import people
from spark_jobs.clusters import published
from spark_jobs.clusters.selection import ENOUGH_PEOPLE

VERDICT = "verdict"
SEGMENTS = "segments"
VERDICTS = {SEGMENTS: "segments", "none": "no segments", "too_few": "too few people"}

_LINE = 58  # characters of a text on the page of a partition, at most
_CLEARLY = 2.0  # times the evidence that is needed
_SOLIDITIES = ("solid", "fair", "doubtful", "unknown")  # of a cluster, as `spark_jobs.clusters.stability` names them


@dataclass(frozen=True)
class Finding:
    """What a step found, in three texts."""

    found: str
    how_sure: str
    what_to_do: str


_NOBODY = Finding(
    "Nobody: no user of this month has an action on this category's pages.",
    "Every user of the month was looked at.",
    "Check the page ids in the category file, and whether the month's raw data has this category's pages.",
)


def as_metadata(asset: str, manifest: Mapping[str, Any], min_people: int) -> dict[str, dg.MetadataValue]:
    """What an output says first: the verdict, where there is one, and the three texts.

    Empty for an asset that finds nothing, and for outputs of code version 2, which don't know. Figures of people are
    rounded to `min_people`, and of fewer none is said.
    """
    summary, config = manifest["summary"], {**manifest["config"], people.MIN_PEOPLE: min_people}
    if asset == planning.K_SELECTION and "verdict" in summary:
        finding = _SELECTED[summary["verdict"]](summary, config)
    elif asset == planning.KMEANS and "learned_from" in summary:
        finding = _clusters(summary, config)
    else:
        return {}
    verdict = {VERDICT: dg.MetadataValue.text(summary[VERDICT])} if summary[VERDICT] is not None else {}
    texts = {"finding": finding.found, "how_sure": finding.how_sure, "what_to_do": finding.what_to_do}
    return {**verdict, **{name: _in_lines(text) for name, text in texts.items()}}


def why_none(texts: Mapping[str, dg.MetadataValue]) -> str | None:
    """What was found instead of segments, in one line; None if that is not known."""
    finding = texts.get("finding")
    return None if finding is None else " ".join(str(finding.value).split())


def _in_lines(text: str) -> dg.MetadataValue:
    """A text in short lines: the UI makes plain text as wide as the record's widest table, and then cuts it off."""
    return dg.MetadataValue.md("  \n".join(textwrap.wrap(text, _LINE, break_long_words=False)))  # two spaces: a break


# --- k_selection -----------------------------------------------------------------------------------


def _segments(summary: Mapping[str, Any], config: Mapping[str, Any]) -> Finding:
    smallest = next(row["smallest_segment"] for row in summary["tried"] if row["k"] == summary["k"])
    share = published.share(smallest, summary["users"], config[people.MIN_PEOPLE])
    of_all = "" if share is None else f" ({share:.0%})"
    needed = summary["evidence_needed"]
    clearly = summary["evidence"] >= _CLEARLY * needed
    return Finding(
        f"{summary['k']} segments among {_people(summary['users'], config)} people. The smallest has about"
        f" {_people(smallest, config)} people{of_all}.",
        f"{'Very sure' if clearly else 'Sure'} that there are segments: the evidence is {summary['evidence']:.1f}, and"
        f" {needed:.1f} is enough, which at most {_one_in(summary['false_alarm_rate'])} audiences without segments"
        f" reach. How many there are is less sure than that there are some. {_judged(summary, config)}",
        "See kmeans of this partition: which pages the people of each segment are on, and how solid each segment is.",
    )


def _no_segments(summary: Mapping[str, Any], config: Mapping[str, Any]) -> Finding:
    if summary["evidence"] is None:  # there are too few pages, or every clustering has a segment that is too small
        return Finding(
            summary["why"],
            f"This follows from the pages and from the sizes that are asked for. {_judged(summary, config)}",
            "Treat these people as one audience. To look again, add related pages to the category file, or accept"
            f" smaller segments: min_segment is {config['min_segment']:,}, min_segment_share is"
            f" {config['min_segment_share']:g}. {_CUT_ANYWAY}",
        )
    return Finding(
        f"No segments among {_people(summary['users'], config)} people: what somebody likes says nothing about"
        " what else they like, beyond what is popular with everybody.",
        f"The evidence for segments is {summary['evidence']:.1f}; {summary['evidence_needed']:.1f} is needed. So none"
        " show in this data. Segments that are very small, or hardly differ, could still be missed."
        f" {_judged(summary, config)}",
        "Treat these people as one audience. To look again, pool this category with related ones in one category file:"
        f" that gives more people and more pages. {_CUT_ANYWAY}",
    )


def _too_few(summary: Mapping[str, Any], config: Mapping[str, Any]) -> Finding:
    if not summary["users"]:
        return _NOBODY
    lower = f", or lower fit_min_actions (now {config['fit_min_actions']})" if config["fit_min_actions"] > 1 else ""
    return Finding(
        f"Too few people to tell: {_people(summary['people'], config)} of {_people(summary['users'], config)} people"
        f" have {_active(config)}, and {ENOUGH_PEOPLE} are needed.",
        "This says nothing about segments: there may be some, but so few people can't show them.",
        "Wait for a month with more people, add pages to the category file, pool this category with related ones"
        f"{lower}. Until then, treat these people as one audience. {_CUT_ANYWAY}",
    )


_SELECTED = {SEGMENTS: _segments, "none": _no_segments, "too_few": _too_few}  # by verdict

_CUT_ANYWAY = (
    "To cut them into pieces all the same, give kmeans a k: the pieces are then arbitrary, and other people or another"
    " seed would give others."
)


def _judged(summary: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    drawn = summary["people_judged"] < summary["people"]
    of_all = f" of the {_people(summary['people'], config)}" if drawn else ""
    by_chance = ", drawn at random" if drawn else ""
    return f"Judged on {_people(summary['people_judged'], config)}{of_all} people with {_active(config)}{by_chance}."


def _active(config: Mapping[str, Any]) -> str:
    actions = config["fit_min_actions"]
    return "at least 1 action" if actions == 1 else f"at least {actions} actions"


def _people(number: int, config: Mapping[str, Any]) -> str:
    return published.in_words(number, config[people.MIN_PEOPLE])


def _one_in(rate: float) -> str:
    return f"1 in {1 / rate:.0f}"


# --- kmeans ----------------------------------------------------------------------------------------


def _clusters(summary: Mapping[str, Any], config: Mapping[str, Any]) -> Finding:
    k, users = summary["k"], summary["users"]
    if not users:
        return _NOBODY
    clusters = "1 cluster" if k == 1 else f"{k} clusters"
    return Finding(
        f"{clusters} of {_people(users, config)} people. {_origin_of_k(summary)} {_learned(summary, config)}",
        _solidity(summary),
        _use(summary),
    )


def with_verdict(k: int | None, verdict: str | None) -> str:
    """A k for a table, with the verdict where there are no segments, such as `1 (too few people)`."""
    if k is None:
        return ""
    return str(k) if verdict in (None, SEGMENTS) else f"{k} ({VERDICTS[str(verdict)]})"


def solidity_of(cluster: Mapping[str, Any], k: int) -> str:
    """How solid one of k clusters is, in a word; empty if that is not known, or there is no other one."""
    solidity = str(cluster.get("solidity", "unknown"))
    return "" if k == 1 or solidity == "unknown" else solidity


def people_of(segment: Mapping[str, Any]) -> str:
    """How many people a segment has, such as `1,230`; those of a small one are not said."""
    return people.shown(segment["people"])


def counted(solidities: Iterable[str]) -> str:
    """Such as `3 solid, 1 doubtful`; empty if nothing is known of any."""
    counts = Counter(filter(None, solidities))
    return ", ".join(f"{counts[name]} {name}" for name in _SOLIDITIES if counts[name])


def _origin_of_k(summary: Mapping[str, Any]) -> str:
    verdict = summary["verdict"]
    if verdict is None:
        return f"k = {summary['requested_k']} was given, so nobody asked whether there are segments."
    if verdict == SEGMENTS:
        return "k is the number of segments that k_selection found."
    return f"k_selection found {VERDICTS[verdict]}, so everybody is in one cluster."


def _learned(summary: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    learned = summary["learned_from"]
    if learned["min_actions"]:
        return (
            f"The clusters were learned from the {_people(learned['users'], config)} people with {_active(config)};"
            " everybody was then placed in the nearest one."
        )
    return f"The clusters were learned from everybody: too few people have {_active(config)}."


def _solidity(summary: Mapping[str, Any]) -> str:
    k = summary["k"]
    if k == 1:
        return "There is one cluster, so nobody can be in the wrong one."
    found = counted(solidity_of(cluster, k) for cluster in summary["clusters"])
    if not found:
        return "How solid the clusters are is not known: there was nobody to learn from."
    return f"{found}. A solid cluster is found again among other people like these, a doubtful one often is not."


_HOW_TO_READ = (
    "See below which pages the people of each cluster are on. In assignments.parquet, confidence says how clearly each"
    " person belongs to their cluster, from 0 to 1."
)


def _use(summary: Mapping[str, Any]) -> str:
    k, verdict = summary["k"], summary["verdict"]
    doubtful = [str(c["cluster_id"]) for c in summary["clusters"] if solidity_of(c, k) == "doubtful"]
    advice = []
    if verdict is None:
        advice.append("To learn whether there are segments at all, run it without k.")
    elif verdict != SEGMENTS:
        advice.append("Treat these people as one audience. k_selection of this partition says what else can be tried.")
    if doubtful:
        which = f"cluster {doubtful[0]}" if len(doubtful) == 1 else f"clusters {', '.join(doubtful)}"
        advice.append(f"Don't rely on {which}, which would often come out otherwise.")
    if k > 1:
        advice.append(_HOW_TO_READ)
    return " ".join(advice)
