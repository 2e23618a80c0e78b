"""With only Dagster's daemon running, and no hand on it: a month lands and its clusters appear, then those of a new
category; and who should know of a month that fails is told."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dagster import AssetKey, DagsterInstance

from acceptance.browser.conftest import keep_categories
from acceptance.conftest import PROJECT, Explorer
from tests.test_notifications import Hook, hook

__all__ = ["hook"]  # a fixture

MONTH, BROKEN = "2018-12", "2018-11"


@contextmanager
def dagster_daemon(explorer: Explorer) -> Iterator[Callable[[Callable[[], bool], str], None]]:
    """`dagster-daemon run`, until the body ends; a function that waits for something to come about."""
    log = explorer.home / "daemon.log"
    with open(log, "wb") as out:
        daemon = subprocess.Popen(
            ["dagster-daemon", "run"],
            cwd=PROJECT,
            env=explorer.environment,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )

    def wait(come_about: Callable[[], bool], what: str) -> None:
        started = time.monotonic()
        while not come_about():
            if daemon.poll() is not None or time.monotonic() > started + 900:
                pytest.fail(f"{what}: not after {time.monotonic() - started:.0f} s.\n{log.read_text()[-6000:]}")
            time.sleep(0.5)
        print(f"{what}: after {time.monotonic() - started:.0f} s")

    try:
        wait(lambda: "Checking for new runs for sensor: complete_months" in log.read_text(), "the daemon is up")
        yield wait
    finally:
        os.killpg(daemon.pid, signal.SIGTERM)
        try:
            daemon.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()


def land(explorer: Explorer, source: Path, month: str) -> Path:
    """Let the raw data of a month land, with no marker yet; its folder."""
    return shutil.copytree(source / "raw" / f"month={month}", explorer.root / "raw" / f"month={month}")


def on_record(explorer: Explorer, *categories: str) -> bool:
    """Whether all is made of these categories of the month, reports last, and Dagster has them on record."""
    wanted = {f"{name}|{MONTH}" for name in categories}
    with DagsterInstance.from_config(str(explorer.home)) as records:
        return records.get_materialized_partitions(AssetKey("audience_report")) >= wanted


def test_a_month_that_lands_is_clustered_and_so_is_a_new_category(
    explorer: Explorer, ansible: Path, hook: Hook
) -> None:
    explorer.environment |= {"AUDIENCE_EXPLORER_AUTOMATIC": "1", "AUDIENCE_EXPLORER_NOTIFY": f"log,{hook.url}"}
    explorer.bring(ansible)
    keep_categories(explorer, "cloud", "files", "network", "system")
    names = sorted(file.stem for file in (explorer.root / "categories").iterdir())
    new, *others = names
    file = explorer.root / "categories" / f"{new}.json"
    later = file.rename(explorer.root / "later.json")

    with dagster_daemon(explorer) as wait:
        (land(explorer, ansible, MONTH) / "_SUCCESS").touch()
        wait(lambda: on_record(explorer, *others), "the clusters of all categories")

        later.rename(file)
        raw = land(explorer, ansible, BROKEN) / "actions.jsonl.gz"
        raw.write_bytes(raw.read_bytes()[:1000])
        (raw.parent / "_SUCCESS").touch()
        wait(lambda: on_record(explorer, new), "the clusters of the new category")
        wait(lambda: bool(hook.bodies), "the notice of the month that fails")

    [notice] = hook.bodies
    assert notice["partitions"] == BROKEN
    assert f"{raw} can't be read" in notice["failed"][f"grouped_users {BROKEN}"]
    made = list(explorer.root.glob(f"kmeans/month={MONTH}/*/*/manifest.json"))
    assert len(made) == len(names), "none was computed twice"
    assert not explorer.pipeline("--month", MONTH).launched, "all of it is on record"
