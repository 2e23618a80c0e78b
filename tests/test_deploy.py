"""The files of a deployment fit each other, systemd and the policies' reasons."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[1] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        why = "systemd-analyze is missing (Debian: apt-get install systemd)"
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    units = tmp_path / "units"
    shutil.copytree(DEPLOY / "systemd", units)
    for unit in units.glob("*.service"):
        # What is wrong with a unit is told; that this machine has no such program is no wrong of it.
        unit.write_text(re.sub("=/opt/audience-explorer/venv/bin/[a-z-]+", f"={sys.executable}", unit.read_text()))
    checked = subprocess.run(
        ["systemd-analyze", "verify", *units.glob("*.service")],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_every_variable_that_the_settings_name_has_a_value() -> None:
    named = {
        match
        for file in ("dagster.yaml", "workspace.yaml")
        for match in re.findall(r"^ *env: (\w+)$", (DEPLOY / file).read_text(), re.M)
    }
    given = variables("services.env") | variables("environment.example")
    assert named
    assert named <= given


def test_the_example_has_no_secret_and_no_name_of_its_own() -> None:
    values = dict(
        line.split("=", 1)
        for line in (DEPLOY / "environment.example").read_text().splitlines()
        if line and not line.startswith("#")
    )
    assert not [name for name, value in values.items() if re.search(r"://[^/@]*:[^/@]*@", value)]
    assert set(re.findall(r"@\w+@", " ".join(values.values()))) == {"@BUCKET@", "@REGION@"}


def test_the_code_server_is_one_that_knows_all_its_runs() -> None:
    (unit,) = (unit for unit in UNITS if unit.stem.endswith("-code"))
    assert "/dagster api grpc " in unit.read_text()
    settings = yaml.safe_load((DEPLOY / "dagster.yaml").read_text())
    assert settings["run_launcher"]["class"] == "MonitoredRunLauncher"
    assert settings["run_monitoring"]["max_resume_run_attempts"] > 0


def test_every_action_that_the_services_may_do_has_its_why() -> None:
    policy = json.loads((DEPLOY / "iam" / "services.json").read_text())
    actions = [statement["Action"] for statement in policy["Statement"]]
    allowed = {action for of in actions for action in ([of] if isinstance(of, str) else of)}
    rows = re.findall(r"^\| (`(?:s3|sns):.*?) \|", (DEPLOY / "README.md").read_text(), re.M)
    assert set(re.findall(r"`([a-z0-9]+:[A-Za-z]+)`", " ".join(rows))) == allowed


@pytest.mark.parametrize("script", ["install.sh", "user_data.sh", "audience-explorer-run"])
def test_the_scripts_can_be_read_by_their_shell(script: str) -> None:
    subprocess.run(["bash", "-n", DEPLOY / script], check=True)


def variables(file: str) -> set[str]:
    """The variables that a file sets, or shows how to."""
    return set(re.findall(r"^#?([A-Z_]+)=", (DEPLOY / file).read_text(), re.M))
