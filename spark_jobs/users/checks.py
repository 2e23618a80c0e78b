"""Checks of grouped users: what was written is what was accepted."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa

from spark_jobs import storage
from spark_jobs.config import ACTIONS
from spark_jobs.outputs import checks, read_back
from spark_jobs.outputs.checks import CheckResult
from spark_jobs.outputs.schemas import Inspection, TableRules
from spark_jobs.raw.rules import REJECTS
from spark_jobs.users.counts import RawCounts, exact_sum
from spark_jobs.users.grouping import USERS

Seen = TypeVar("Seen")


def check_grouped_users(folder: str, found: RawCounts, max_reject_ratio: float, cores: int) -> dict[str, CheckResult]:
    """Read back grouped users, and compare them with what was found in the raw files.

    Args:
        folder: The output.
        found: What was found.
        max_reject_ratio: The largest share of rejected rows that does not fail the month.
        cores: How many files are read at a time.
    """
    users, actions_by_file = _read_back(folder, "users", USERS, cores, actions_of)
    rejects, _ = _read_back(folder, "rejects", REJECTS, cores, lambda batches: sum(1 for _ in batches))
    written: Counter[str] = Counter()
    for actions in actions_by_file:
        written.update(actions)
    return {
        "schema": checks.schema(users, rejects),
        "conservation": conservation_of_actions(found.actions, written),
        "rejects": rejects_are_few_and_kept(found.rows, found.rejected, rejects.rows, max_reject_ratio),
    }


def _read_back(
    folder: str, table: str, rules: TableRules, cores: int, look: Callable[[Iterator[pa.RecordBatch]], Seen]
) -> tuple[Inspection, list[Seen]]:
    """Inspect the files of a table, several at a time; the inspection of all, and what `look` gives of each."""

    def inspect(file: storage.AnyPath) -> tuple[Inspection, Seen]:
        of_file = Inspection(rules)
        return of_file, look(read_back.parquet(folder, f"{table}/{file.name}", of_file))

    with ThreadPoolExecutor(cores) as threads:
        found = list(threads.map(inspect, storage.visible_files(storage.join(folder, table))))
    of_all = Inspection(rules)
    for of_file, _ in found:
        of_all.include(of_file)
    return of_all, [seen for _, seen in found]


def actions_of(users: Iterable[pa.RecordBatch]) -> Counter[str]:
    """How many of each action grouped users have."""
    actions: Counter[str] = Counter()
    for batch in users:
        pages = batch.column("pages").flatten()
        actions.update({action: exact_sum(pages.field(action).to_numpy()) for action in ACTIONS})
    return actions


def conservation_of_actions(accepted: Mapping[str, int], written: Mapping[str, int]) -> CheckResult:
    """The counts of each action, summed over all grouped users, are those of the accepted raw actions."""
    wrong = [
        f"{action}: {accepted.get(action, 0):,} accepted, {written.get(action, 0):,} written"
        for action in ACTIONS
        if accepted.get(action, 0) != written.get(action, 0)
    ]
    return checks.result({"accepted": sum(accepted.values()), "written": sum(written.values())}, wrong)


def rejects_are_few_and_kept(rows: int, rejected: int, kept: int, largest_share: float) -> CheckResult:
    """All rejected rows are kept, and they are at most half of the share that would fail the month.

    Args:
        rows: The raw rows.
        rejected: How many of them break a rule.
        kept: How many are in the output's rejects.
        largest_share: Of the raw rows; more rejects fail the month.
    """
    share = rejected / rows if rows else 0.0
    wrong = []
    if kept != rejected:
        wrong.append(f"{rejected:,} rows were rejected, and {kept:,} are in rejects/")
    if 2 * rejected > largest_share * rows:
        wrong.append(f"{share:.2%} of the rows were rejected; more than {largest_share:.2%} would fail the month")
    return checks.result({"rows": rows, "rejected": rejected, "share": share, "largest_share": largest_share}, wrong)
