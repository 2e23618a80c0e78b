"""Reports are opened as people have them: on a desk and on a phone, by day and by night, and by a screen reader."""

from itertools import product
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, ViewportSize, expect

from acceptance.browser.conftest import MOST_SECONDS, take
from acceptance.conftest import Explorer
from spark_jobs import demo_audience

MONTHS = demo_audience.MONTHS[:2]
CATEGORIES = ("coffee", "news", "beekeeping")  # segments, none, too few people to tell
WIDTHS = {"desk": 1200, "phone": 390}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
SERIOUS = {"serious", "critical"}


@pytest.fixture
def pages(explorer: Explorer) -> dict[str, Path]:
    """The reports of the demo's second month, by category."""
    demo_audience.make(str(explorer.root), users=5000)
    asked = [word for name in CATEGORIES for word in ("--category", name)]
    made = explorer.pipeline("--from", MONTHS[0], "--to", MONTHS[1], *asked)
    folders = {name: made.folders[f"audience_report {name}|{MONTHS[1]}"] for name in CATEGORIES}
    return {name: folder / "report.html" for name, folder in folders.items()}


def test_everybody_can_read_reports_which_ask_for_nothing_and_say_what_changed(
    pages: dict[str, Path], browser: Browser
) -> None:
    for category, scheme, (device, width) in product(CATEGORIES, SCHEMES, WIDTHS.items()):
        context = browser.new_context(color_scheme=scheme, viewport=ViewportSize(width=width, height=900))
        page = context.new_page()
        page.set_default_timeout(1000 * MOST_SECONDS)
        said: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message, said=said: said.append(message.text))  # type: ignore[misc]
        page.on("request", lambda request, asked=asked: asked.append(request.url))  # type: ignore[misc]
        page.goto(pages[category].as_uri())
        take(page, f"30-report-{category}-{device}-{scheme}")
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow <= 0, "the page is as wide as the window"
        assert asked == [pages[category].as_uri()]
        assert said == []
        found = Axe().run(page).response["violations"]
        assert [v["id"] for v in found if v["impact"] in SERIOUS] == [], f"{category}, {device}, {scheme}"
        context.close()

    page = browser.new_page()
    page.set_default_timeout(1000 * MOST_SECONDS)
    page.goto(pages["coffee"].as_uri())
    for title in ("What changed since", "Size over the months", "Who went where"):
        expect(page.get_by_role("heading", name=title)).to_be_visible()
    _choose_whom_the_first_segment_is_compared_with(page)
    page.goto(pages["news"].as_uri())
    expect(page.get_by_role("heading", level=1)).to_contain_text("No segments")


def _choose_whom_the_first_segment_is_compared_with(page: Page) -> None:
    """By the keyboard: all others come first, then everybody, then each other segment."""
    card = page.locator(".card").first
    choice = card.get_by_label("Compared with")
    expect(choice.locator("option").nth(0)).to_have_text("all others")
    choice.focus()
    page.keyboard.press("ArrowDown")
    expect(choice.locator("option:checked")).to_have_text("everybody")
    expect(card.get_by_role("columnheader", name="Everybody")).to_be_visible()
    expect(card.get_by_role("columnheader", name="Elsewhere")).to_be_hidden()
    page.keyboard.press("ArrowDown")
    expect(card.get_by_role("columnheader", name="There").locator("visible=true")).to_have_count(1)
