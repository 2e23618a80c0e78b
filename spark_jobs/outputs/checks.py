"""Results of checks: what a job finds when it reads back what it has written.

They are in the output's manifest, and Dagster shows them as the asset's checks. A check that fails is a result for
people to see, not an error. The checks of each kind of output are in its room: `users`, `vectors` and `clusters`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spark_jobs.outputs.schemas import Inspection

_MOST_LISTED = 5  # of the things that are wrong


@dataclass(frozen=True)
class CheckResult:
    """Whether an output passes a check, what was found of it (small JSON scalars), and what is wrong with it."""

    passed: bool
    found: dict[str, Any]
    why: str = ""


def result(found: dict[str, Any], wrong: Sequence[str]) -> CheckResult:
    """The result of a check that found these facts, and these things that are wrong; without any, it passes."""
    listed = list(wrong[:_MOST_LISTED])
    if len(wrong) > _MOST_LISTED:
        listed.append(f"and {len(wrong) - _MOST_LISTED} more")
    return CheckResult(not wrong, found, "; ".join(listed))


def schema(*inspections: Inspection) -> CheckResult:
    """All tables of an output have their columns, and their rows follow the rules; found are the rows of each."""
    return result(
        {inspection.rules.name: inspection.rows for inspection in inspections},
        [violation for inspection in inspections for violation in inspection.violations],
    )
