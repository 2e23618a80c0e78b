"""What the demo found, beside what its audience was made with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spark_jobs import demo_audience
from spark_jobs.config import FIT_MIN_ACTIONS
from spark_jobs.terminal import as_table

if TYPE_CHECKING:
    from audience_explorer_dagster.running.pipeline import Outcome


@dataclass(frozen=True)
class _Result:
    """What was found in a category of a month."""

    partition: str
    users: int | None  # rounded; None for few
    planted: int  # segments; 1 where there is no structure
    k: int
    verdict: str
    agreement: float | None  # of the segments found with those planted; None where either has none


def demo_results(outcomes: "Sequence[Outcome]", root: str) -> str:
    """What was planted in each category of each month and what was found, for a person."""
    from audience_explorer_dagster.records.people import shown

    columns: dict[str, Callable[[_Result], str]] = {
        "partition": lambda r: r.partition,
        "users": lambda r: shown(r.users),
        "planted": lambda r: f"{r.planted} segments" if r.planted > 1 else "no segments",
        "found": _found,
        "agreement": lambda r: "" if r.agreement is None else f"{r.agreement:.2f}",
    }
    return (
        f"{as_table(columns, _results(outcomes, root))}\n\n"
        "agreement: the adjusted Rand index between planted and found. 1 is the same, about 0 is chance.\n"
        f"It leaves out users with fewer than {FIT_MIN_ACTIONS} actions in the category."
    )


def _found(result: _Result) -> str:
    from audience_explorer_dagster.records.findings import SEGMENTS, VERDICTS

    return f"{result.k} segments" if result.verdict == SEGMENTS else VERDICTS[result.verdict]


def _results(outcomes: "Sequence[Outcome]", root: str) -> list[_Result]:
    from audience_explorer_dagster.partitions import Partition
    from audience_explorer_dagster.planning import CLUSTERING_INPUTS, KMEANS
    from audience_explorer_dagster.records.findings import SEGMENTS

    folders = {(outcome.asset, outcome.partition): outcome.folder for outcome in outcomes}
    results = []
    for outcome in outcomes:
        inputs = folders.get((CLUSTERING_INPUTS, outcome.partition))
        if outcome.asset != KMEANS or outcome.folder is None or inputs is None:
            continue
        assert isinstance(outcome.partition, Partition)
        category = str(outcome.partition.category)
        planted = demo_audience.planted(category)
        comparable = planted > 1 and outcome.verdict == SEGMENTS
        agreement = demo_audience.agreement(root, category, inputs, outcome.folder) if comparable else None
        results.append(
            _Result(outcome.partition.key, outcome.users, planted, outcome.k or 0, str(outcome.verdict), agreement)
        )
    return results
