"""An analyst looks at how the audience and its segments went over the months, and at what was checked."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from acceptance.browser.conftest import (
    dagster_dev,
    expect_evaluation,
    expect_on,
    keep_categories,
    open_history_of_check,
    open_page,
    take,
)
from acceptance.conftest import Explorer
from audience_explorer_dagster.assets import WHOLE_MONTH_JOB

MONTHS = ("2018-11", "2018-12", "2019-01")
CATEGORIES = ("cloud", "system")
CHECKS = ("every_user_once", "centers_in_range", "schema", "drift")  # of kmeans


def test_the_plots_over_the_months_and_the_checks(explorer: Explorer, ansible: Path, browser: Browser) -> None:
    explorer.environment["AUDIENCE_EXPLORER_START_MONTH"] = MONTHS[0]
    explorer.bring(ansible, *MONTHS)
    keep_categories(explorer, *CATEGORIES)
    explorer.pipeline(*(word for month in MONTHS for word in ("--month", month)))

    with dagster_dev(explorer) as address:
        page = open_page(browser, f"{address}/assets/grouped_users")
        _see_plots(page, "users", "pages", "rows", "rejected_rows", "duration_seconds")
        take(page, "10-plots-of-grouped-users")
        page.goto(f"{address}/assets/category_trends")
        _see_plots(page, *(f"{figure}/{name}" for name in CATEGORIES for figure in ("users", "k")))
        take(page, "10-plots-of-category-trends")
        page.goto(f"{address}/assets/kmeans")
        _see_plots(page, "users", "k", "wssse", "duration_seconds")
        take(page, "11-plots-of-kmeans")

        page.get_by_role("tab", name="Checks").click()
        for check in CHECKS:
            open_history_of_check(page, check)
            for category in CATEGORIES:
                expect_evaluation(page, f"{category}|{MONTHS[-1]}", "Passed")
            take(page, f"12-check-{check}")


def test_a_month_that_is_late_and_what_runs_the_assets(explorer: Explorer, ansible: Path, browser: Browser) -> None:
    explorer.environment["AUDIENCE_EXPLORER_START_MONTH"] = MONTHS[0]
    explorer.bring(ansible, MONTHS[0])  # none has come since

    with dagster_dev(explorer) as address:
        page = open_page(browser, f"{address}/assets/raw_audience")
        expect(page.get_by_role("link", name="raw_arrivals").first).to_be_visible()
        late = page.get_by_text("is late: raw/month=")
        expect_on(page, f"{address}/assets/raw_audience?view=checks&checkDetail=arrived_in_time", late)
        take(page, "13-late-month")
        page.goto(f"{address}/assets/kmeans")
        expect(page.get_by_text("complete_months").first).to_be_visible()
        take(page, "14-what-runs-kmeans")
        page.get_by_role("link", name=WHOLE_MONTH_JOB).first.click()
        expect(page.get_by_text("2 schedules/sensors")).to_be_visible()


def _see_plots(page: Page, *names: str) -> None:
    """Switch an asset's metadata to plots, and see that those with these names have a line."""
    page.get_by_text("Plots", exact=True).first.click()
    for name in names:
        title = page.get_by_text(name, exact=True)
        chart = page.locator("div").filter(has=title).filter(has=page.locator("canvas")).last.locator("canvas")
        chart.scroll_into_view_if_needed()
        for _ in range(1200):
            if chart.evaluate(IS_DRAWN):
                break
            page.wait_for_timeout(100)
        else:
            pytest.fail(f"the plot of {name} is empty")


# Dagster draws its lines in violet, and all else in gray.
IS_DRAWN = """canvas => {
    const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    for (let at = 0; at < pixels.length; at += 4)
        if (pixels[at + 3] > 200 && pixels[at + 2] - pixels[at + 1] > 80) return true;
    return false;
}"""
