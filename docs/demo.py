"""What the README shows of the demo: its picture, docs/demo.png, and the figures beside it.

    make screenshot

runs the demo in a folder that goes with it, opens a report of its in Chromium, and writes both anew.
"""

import re
import tempfile
from pathlib import Path

from playwright.sync_api import ViewportSize, sync_playwright

from acceptance.browser.conftest import CHROMIUM, QUIET
from acceptance.conftest import PROJECT, Explorer
from spark_jobs import demo_audience

PICTURE = PROJECT / "docs" / "demo.png"
README = PROJECT / "README.md"
VIEWPORT = ViewportSize(width=1200, height=1250)  # the segments, and what changed
FIGURES = re.compile(r"```text\n\d+ launched.*?\n```", re.DOTALL)  # the block of the README


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        explorer = Explorer(Path(folder))
        printed = explorer.command("audience-explorer", "demo", "--root", str(explorer.root)).stdout
        README.write_text(with_figures(README.read_text(encoding="utf-8"), printed), encoding="utf-8")
        report = explorer.command("audience-explorer", "report", "--category", "coffee").stdout.strip()
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, "--no-sandbox"])
            page = chromium.new_page(viewport=VIEWPORT)
            page.goto(Path(report).as_uri())
            page.screenshot(path=PICTURE, animations="disabled")
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


if __name__ == "__main__":
    main()
