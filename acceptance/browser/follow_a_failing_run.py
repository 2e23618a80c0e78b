"""A category file is broken: from the run to the partition and the reason, in the UI."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, TimeoutError, expect

from acceptance.browser.conftest import dagster_dev, expect_on, keep_categories, open_job, take
from acceptance.conftest import Explorer

MONTH = "2018-12"


def test_a_failing_run_is_followed_to_its_error(explorer: Explorer, ansible: Path, browser: Browser) -> None:
    explorer.bring(ansible, MONTH)
    keep_categories(explorer, "cloud", "network", "system")
    broken = explorer.root / "categories" / "network.json"
    broken.write_text('{"id": 6, "facebook": [')

    with dagster_dev(explorer) as address:
        page = open_job(browser, address, "Launchpad")
        expect(page.get_by_text("max_reject_ratio")).to_be_visible()  # the config has been filled in
        _choose_partition(page)
        take(page, "13-launchpad-of-a-month")
        page.get_by_role("button", name="Launch Run").click()
        page.wait_for_url("**/runs/*")

        failure = page.get_by_text("Failure", exact=True)
        expect_on(page, f"{address}/runs", failure)
        page.get_by_text("Failed", exact=True).click()
        expect(failure).to_be_visible()
        take(page, "14-failed-runs")
        page.get_by_role("link", name="View", exact=True).click()

        step = page.get_by_text("partitions failed; the others are done").first
        expect(step).to_contain_text("5 of 16 partitions failed")
        expect(step).to_contain_text(
            f"[clustering_inputs network|{MONTH}, k_selection network|{MONTH}, kmeans network|{MONTH},"
            f" segments network|{MONTH}, audience_report network|{MONTH}]"
        )
        expect(step).to_contain_text(f"{broken} is not JSON")
        take(page, "15-failed-run")
        page.get_by_text("[Show JSON]").last.click()
        expect(page.get_by_role("dialog")).to_contain_text(f"kmeans network|{MONTH}")
        take(page, "16-failed-partitions")

        page.goto(f"{address}/assets/kmeans?view=partitions&partition=network|{MONTH}")
        expect(page.get_by_text("failed, and did not materialize this asset")).to_be_visible()
        take(page, "16-partition-that-failed")

    # The other categories are done.
    done = {path.parts[-3] for path in (explorer.root / "kmeans").glob("*/*/*/manifest.json")}
    assert done == {"category=cloud", "category=system"}


def _choose_partition(page: Page) -> None:
    """Choose the month in the launchpad, whose list of months does not always open at the first letter typed."""
    listed = page.get_by_role("menuitem").filter(has_text=MONTH)
    for attempt in range(1, 21):
        page.get_by_placeholder("Partition").fill("")
        page.get_by_placeholder("Partition").fill(MONTH)
        try:
            listed.click(timeout=2_000 * attempt)  # a busy machine needs longer to show it
        except TimeoutError:
            continue
        return
    pytest.fail(f"the launchpad does not offer {MONTH}")
