"""What is counted of a month while it is grouped."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np


@dataclass
class RawCounts:
    """What was found in raw files."""

    rows: int = 0
    actions: Counter[str] = field(default_factory=Counter)  # accepted, by their name
    rejects: Counter[str] = field(default_factory=Counter)  # rows, by the rule that they break
    unreadable: list[str] = field(default_factory=list)  # errors of files

    @property
    def accepted(self) -> int:
        """All accepted actions."""
        return self.actions.total()

    @property
    def rejected(self) -> int:
        """All rows that break a rule."""
        return self.rejects.total()

    @staticmethod
    def total(parts: Iterable["RawCounts"]) -> "RawCounts":
        """What was found in all of them."""
        total = RawCounts()
        for part in parts:
            total.rows += part.rows
            total.actions.update(part.actions)
            total.rejects.update(part.rejects)
            total.unreadable += part.unreadable
        return total


class UserCounts(NamedTuple):
    """What files of users hold."""

    users: int = 0
    pages: int = 0
    actions: int = 0

    @staticmethod
    def total(parts: Iterable["UserCounts"]) -> "UserCounts":
        """What all of them hold."""
        return UserCounts(*(sum(column) for column in zip(*parts, strict=True)))


def exact_sum(values: np.ndarray) -> int:
    """The sum of 64-bit integers, which may take more than 64 bits."""
    return (int((values >> 32).sum()) << 32) + int((values & 0xFFFFFFFF).sum())
