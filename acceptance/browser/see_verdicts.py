"""An analyst opens partitions with segments, with none, and with too few people: the page says what to do with each."""

import pytest
from playwright.sync_api import Browser, Page, expect

from acceptance.browser.conftest import dagster_dev, expect_evaluation, open_history_of_check, open_page, take
from acceptance.conftest import Explorer
from spark_jobs import demo_audience

MONTH = demo_audience.MONTHS[0]
VERDICTS = {  # what the page of k_selection says of a category: what was found, and what to do
    "coffee": ("segments", "4 segments among", "See kmeans of this partition"),
    "news": ("none", "No segments among", "Treat these people as one audience"),
    "beekeeping": ("too_few", "Too few people to tell", "Wait for a month with more people"),
}
CLUSTERS = {  # and that of kmeans
    "coffee": "4 clusters of",
    "news": "k_selection found no segments",
    "beekeeping": "k_selection found too few people",
}


@pytest.fixture
def demo(explorer: Explorer) -> Explorer:
    """A month of the demo, clustered with all defaults."""
    demo_audience.make(str(explorer.root), users=5000)
    explorer.pipeline("--month", MONTH, *(word for name in VERDICTS for word in ("--category", name)))
    return explorer


def test_the_page_of_a_partition_says_what_was_found_how_sure_and_what_to_do(demo: Explorer, browser: Browser) -> None:
    with dagster_dev(demo) as address:
        page = open_page(browser, f"{address}/assets/k_selection")
        for category, (verdict, finding, what_to_do) in VERDICTS.items():
            page.goto(f"{address}/assets/k_selection?view=partitions&partition={category}|{MONTH}")
            _expect_row(page, "verdict", verdict)
            _expect_row(page, "finding", finding)
            _expect_row(page, "how_sure", ".")
            _expect_row(page, "what_to_do", what_to_do)
            take(page, f"17-verdict-{verdict}")
            if verdict == "too_few":
                expect(page.get_by_text("[Show Markdown]")).to_have_count(0)  # no k was tried, so there is no picture
            else:
                _open_picture(page)
                take(page, f"18-tried-k-{verdict}")

        for category, finding in CLUSTERS.items():
            page.goto(f"{address}/assets/kmeans?view=partitions&partition={category}|{MONTH}")
            _expect_row(page, "finding", finding)
            take(page, f"19-clusters-{VERDICTS[category][0]}")
            _open_picture(page)
            take(page, f"20-picture-of-clusters-{VERDICTS[category][0]}")

        page.goto(f"{address}/assets/k_selection")
        page.get_by_role("tab", name="Checks").click()
        open_history_of_check(page, "has_segments")
        for category, result in (("coffee", "Passed"), ("news", "Failed"), ("beekeeping", "Failed")):
            expect_evaluation(page, f"{category}|{MONTH}", result)
        take(page, "21-check-has-segments")


def _expect_row(page: Page, name: str, text: str) -> None:
    """A row of the metadata has a text."""
    row = page.get_by_role("row").filter(has=page.get_by_text(name, exact=True)).filter(has_text=text).first
    expect(row).to_be_visible()


def _open_picture(page: Page) -> None:
    page.get_by_text("[Show Markdown]").first.click()
    expect(page.locator("img[src^='data:image/png']").first).to_be_visible()
