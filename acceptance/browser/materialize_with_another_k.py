"""An analyst opens the UI, picks a partition of kmeans, overrides k in the launchpad, and sees the result."""

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from acceptance.conftest import PROJECT, Explorer

MONTH = "2018-12"
PARTITION = f"cloud|{MONTH}"
CONFIG = "{ops: {segments: {config: {kmeans: {k: 7, label: seven}}}}}"

SCREENSHOTS = Path(os.environ.get("CI_OUTPUT", PROJECT / "ci-output"))

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = ["--disable-gpu", "--disable-sync", "--disable-background-networking", "--disable-component-update"]


@contextmanager
def dagster_dev(explorer: Explorer) -> Iterator[str]:
    """`dagster dev` on a free port of this machine, until the body ends; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
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
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait_until_up(address: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{address}/server_info", timeout=5).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    pytest.fail(f"dagster dev is not up:\n{log.read_text()[-3000:]}")


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Chromium, headless."""
    if CHROMIUM is None:
        why = "Chromium is not on the path (Debian: apt-get install chromium)"
        if os.environ.get("CI"):
            pytest.fail(f"CI must run the browser's tests: {why}")
        pytest.skip(why)
    with sync_playwright() as playwright:
        # Chromium refuses its sandbox to root.
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, "--no-sandbox"])
        yield chromium
        chromium.close()


def take(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def test_a_partition_of_kmeans_with_another_k(explorer: Explorer, ansible: Path, browser: Browser) -> None:
    explorer.bring(ansible, MONTH)
    first = explorer.pipeline("--month", MONTH, "--category", "cloud", "--category", "network")

    with dagster_dev(explorer) as address:
        page = browser.new_page(viewport={"width": 1500, "height": 1300})
        page.set_default_timeout(60_000)
        page.goto(f"{address}/asset-groups")
        # Dagster asks newcomers for their address, once.
        page.get_by_role("button", name="Skip", exact=True).click()
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
