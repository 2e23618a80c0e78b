"""The data contract once more, in dicts and loops: slow, and plain enough to be seen to be right.

It shares no code with the jobs, so that it sees what they do wrong on both engines alike. Values are exact (`Fraction`)
up to the step of scaling that needs a root or a logarithm.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import Any, NamedTuple

ACTIONS = ("page_like", "page_comment", "post_like", "post_comment")
LARGEST_COUNT = 2**63 - 1

Row = Mapping[str, Any]  # a raw action; a field may be missing, null, or nonsense
Vector = dict[int, Fraction]  # a user's values by dimension; zeros are left out
Point = Mapping[int, float]  # the same, scaled


# --- raw actions -----------------------------------------------------------------------------------


class Time(NamedTuple):
    """A timestamp as a row has it, and the moment (UTC) that it means; None where it is no timestamp."""

    text: str
    moment: datetime | None


def broken_rules(row: Row, month: str) -> set[str]:
    """The rules that a raw action of a month (YYYY-MM) breaks, by the reasons that are given for them."""
    broken = set()
    for name in ("user_id", "page_id"):
        if row.get(name) in (None, ""):
            broken.add(f"{name} is missing")
    if row.get("action") not in ACTIONS:
        broken.add(f"action is none of {', '.join(ACTIONS)}")
    for name in ("user_id", "page_id", "action", "gender", "timestamp"):
        if not isinstance(row.get(name), str | Time | None):
            broken.add(f"{name} is no string")
    count = row.get("count")
    if count is not None and (type(count) is not int or not 1 <= count <= LARGEST_COUNT):
        broken.add("count is no whole number from 1 to 2^63-1")
    time = row.get("timestamp")
    if isinstance(time, Time):
        if time.moment is None:
            broken.add("timestamp is not ISO 8601")
        elif time.moment.strftime("%Y-%m") != month:
            broken.add("timestamp is outside the month")
    return broken


# --- grouped users ---------------------------------------------------------------------------------


@dataclass
class User:
    """A user: how many of each action on each page, and the gender."""

    gender: str = "0"
    pages: dict[str, dict[str, int]] = field(default_factory=dict)


def group(rows: Iterable[Row]) -> dict[str, User]:
    """The users of raw actions that break no rule."""
    users: dict[str, User] = {}
    genders: dict[str, Counter[str]] = {}
    for row in rows:
        count = 1 if row.get("count") is None else row["count"]
        user = users.setdefault(row["user_id"], User())
        page = user.pages.setdefault(row["page_id"], dict.fromkeys(ACTIONS, 0))
        page[row["action"]] += count
        gender = row.get("gender") or "0"
        genders.setdefault(row["user_id"], Counter())[gender] += count
    for name, seen in genders.items():
        del seen["0"]
        # The most frequent; of equals the smallest.
        users[name].gender = min(seen, key=lambda gender: (-seen[gender], gender), default="0")
    return users


def rows_of(users: Mapping[str, User]) -> list[dict[str, Any]]:
    """Users as the rows of `grouped_users`, by user and page. Python orders texts as UTF-8 does."""
    return [
        {
            "user_id": name,
            "gender": users[name].gender,
            "pages": [{"page_id": page, **users[name].pages[page]} for page in sorted(users[name].pages)],
        }
        for name in sorted(users)
    ]


# --- clustering inputs -----------------------------------------------------------------------------


def vectors(
    users: Mapping[str, User], pages: Sequence[str], weights: Mapping[str, float], min_actions: int
) -> dict[str, Vector]:
    """The vectors of the users who belong to a category with these pages."""
    found = {}
    for name, user in users.items():
        on = {dimension: user.pages[page] for dimension, page in enumerate(pages) if page in user.pages}
        actions = sum(sum(counts.values()) for counts in on.values())
        if on and (min_actions == 1 or actions >= min_actions):
            values = {
                dimension: sum((Fraction(weights[action]) * count for action, count in counts.items()), Fraction())
                for dimension, counts in on.items()
            }
            found[name] = {dimension: value for dimension, value in values.items() if value}
    return found


def actions_on(users: Mapping[str, User], pages: Sequence[str]) -> dict[str, int]:
    """How many actions users have on these pages, whatever they weigh; what is beyond 64 bits is cut to them."""
    return {
        name: min(LARGEST_COUNT, sum(sum(user.pages[page].values()) for page in pages if page in user.pages))
        for name, user in users.items()
    }


def each_action_on(users: Mapping[str, User], pages: Sequence[str]) -> dict[str, dict[str, int]]:
    """How many of each action users have on these pages; what is beyond 64 bits is cut to them."""
    return {
        name: {
            action: min(LARGEST_COUNT, sum(user.pages[page][action] for page in pages if page in user.pages))
            for action in ACTIONS
        }
        for name, user in users.items()
    }


def scaled(found: Mapping[str, Vector], scaling: str) -> dict[str, dict[int, float]]:
    """The vectors of a category's users, scaled step by step."""
    now: Mapping[str, Mapping[int, Fraction | float]] = found
    have = Counter(dimension for vector in found.values() for dimension in vector)
    for step in scaling.split(","):
        largest = max((value for vector in now.values() for value in vector.values()), default=Fraction())
        now = {
            name: {d: _scaled(step, vector, d, largest, len(found), have[d]) for d in vector}
            for name, vector in now.items()
        }
    return {name: {d: float(value) for d, value in vector.items()} for name, vector in now.items()}


