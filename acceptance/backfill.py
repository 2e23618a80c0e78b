"""Backfills by month: a month is read once and launched once, whatever there is more of, months or categories; what is
done when everything is killed stays done.
"""

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from textwrap import indent
from typing import Any

import psutil
import pytest
import requests

from acceptance.browser.conftest import dagster_dev, keep_categories
from acceptance.conftest import OUTPUT, Explorer
from audience_explorer_dagster.running.following import _MOST_ROUNDS

MONTHS = [f"2018-{month:02}" for month in range(7, 13)]
YEAR = [*MONTHS, *(f"2019-{month:02}" for month in range(1, 7))]
CATEGORIES = ("cloud", "files", "network", "system")
ONCE = ("grouped_users", "clustering_inputs", "k_selection", "kmeans")  # segments follow the month before
MOST_RUNS = 3  # at once, of `dagster.yaml`; all but one wait for their turn
ENOUGH_MEMORY = 2_000_000_000  # bytes: their processes, and a launch with its workers; ten at once have more

LAUNCH = """
mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
  }
}"""
BACKFILL = """
query ($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { status partitionStatusCounts { runStatus count } }
  }
}"""


@pytest.mark.timeout(2700)
def test_six_months_of_four_categories_are_made_once_each_and_go_on_after_a_kill(
    explorer: Explorer, ansible: Path
) -> None:
    explorer.bring(ansible, *MONTHS)
    keep_categories(explorer, *CATEGORIES)
    explorer.command("audience-explorer", "categories", "sync")
    began = time.monotonic()
    with dagster_dev(explorer) as address:
        launch_backfill(address, MONTHS)
        wait_for(lambda: len(finished(explorer, "kmeans")) > 2 * len(CATEGORIES), "two months' clusters")
        kill_all(explorer)
    done = finished(explorer)
    assert len(finished(explorer, "kmeans")) < len(MONTHS) * len(CATEGORIES), "killed in the middle"
    cancel_rest(explorer)

    with dagster_dev(explorer) as address:
        backfill = launch_backfill(address, MONTHS)
        wait_for(lambda: ended(address, backfill), "the end of the backfill", seconds=2000)
        assert ended(address, backfill) == {"SUCCESS": len(MONTHS)}
    seconds = time.monotonic() - began

    assert done <= finished(explorer), "what was done stays"
    computed = computed_records(explorer)
    assert len(computed) == len(MONTHS) * (1 + 5 * len(CATEGORIES))
    by_asset = {asset: [n for name, n in computed.items() if name.startswith(asset)] for asset in ONCE}
    assert by_asset == {asset: [1] * len(by_asset[asset]) for asset in ONCE}, "what was on record is not computed again"
    # Each month was launched once, and once more if the kill came in its middle; and whenever a month came later than
    # one after it, that one was followed again.
    launches = launched_months(explorer)
    assert set(launches) == set(MONTHS)
    assert max(map(launches.count, MONTHS)) <= 2 + _MOST_ROUNDS
    keep("backfill_6_x_4_with_a_kill", {"seconds": round(seconds), "launches": len(launches)})


@pytest.mark.timeout(2700)
def test_twelve_months_on_one_machine_are_read_once_each_one_at_a_time_in_bounded_memory(
    explorer: Explorer, ansible: Path
) -> None:
    explorer.bring(ansible, *YEAR)
    keep_categories(explorer, "cloud", "system")
    explorer.command("audience-explorer", "categories", "sync")
    began = time.monotonic()
    with dagster_dev(explorer) as address, watched(explorer) as seen:
        before = seen.look()
        backfill = launch_backfill(address, YEAR)
        wait_for(lambda: ended(address, backfill), "the end of the backfill", seconds=2000)
        assert ended(address, backfill) == {"SUCCESS": len(YEAR)}
    seconds = time.monotonic() - began

    assert sorted(months_read(explorer)) == YEAR, "each by one launch, however many others follow segments again"
    launches = launched_months(explorer)
    assert set(launches) == set(YEAR)
    assert max(map(launches.count, YEAR)) <= 1 + _MOST_ROUNDS
    assert seen.launches == 1, "at once"
    assert runs_at_once(explorer) <= MOST_RUNS
    added = seen.most_memory - before
    assert added < ENOUGH_MEMORY, f"{added:,} bytes"
    keep("backfill_12_x_2", {"seconds": round(seconds), "bytes": added})


@dataclass
class Watched:
    """What there is of an explorer's processes, and the most of it that there was at once."""

    explorer: Explorer
    launches: int = 0
    most_memory: int = 0

    def look(self) -> int:
        """Look once at all processes; their memory in bytes, in which what several share counts once."""
        launches = memory = 0
        for process in processes_of(self.explorer):
            launches += is_launch(process)
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                memory += process.memory_full_info().pss
        self.launches = max(self.launches, launches)
        self.most_memory = max(self.most_memory, memory)
        return memory


@contextmanager
def watched(explorer: Explorer) -> Iterator[Watched]:
    """Look at an explorer's processes all the time, until the body ends."""
    seen, over = Watched(explorer), threading.Event()

    def look() -> None:
        while not over.wait(0.5):
            seen.look()

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(look)
        try:
            yield seen
        finally:
            over.set()
    watching.result()


