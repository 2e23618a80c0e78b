"""An analyst opens the UI, picks a partition of kmeans, overrides k in the launchpad, and sees the result."""

import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from acceptance.browser.conftest import dagster_dev, open_page, take
from acceptance.conftest import Explorer

MONTH = "2018-12"
PARTITION = f"cloud|{MONTH}"
CONFIG = "{ops: {segments: {config: {kmeans: {k: 7, label: seven}}}}}"


def test_a_partition_of_kmeans_with_another_k(explorer: Explorer, ansible: Path, browser: Browser) -> None:
    explorer.bring(ansible, MONTH)
    first = explorer.pipeline("--month", MONTH, "--category", "cloud", "--category", "network")

    with dagster_dev(explorer) as address:
        page = open_page(browser, f"{address}/asset-groups")
        expect(page.get_by_text("grouped_users").first).to_be_visible()
        page.wait_for_timeout(3000)
        take(page, "1-asset-graph")

        page.goto(f"{address}/assets/kmeans?view=partitions&partition={PARTITION}")
        expect(page.get_by_role("heading", name=PARTITION).or_(page.get_by_text(PARTITION).first)).to_be_visible()
        page.get_by_role("button", name="Materialize").first.click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_text("Config", exact=True).click()
        dialog.get_by_role("button", name="Add config").click()
        page.locator(".CodeMirror").click()
        page.keyboard.insert_text(CONFIG)
        expect(page.get_by_text("No errors")).to_be_visible()
        take(page, "2-launchpad")
        page.get_by_role("button", name="Save config").click()
        page.get_by_role("button", name="Launch 1 run").click()

        clusters = _wait_for_second_output(explorer, first.folders[f"kmeans {PARTITION}"])
        assert '"k": 7' in (clusters / "summary.json").read_text()

        page.goto(f"{address}/assets/kmeans?view=partitions&partition={PARTITION}")
        expect(page.get_by_text("seven", exact=True)).to_be_visible()
        take(page, "3-result")
        page.get_by_text("[Show Markdown]").first.click()
        expect(page.locator("img[src^='data:image/png']").first).to_be_visible()
        take(page, "4-picture")

    # What was done in the UI, the command line finds done.
    assert explorer.pipeline("--month", MONTH, "--category", "cloud", "--k", "7").launched == set()


def _wait_for_second_output(explorer: Explorer, first: Path) -> Path:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        others = [path.parent for path in first.parent.glob("*/manifest.json") if path.parent != first]
        if others:
            time.sleep(3)  # for the record and its page
            return others[0]
        time.sleep(0.5)
    pytest.fail(f"no second output of {PARTITION}:\n{(explorer.home / 'dagster-dev.log').read_text()[-3000:]}")
