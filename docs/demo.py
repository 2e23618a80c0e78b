"""What the README shows of the demo: its picture, docs/demo.png, and the figures beside it.

    make screenshot

runs the demo in a folder that goes with it, opens its UI in Chromium, and writes both anew.
"""

import re
import tempfile
from pathlib import Path

from playwright.sync_api import Page, ViewportSize, expect, sync_playwright

from acceptance.browser.conftest import CHROMIUM, QUIET, dagster_dev, open_page
from acceptance.conftest import PROJECT, Explorer
from spark_jobs import demo_audience

PICTURE = PROJECT / "docs" / "demo.png"
README = PROJECT / "README.md"
PARTITION = f"coffee|{demo_audience.MONTHS[-1]}"
VIEWPORT = ViewportSize(width=1400, height=900)
FIGURES = re.compile(r"```text\n\d+ launched.*?\n```", re.DOTALL)  # the block of the README


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        explorer = Explorer(Path(folder))
        printed = explorer.command("audience-explorer", "demo", "--root", str(explorer.root)).stdout
        README.write_text(with_figures(README.read_text(encoding="utf-8"), printed), encoding="utf-8")
        explorer.environment["AUDIENCE_EXPLORER_END_MONTH"] = demo_audience.MONTHS[-1]
        with dagster_dev(explorer) as address, sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, "--no-sandbox"])
            take_picture(open_page(chromium, f"{address}/assets/kmeans", VIEWPORT), address)
            chromium.close()


def with_figures(readme: str, printed: str) -> str:
    """The README with what the demo printed in place of what is there: counts, and the first month."""
    (counts,) = re.findall(r"^\d+ launched, .*$", printed, re.MULTILINE)
    table, legend = printed[printed.index("\npartition           users") + 1 :].split("\n\n", 1)
    header, *rows = table.splitlines()
    shown = [row for row in rows if f"|{demo_audience.MONTHS[0]}" in row.split()[0]]
    lines = [counts, "", header, *shown, "…", legend.splitlines()[0]]
    changed, blocks = FIGURES.subn(lambda _: "\n".join(["```text", *lines, "```"]), readme)
    assert blocks == 1, "the README has another block of figures, or none"
    return changed


def take_picture(page: Page, address: str) -> None:
    """Keep what the page of a partition shows of its segments."""
    page.goto(f"{address}/assets/kmeans?view=partitions&partition={PARTITION}")
    expect(page.get_by_text("clusters of").first).to_be_visible()
    link, picture = page.get_by_text("[Show Markdown]").first, page.locator("img[src^='data:image/png']").first
    expect(link.or_(picture).first).to_be_visible()
    if not picture.is_visible():
        link.click()
    expect(picture).to_be_visible()
    page.wait_for_timeout(1000)  # until it is all there
    picture.screenshot(path=PICTURE, animations="disabled")


if __name__ == "__main__":
    main()
