"""What the browser's stories share: a live `dagster dev`, and Chromium."""

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
from playwright.sync_api import Browser, Page, sync_playwright

from acceptance.conftest import OUTPUT, PROJECT, Explorer

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


def open_page(browser: Browser, address: str) -> Page:
    """Open the UI for the first time."""
    page = browser.new_page(viewport={"width": 1500, "height": 1300})
    page.set_default_timeout(60_000)
    page.goto(address)
    # Dagster asks newcomers for their address, once.
    page.get_by_role("button", name="Skip", exact=True).click()
    return page


def take(page: Page, name: str) -> None:
    """Keep a picture of a page."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=OUTPUT / f"{name}.png")
