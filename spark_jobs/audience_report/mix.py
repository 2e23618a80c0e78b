"""What the people of a segment do, in a report: how much of it are likes and comments of pages and of posts.

All is made from published figures alone (`spark_jobs.clusters.action_mix`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import fsum, sqrt
from typing import Any

from spark_jobs.audience_report.tables import Table
from spark_jobs.clusters.action_mix import IN_WORDS
from spark_jobs.config import ACTIONS

_DOING = {
    "page_like": "like pages",
    "page_comment": "comment on pages",
    "post_like": "like posts",
    "post_comment": "comment on posts",
}
_LEAST_PEOPLE = 50  # of fewer, shares of numbers that are rounded to tens are too rough to be shown
_MOSTLY = 0.5
_TIMES = 1.5  # as common: then it is said how many times
_LEAST_DIFFERENCE, _LARGE_DIFFERENCE = 0.05, 0.1  # of two shares: to be spoken of at all, and in any case


@dataclass(frozen=True)
class Part:
    """An action: how many people do it, its share of what a person does, and that among all people."""

    action: str
    people: int | None
    share: float | None
    of_all: float | None

    @property
    def difference(self) -> float:
        """Of the two shares, which are whole percents; 0 where one is not known."""
        return 0.0 if self.share is None or self.of_all is None else round(abs(self.share - self.of_all), 2)

    @property
    def telling(self) -> bool:
        """Whether the difference is large, or large beside what it is of."""
        low, high = sorted([self.share or 0.0, self.of_all or 0.0])
        return self.difference >= _LARGE_DIFFERENCE or high >= _TIMES * low


@dataclass(frozen=True)
class Doing:
    """What some people do, in the order of ACTIONS."""

    parts: tuple[Part, ...]
    people: int  # rounded

    @property
    def told(self) -> str:
        """It in a sentence or two, such as `They mostly like pages (72%; all people of the category: 55%).`"""
        first, second = sorted(self.parts, key=lambda part: -(part.share or 0))[:2]
        other = self._differs_most()
        beside = f"; all people of the category: {first.of_all:.0%}" if other is first else ""
        told = f"{_DOING[first.action]} ({first.share:.0%}{beside})"
        if (first.share or 0) >= _MOSTLY:
            told = f"mostly {told}"
        elif second.share:
            told += f" and {_DOING[second.action]} ({second.share:.0%})"
        return f"They {told}.{'' if other in (None, first) else self._compared(other)}"

    def _differs_most(self) -> Part | None:
        """The action that is clearly more, or less, common than among all people; by the largest difference."""
        # Two standard errors of a mean of shares, which can't be larger than this; both figures are rounded besides.
        least = max(_LEAST_DIFFERENCE, 1 / sqrt(self.people))
        clear = [part for part in self.parts if part.difference >= least and part.telling]
        return max(clear, key=lambda part: part.difference, default=None)

    @staticmethod
    def _compared(part: Part) -> str:
        assert part.share is not None
        assert part.of_all is not None
        if part.of_all and part.share >= _TIMES * part.of_all:
            how = f"{part.share / part.of_all:.2g}× as common as"
        else:
            how = f"{'more' if part.share > part.of_all else 'less'} common than"
        return f" {IN_WORDS[part.action].capitalize()} are {how} among all people of the category ({part.of_all:.0%})."

    @property
    def bars(self) -> list[tuple[str, list[tuple[str, float, float]]]]:
        """Two bars of 100, theirs and that of all people: of each action where it begins, and how wide it is."""
        of_each = {
            "own": [(part.action, part.share) for part in self.parts],
            "all": [(part.action, part.of_all) for part in self.parts],
        }
        return [(whose, _stacked(shares)) for whose, shares in of_each.items()]


def _stacked(shares: Iterable[tuple[str, float | None]]) -> list[tuple[str, float, float]]:
    known = [(action, share) for action, share in shares if share]
    whole = max(1.0, fsum(share for _, share in known))  # of rounded shares, which may add up to more
    placed, start = [], 0.0
    for action, share in known:
        width = 100 * share / whole
        placed.append((action, start, width))
        start += width
    return placed


def doing(
    actions: Mapping[str, Mapping[str, Any]] | None,
    of_all: Mapping[str, Mapping[str, Any]] | None,
    people: int | None,
) -> Doing | None:
    """What some people do; None where nothing may be said of it, or it is not known.

    Args:
        actions: Their published mix.
        of_all: That of all people of the category.
        people: How many they are, rounded.
    """
    if actions is None or of_all is None or people is None or people < _LEAST_PEOPLE:
        return None
    if not any(of["share"] for of in actions.values()):
        return None
    return Doing(
        tuple(Part(action, **actions[action], of_all=of_all[action]["share"]) for action in ACTIONS),
        people,
    )


def table(segments: Iterable[tuple[int, str, Doing | None]]) -> Table:
    """What the people of segments do, a row a segment and action.

    Args:
        segments: The `cluster_id` of each, its name, and what its people do.
    """
    return Table(
        "actions",
        ["cluster_id", "segment", "action", "people", "share", "share_of_all"],
        [
            [cluster, name, part.action, part.people, part.share, part.of_all]
            for cluster, name, does in segments
            if does is not None
            for part in does.parts
        ],
    )
