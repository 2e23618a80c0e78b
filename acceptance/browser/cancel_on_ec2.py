"""An analyst materializes a month on EC2 in the UI, and terminates the run: the instance is gone."""

from pathlib import Path

from playwright.sync_api import Browser, expect

from acceptance.browser.conftest import dagster_dev, open_page, take
from acceptance.ec2.conftest import EC2Explorer, explorer, permissions, sandbox
from acceptance.sandbox import Sandbox

__all__ = ["explorer", "permissions", "sandbox"]  # fixtures

MONTH = "2018-12"


def test_terminating_a_run_in_the_ui_terminates_its_instance(
    sandbox: Sandbox, explorer: EC2Explorer, ansible: Path, browser: Browser
) -> None:
    explorer.bring(ansible, MONTH)

    with dagster_dev(explorer) as address:
        page = open_page(browser, f"{address}/assets/grouped_users?view=partitions&partition={MONTH}")
        page.get_by_role("button", name="Materialize").first.click()
        # Its job does not end by itself.
        sandbox.faults.throttle(seconds=3600, action="PutObject", caller="instance")
        page.get_by_role("button", name="Launch 1 run").click()
        while not sandbox.instances:
            page.wait_for_timeout(200)
        (instance,) = sandbox.instances
        instance.wait_until("running")

        page.goto(f"{address}/runs/{instance.tags['run']}")
        page.get_by_role("button", name="Terminate").first.click()
        take(page, "5-terminate")
        page.get_by_role("dialog").get_by_role("button", name="Terminate").click()

        instance.wait_until("terminated")
        assert "TerminateInstances" in [call.action for call in sandbox.calls]
        page.goto(f"{address}/runs/{instance.tags['run']}")
        expect(page.get_by_text("Canceled").first).to_be_visible()
        take(page, "6-canceled")
