"""What the browser's stories share: a live `dagster dev`, and Chromium."""

import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect, sync_playwright

from acceptance.conftest import OUTPUT, PROJECT, Explorer
from audience_explorer_dagster.assets import WHOLE_MONTH_JOB
from tests.ports import reserved_port

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
VIEWPORT = ViewportSize(width=1500, height=1300)
MOST_SECONDS = 300  # that a page, or what is to appear on it, may take on a machine that is busy with much else
QUIET = ["--disable-gpu", "--disable-sync", "--disable-background-networking", "--disable-component-update"]


@contextmanager
def dagster_dev(explorer: Explorer) -> Iterator[str]:
    """`dagster dev` on a free port of this machine, until the body ends; its address."""
    with reserved_port() as port, _dagster_dev(explorer, port) as address:
        yield address


@contextmanager
def _dagster_dev(explorer: Explorer, port: int) -> Iterator[str]:
    command = ["dagster", "dev", "--host", "127.0.0.1", "--port", str(port)]
    with open(explorer.home / "dagster-dev.log", "wb") as log:
        server = subprocess.Popen(
            command, cwd=PROJECT, env=explorer.environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_until_up(address, server, explorer.home / "dagster-dev.log")
        yield address
    finally:
        with suppress(ProcessLookupError):  # where it ended by itself
            os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait_until_up(address: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{address}/server_info", timeout=60).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    pytest.fail(f"dagster dev is not up:\n{log.read_text()[-3000:]}")


def keep_categories(explorer: Explorer, *names: str) -> None:
    """Leave these category files, no others: a story is to be quick."""
    for path in (explorer.root / "categories").glob("*.json"):
        if path.stem not in names:
            path.unlink()


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Chromium, headless."""
    if CHROMIUM is None:
        why = "Chromium is not on the path (Debian: apt-get install chromium)"
        if os.environ.get("CI"):
            pytest.fail(f"CI must run the browser's tests: {why}")
        pytest.skip(why)
    expect.set_options(timeout=1000 * MOST_SECONDS)
    with sync_playwright() as playwright:
        # Chromium refuses its sandbox to root.
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*QUIET, "--no-sandbox"], timeout=1000 * MOST_SECONDS
        )
        yield chromium
        chromium.close()


def open_page(browser: Browser, address: str, viewport: ViewportSize = VIEWPORT) -> Page:
    """Open the UI for the first time."""
    page = browser.new_page(viewport=viewport)
    page.set_default_timeout(1000 * MOST_SECONDS)
    page.goto(address)
    # Dagster asks newcomers for their address, once.
    page.get_by_role("button", name="Skip", exact=True).click()
    return page


def take(page: Page, name: str) -> None:
    """Keep a picture of a page."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=OUTPUT / f"{name}.png", animations="disabled")


def open_job(browser: Browser, address: str, tab: str) -> Page:
    """Open the UI for the first time, and go to a tab of the job `whole_month`."""
    page = open_page(browser, f"{address}/jobs")
    page.get_by_role("link", name=WHOLE_MONTH_JOB).click()
    page.get_by_role("tab", name=tab).click()
    return page


def open_history_of_check(page: Page, check: str) -> None:
    """Choose a check on the Checks tab of an asset, and go to what was found of each partition."""
    page.get_by_text(check, exact=True).first.click()
    page.get_by_role("tab", name="Execution history").click()


def expect_evaluation(page: Page, partition: str, result: str) -> None:
    """The history of a check has a result, Passed or Failed, of a partition."""
    row = page.get_by_role("row").filter(has_text=partition).filter(has_text=result)
    expect(row.first).to_be_visible()


def expect_on(page: Page, address: str, sought: Locator, seconds: float = 600) -> None:
    """Open a page until it shows what is sought: some pages don't look for news by themselves.

    It is given more time each time, for on a busy machine a page may take a minute to show anything.
    """
    deadline, patience = time.monotonic() + seconds, 15.0
    while True:
        page.goto(address)
        try:
            expect(sought.first).to_be_visible(timeout=1000 * patience)
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            patience = min(1.5 * patience, 120)
        else:
            return