def _scaled(
    step: str, vector: Mapping[int, Fraction | float], d: int, largest: Fraction | float, users: int, have: int
) -> Fraction | float:
    """What a step makes of a user's value in dimension d, which some of all users have."""
    value = vector[d]
    if step == "max":
        return value / (1 + largest)
    if step == "log1p":
        return math.log1p(value)
    if step == "loglog":
        return math.log1p(math.log1p(value))
    if step == "l2":
        return 1 / math.sqrt(sum((other / value) ** 2 for other in vector.values()))
    if step in ("idf", "tfidf"):
        have = max(have, users / 20) if step == "idf" else have
        return float(value) * (math.log((1 + users) / (1 + have)) + 1)
    return value


# --- clusters --------------------------------------------------------------------------------------


def distance(one: Point, other: Point) -> float:
    """The Euclidean distance of two points."""
    return math.dist(*([point.get(d, 0.0) for d in sorted({*one, *other})] for point in (one, other)))


def mean(points: Sequence[Point]) -> dict[int, float]:
    """The mean of some points."""
    return {
        dimension: math.fsum(point.get(dimension, 0.0) for point in points) / len(points)
        for dimension in {dimension for point in points for dimension in point}
    }


def nearest_two(point: Point, centers: Sequence[Point]) -> tuple[float, float]:
    """The distances of a point to the nearest center and to the next one, which is infinite if there is none."""
    nearest, following = sorted([*(distance(point, center) for center in centers), math.inf])[:2]
    return nearest, following


def solidity(stability: float | None) -> str:
    """A cluster's stability in words."""
    if stability is None:
        return "unknown"
    return "solid" if stability >= 0.75 else "doubtful" if stability < 0.6 else "fair"


def action_mix(people: Sequence[Mapping[str, int]], min_people: int) -> dict[str, dict[str, float | None]]:
    """What is published of the mix of actions of some people, given how many of each action each of them has.

    Each person weighs the same. The parts of a person are in millionths of what they do.
    """
    active = [did for did in people if any(did.values())]
    found: dict[str, dict[str, float | None]] = {}
    for action in ACTIONS:
        doing = [did for did in active if did[action]]
        part = sum(Fraction(round(Fraction(did[action], sum(did.values())) * 10**6), 10**6) for did in doing)
        told = len(active) >= min_people and len(doing) >= min_people
        share = min(1.0, round(rounded(part, min_people) / rounded(len(active), min_people), 2)) if told else None
        known = len(doing) >= min_people
        found[action] = {"people": rounded(len(doing), min_people) if known else None, "share": share}
    return found


def rounded(number: Fraction | int, to: int) -> int:
    """The nearest multiple, a half up."""
    return math.floor(Fraction(number) / to + Fraction(1, 2)) * to


def silhouette(clusters: Sequence[Sequence[Point]], centers: Sequence[Point]) -> float | None:
    """The mean simplified silhouette: distances to centers, and 0 for a user alone; not defined for one cluster."""
    if len(clusters) < 2:
        return None
    of_users = []
    for number, members in enumerate(clusters):
        for point in members:
            own = distance(point, centers[number])
            next_one = min(distance(point, center) for place, center in enumerate(centers) if place != number)
            larger = max(own, next_one)
            of_users.append((next_one - own) / larger if larger and len(members) > 1 else 0.0)
    return math.fsum(of_users) / len(of_users)


def calinski_harabasz(clusters: Sequence[Sequence[Point]], centers: Sequence[Point]) -> float | None:
    """Variance between clusters to that within; not defined for one cluster, or where nothing is within."""
    k, n = len(clusters), sum(map(len, clusters))
    within = math.fsum(
        distance(point, center) ** 2 for members, center in zip(clusters, centers, strict=True) for point in members
    )
    if k < 2 or n <= k or within == 0:
        return None
    # That of the centers, which are not quite their members' means where k-means stopped early.
    middle = mean([center for members, center in zip(clusters, centers, strict=True) for _ in members])
    between = math.fsum(
        len(members) * distance(center, middle) ** 2 for members, center in zip(clusters, centers, strict=True)
    )
    return between / (k - 1) / (within / (n - k))


def may_learn_from_active(actions: Sequence[int], profiles: Sequence[int], at_least: int, k: int) -> bool:
    """Whether k clusters are learned from users with so many actions alone: there are ten of them a cluster.

    Args:
        actions: Of each user.
        profiles: The profile of each user.
        at_least: How many actions a user must have.
        k: How many clusters.
    """
    active = [profile for did, profile in zip(actions, profiles, strict=True) if did >= at_least]
    return len(active) >= 10 * k and len(set(active)) >= k


def best_k(tried: Sequence[Mapping[str, Any]], criterion: str) -> set[int]:
    """The k that a criterion may choose of those tried: that of the best score, or those of equal ones."""
    first = tried[0]["k"]
    if criterion != "elbow":
        scores = {row["k"]: row[criterion] for row in tried if row[criterion] is not None}
        return {min(scores, key=lambda k: (-scores[k], k))} if scores else {first}
    (k0, w0), (k1, w1) = ((row["k"], row["wssse"]) for row in (tried[0], tried[-1]))
    if len(tried) < 3 or w0 == w1:
        return {first}
    below = {row["k"]: w0 + (w1 - w0) * (row["k"] - k0) / (k1 - k0) - row["wssse"] for row in tried}
    farthest = max(below.values())
    return {k for k, depth in below.items() if math.isclose(depth, farthest, rel_tol=1e-9, abs_tol=1e-12 * abs(w0))}
