"""Two months are backfilled in the UI: all categories of both, with a run and a launch a month."""

import re
from pathlib import Path

import dagster as dg
from playwright.sync_api import Browser, expect

from acceptance.browser.conftest import dagster_dev, expect_on, keep_categories, open_job, take
from acceptance.conftest import Explorer

MONTHS = ("2018-11", "2018-12")
CATEGORIES = ("cloud", "system")
FOLLOWING = ("segments", "audience_report")


def test_a_backfill_of_two_months_takes_a_run_and_a_launch_each(
    explorer: Explorer, ansible: Path, browser: Browser
) -> None:
    explorer.bring(ansible, *MONTHS)
    keep_categories(explorer, *CATEGORIES)

    with dagster_dev(explorer) as address:
        page = open_job(browser, address, "Partitions")
        page.get_by_role("button", name="Launch backfill").click()
        page.get_by_text("Select a partition or create one").click()
        for month in MONTHS:
            page.get_by_placeholder("Filter partitions").fill(month)
            page.get_by_role("menuitem").filter(has_text=month).click()
        page.get_by_text("Launch whole_month backfill").click()  # anywhere beside the list closes it
        submit = page.get_by_role("button", name="Submit 2 runs")
        expect(submit).to_be_enabled()
        take(page, "7-backfill-dialog")
        submit.click()
        backfill = page.get_by_role("link", name=re.compile("^[a-z]{8}$")).get_attribute("href")

        # The daemon looks for backfills, and for those that are over, twice a minute.
        page.goto(f"{address}{backfill}?tab=runs")
        expect(page.get_by_text("Success", exact=True)).to_have_count(2, timeout=600_000)
        take(page, "8-backfill-runs")

        every_one = page.get_by_text(f"Materialized ({len(MONTHS) * len(CATEGORIES)})")
        expect_on(page, f"{address}/assets/kmeans?view=partitions&partition=system|{MONTHS[-1]}", every_one)
        expect(page.get_by_text("[Show Markdown]").first).to_be_visible()
        take(page, "9-backfilled")

    for asset in ("clustering_inputs", "k_selection", "kmeans", "segments", "audience_report"):
        outputs = [path.parent.parent for path in (explorer.root / asset).glob("*/*/*/manifest.json")]
        folders = [
            explorer.root / asset / f"month={month}" / f"category={name}" for month in MONTHS for name in CATEGORIES
        ]
        # Each once; but both months may run at once, and then the segments of the later one are followed again.
        assert sorted(set(outputs) if asset in FOLLOWING else outputs) == folders
    assert len(list((explorer.root / "grouped_users").glob("*/*/manifest.json"))) == len(MONTHS)
    with dg.DagsterInstance.from_config(str(explorer.home)) as instance:
        runs = {run.tags["dagster/partition"]: run.run_id for run in instance.get_runs()}
        assert sorted(runs) == list(MONTHS)
        assert instance.get_runs_count() == len(MONTHS)
        for month, run in runs.items():
            said = [entry.user_message for entry in instance.all_logs(run)]
            launches = sum(text.startswith("launched") for text in said)
            assert launches in ((1,) if month == MONTHS[0] else (1, 2))
