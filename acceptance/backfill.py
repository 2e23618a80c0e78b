"""Backfills by month: a month is read once and launched once, whatever there is more of, months or categories; what is
done when everything is killed stays done.
"""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from textwrap import indent
from typing import Any

import psutil
import requests

from acceptance.browser.conftest import dagster_dev
from acceptance.conftest import OUTPUT, Explorer

MONTHS = [f"2018-{month:02}" for month in range(7, 13)]
FURTHER_MONTHS = ["2019-01", "2019-02"]
CATEGORIES = 13

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


def test_six_months_and_thirteen_categories_are_six_launches_and_go_on_after_a_kill(
    explorer: Explorer, ansible: Path
) -> None:
    explorer.bring(ansible, *MONTHS)
    explorer.command("audience-explorer", "categories", "sync")
    began = time.monotonic()
    with dagster_dev(explorer) as address:
        launch_backfill(address, MONTHS)
        wait_for(lambda: len(finished(explorer, "kmeans")) > 2 * CATEGORIES, "two months' clusters")
        kill_all(explorer)
    done = finished(explorer)
    assert len(finished(explorer, "kmeans")) < len(MONTHS) * CATEGORIES, "killed in the middle"
    cancel_rest(explorer)

    with dagster_dev(explorer) as address:
        backfill = launch_backfill(address, MONTHS)
        wait_for(lambda: ended(address, backfill), "the end of the backfill", seconds=240)
        assert ended(address, backfill) == {"SUCCESS": len(MONTHS)}
    seconds = time.monotonic() - began

    assert done <= finished(explorer), "what was done stays"
    computed = computed_records(explorer)
    assert len(computed) == len(MONTHS) * (1 + 4 * CATEGORIES)
    assert set(computed.values()) == {1}, "nothing that was on record was computed again"
    # Each month was launched once, and once more if the kill came in its middle.
    launches = launched_months(explorer)
    assert set(launches) == set(MONTHS)
    assert max(map(launches.count, MONTHS)) <= 2
    keep("backfill_6_x_13_with_a_kill", {"seconds": round(seconds), "launches": len(launches)})


def test_eight_months_and_three_categories_are_eight_launches(explorer: Explorer, ansible: Path) -> None:
    months = MONTHS + FURTHER_MONTHS
    explorer.bring(ansible, *months)
    for file in sorted((explorer.root / "categories").iterdir())[3:]:
        file.unlink()
    asked = [argument for month in months for argument in ("--month", month)]
    assert len(explorer.pipeline(*asked).launched) == 8 * (1 + 4 * 3)
    assert sorted(launched_months(explorer)) == months


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
    answer = requests.post(f"{address}/graphql", json={"query": query, "variables": variables}, timeout=60).json()
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
    for process in psutil.process_iter():
        try:
            if process.environ().get("DAGSTER_HOME") == str(explorer.home):
                process.kill()
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue


def wait_for(done: Callable[[], object], what: str, seconds: float = 120) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"{what} did not come in {seconds} s"
        time.sleep(0.5)


def keep(name: str, figures: dict[str, Any]) -> None:
    """Keep figures for people."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / f"{name}.json").write_text(json.dumps(figures, indent=1))