def launch_backfill(address: str, months: list[str]) -> str:
    """Launch a backfill of the job as the UI's dialog does; its id."""
    selector = {
        "partitionSetName": "whole_month_partition_set",
        "repositorySelector": {
            "repositoryName": "__repository__",
            "repositoryLocationName": "audience_explorer",
        },
    }
    launched = ask(address, LAUNCH, params={"selector": selector, "partitionNames": months})["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    return str(launched["backfillId"])


def ended(address: str, backfill: str) -> dict[str, int]:
    """How many runs of a backfill ended how, once all did; nothing before."""
    found = ask(address, BACKFILL, id=backfill)["partitionBackfillOrError"]
    if found["status"].startswith(("REQUESTED", "CANCELING")):
        return {}
    assert found["status"].startswith("COMPLETED"), found
    return {entry["runStatus"]: entry["count"] for entry in found["partitionStatusCounts"] if entry["count"]}


def ask(address: str, query: str, **variables: Any) -> dict[str, Any]:
    """Ask Dagster's GraphQL, as the UI does."""
    answer = requests.post(f"{address}/graphql", json={"query": query, "variables": variables}, timeout=600).json()
    assert "errors" not in answer, answer
    found: dict[str, Any] = answer["data"]
    return found


def finished(explorer: Explorer, asset: str = "*") -> set[Path]:
    """The folders of finished outputs."""
    return {manifest.parent for manifest in explorer.root.glob(f"{asset}/month=*/**/manifest.json")}


def launched_months(explorer: Explorer) -> list[str]:
    """The months of all launches that there were."""
    return in_records(
        explorer,
        "for run in instance.get_runs():\n"
        "    for entry in instance.all_logs(run.run_id):\n"
        "        if entry.user_message.startswith('launched '):\n"
        "            print(run.tags['dagster/partition'])\n",
    )


def months_read(explorer: Explorer) -> list[str]:
    """The months of all jobs that read raw data."""
    return in_records(
        explorer,
        "for run in instance.get_runs():\n"
        "    for entry in instance.all_logs(run.run_id):\n"
        "        words = entry.user_message.split()\n"
        "        if words[:1] == ['group_by_user'] and words[2:] == ['starts']:\n"
        "            print(words[1])\n",
    )


def runs_at_once(explorer: Explorer) -> int:
    """How many runs there were at once, at most."""
    told = in_records(
        explorer,
        "for record in instance.get_run_records():\n    print(record.start_time, 1, record.end_time, -1)\n",
    )
    changes = sorted(zip(map(float, told[::2]), map(int, told[1::2]), strict=True))
    return max(accumulate(change for _, change in changes))


def computed_records(explorer: Explorer) -> Counter[str]:
    """How often each partition of each asset was computed, as the records have it.

    What was killed while Dagster wrote a record may be in the run's log and on no record: that is computed again.
    """
    told = in_records(
        explorer,
        "for asset in instance.all_asset_keys():\n"
        "    for record in instance.fetch_materializations(asset, limit=10_000).records:\n"
        "        event = record.asset_materialization\n"
        # What a run made; raw_audience is what arrived.
        "        if 'reused' in event.metadata and not event.metadata['reused'].value:\n"
        "            print(asset.to_user_string() + '/' + event.partition)\n",
    )
    return Counter(told)


def in_records(explorer: Explorer, script: str) -> list[str]:
    """The words that a script prints which has the records as `instance`."""
    opened = f"import dagster as dg\nwith dg.DagsterInstance.get() as instance:\n{indent(script, '    ')}"
    return explorer.command("python", "-W", "ignore", "-c", opened).stdout.split()


def cancel_rest(explorer: Explorer) -> None:
    """Cancel what is left of a backfill, as a person does in the UI: else it would go on beside the next one."""
    in_records(
        explorer,
        "from dagster._core.execution.backfill import BulkActionStatus\n"
        "for backfill in instance.get_backfills():\n"
        "    instance.update_backfill(backfill.with_status(BulkActionStatus.CANCELED))\n"
        "for run in instance.get_runs():\n"
        "    if not run.is_finished:\n"
        "        instance.report_run_canceled(run)\n",
    )


def kill_all(explorer: Explorer) -> None:
    """Kill everything that works with its records, as a machine that goes dark does."""
    while alive := [process for process in processes_of(explorer) if is_alive(process)]:
        for process in alive:
            with suppress(psutil.NoSuchProcess):  # some end with one that was killed before
                process.kill()
        psutil.wait_procs(alive, timeout=1)  # one may have started others while these were looked for


def is_alive(process: psutil.Process) -> bool:
    """Whether a process is there, and no zombie."""
    with suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def is_launch(process: psutil.Process) -> bool:
    """Whether a process runs the jobs of a launch; not one that it forked, which has its command line at first."""
    with suppress(psutil.Error, ProcessLookupError):
        is_of_launch = process.cmdline()[1:3] == ["-m", "spark_jobs"] and process.status() != psutil.STATUS_ZOMBIE
        return is_of_launch and os.getsid(process.pid) == process.pid  # a launch has a session of its own
    return False


def processes_of(explorer: Explorer) -> Iterator[psutil.Process]:
    """All processes that work with its records."""
    # Not `process_iter`, which may give a process that ended before for one that has its number now.
    for pid in psutil.pids():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            process = psutil.Process(pid)
            if process.environ().get("DAGSTER_HOME") == str(explorer.home):
                yield process


def wait_for(done: Callable[[], object], what: str, seconds: float = 900) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"{what} did not come in {seconds} s"
        time.sleep(0.5)


def keep(name: str, figures: dict[str, Any]) -> None:
    """Keep figures for people."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / f"{name}.json").write_text(json.dumps(figures, indent=1))
