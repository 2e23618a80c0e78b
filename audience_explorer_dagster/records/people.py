"""Figures of people as records show them: nothing of fewer than `min_people`, and nothing exact.

What a job reports of an output is exact, for its manifest is for systems that act. Dagster shows its records to people,
so each figure of people goes through here before it is recorded: by the rules of `spark_jobs.clusters.published`, so
that the same number is the same wherever it is shown, and nothing follows by subtraction. Whatever is computed from
records, such as drift and trends, is computed from published figures, and so may be published itself.

A record with published figures has `min_people`. Those of earlier versions do not, and theirs are published as they are
read.
"""

import re
from collections.abc import Mapping
from typing import Any

import dagster as dg

from audience_explorer_dagster import planning
from audience_explorer_dagster.run_config import MonthRunConfig
from spark_jobs.clusters import published

MIN_PEOPLE = "min_people"
FEW = "few"  # people, in a table

_SIZES = "sizes"
# What the checks of an asset found that counts people, or what people have. The other figures are of rows, pages, k.
_IN_CHECKS: dict[str, set[str]] = {
    planning.GROUPED_USERS: {"grouped users"},
    planning.CLUSTERING_INPUTS: {
        *("users", "members", "weights", "fit_weights", "entries", "entries_written"),
        "profiles",
    },
    planning.K_SELECTION: {"people"},
    planning.KMEANS: {"users", "assigned", "listed", "assignments.parquet"},
    planning.SEGMENTS: {"users", "members.parquet"},
    planning.AUDIENCE_REPORT: set(),
}
# Checks that explain by exact figures of people why they fail.
_EXACT_WHYS = {
    planning.CLUSTERING_INPUTS: {"conservation"},
    planning.KMEANS: {"every_user_once"},
    planning.SEGMENTS: {"every_user_once"},
}
_VALUES_THAT_BREAK_A_RULE = re.compile(r" \([\d,]+ (?:is|are) not\)")  # of tables with a row a person


def min_people_of(config: Mapping[str, Any]) -> int:
    """The `min_people` that an output was made with; the deployment's own, where the step's config has none."""
    return int(config.get(MIN_PEOPLE) or MonthRunConfig().kmeans.min_people)


def figure(people: int, min_people: int) -> int | str:
    """So many people, as a record has them: rounded, so that Dagster plots it, or `fewer than 10`, of which no point is
    drawn.
    """
    said = published.count(people, min_people)
    return published.in_words(people, min_people) if said is None else said


def everybody(users: int, min_people: int) -> int | str:
    """All people of a partition, as a record has them. That there is nobody may be said: it is about no one."""
    return figure(users, min_people) if users else 0


def in_table(people: int, min_people: int) -> str:
    """So many people, as a table shows them, such as `1,230` or `few`."""
    said = published.count(people, min_people)
    return FEW if said is None else f"{said:,}"


def shown(people: int | None) -> str:
    """People that a record has (see `read`), as a table shows them."""
    return FEW if people is None else f"{people:,}"


def read(details: Mapping[str, Any], name: str) -> int | None:
    """A figure of people in a record's metadata, published; None where they are few, or it has none."""
    value = _plain(details.get(name))
    return _published(value, details) if isinstance(value, int | float) else None


def read_sizes(details: Mapping[str, Any]) -> tuple[int | None, ...]:
    """The people of each cluster in a record's metadata, published; None for few."""
    text = str(_plain(details.get(_SIZES, "none")))
    parts = [] if text == "none" else text.split(", ")
    return tuple(None if part == FEW else _published(int(part.replace(",", "")), details) for part in parts)


def sizes_about(details: Mapping[str, Any]) -> list[int]:
    """The same to calculate with: few are half of `min_people`."""
    few = _min_people(details) // 2
    return [few if size is None else size for size in read_sizes(details)]


def span(details: Mapping[str, Any], name: str) -> tuple[int, int]:
    """The least and the most people that a figure in a record's metadata may stand for."""
    said, min_people = read(details, name), _min_people(details)
    if said is None:
        return 0, max(0, min_people - 1)
    if said == 0:
        return 0, 0
    return max(min_people, said - min_people // 2), said + (min_people - 1) // 2


def told(details: Mapping[str, Any], name: str) -> str:
    """A figure of people in a record's metadata, in words."""
    said = read(details, name)
    return f"fewer than {_min_people(details)}" if said is None else f"{said:,}"


def sizes(people: list[int], min_people: int) -> str:
    """The people of each cluster, as a record has them."""
    return ", ".join(in_table(number, min_people) for number in people) or "none"


def top_pages(cluster: Mapping[str, Any], min_people: int) -> list[tuple[str, float]]:
    """The pages that most people of a cluster like, with the share who do, of clusters before there were segments.

    Args:
        cluster: As in the manifest of code version 4 and before: `users`, and `top_pages` with `name` and `share`.
        min_people: Pages that fewer like are left out.
    """
    users = cluster["users"]
    shares = [
        (str(page["name"]), published.share(round(page["share"] * users), users, min_people))
        for page in cluster["top_pages"]
    ]
    return [(name, share) for name, share in shares if share is not None]


def is_published(details: Mapping[str, Any]) -> bool:
    """Whether a record has published figures; those of earlier versions have exact ones."""
    return MIN_PEOPLE in details


def checks(asset: str, found: Mapping[str, Any], min_people: int, why_none: str | None = None) -> dict[str, Any]:
    """What was found of an output by its checks, as its record has it.

    Args:
        asset: The asset.
        found: The checks by name, as in its manifest or in a record.
        min_people: See `published`.
        why_none: Why there are no segments, in published figures.
    """
    return {name: _check(asset, name, check, min_people, why_none) for name, check in found.items()}


def _check(asset: str, name: str, check: Mapping[str, Any], min_people: int, why_none: str | None) -> dict[str, Any]:
    of_people = _IN_CHECKS[asset]
    figures = {
        what: figure(value, min_people) if what in of_people and isinstance(value, int) else value
        for what, value in check["found"].items()
    }
    return {**check, "found": figures, "why": _why(asset, name, check, why_none)}


def _why(asset: str, name: str, check: Mapping[str, Any], why_none: str | None) -> str:
    why = str(check["why"])
    if not why:
        return why
    if name == "has_segments" and "verdict" in check["found"]:
        return why_none or "No segments. The partition's page says why."
    if name in _EXACT_WHYS.get(asset, ()):
        return "`checks` in the output's manifest.json has what is wrong: of people, in exact figures."
    return _VALUES_THAT_BREAK_A_RULE.sub("", why)


def _published(people: float, details: Mapping[str, Any]) -> int | None:
    exact = round(people)
    if is_published(details) or exact == 0:
        return exact
    return published.count(exact, published.MIN_PEOPLE)


def _min_people(details: Mapping[str, Any]) -> int:
    return int(_plain(details.get(MIN_PEOPLE, published.MIN_PEOPLE)))


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, dg.MetadataValue) else value
