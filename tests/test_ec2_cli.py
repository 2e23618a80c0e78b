"""`audience-explorer ec2`: this project's instances and images, on EC2 as moto plays it."""

import json
import os
import shlex
import shutil
from collections.abc import Iterator
from datetime import timedelta
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from moto import mock_aws
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.utils import utcnow
from moto.ec2.models import ec2_backends

from ami import instances
from ami.images import tags_of
from audience_explorer_dagster.cli import main, project
from spark_jobs import REQUIRES
from spark_jobs.launch.aws import PROJECT
from tests.account import Account, empty_account

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", autouse=True)
def aws() -> Iterator[None]:
    with mock_aws():
        yield


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Account:
    return empty_account(monkeypatch)


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What replaces this process, on a machine that has every program."""
    commands: list[list[str]] = []
    monkeypatch.setattr(os, "execvp", lambda _, arguments: commands.append(arguments))
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    return commands


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["ec2", *arguments])


def said(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def instance(account: Account, label: str = "2024-01", **options: str) -> str:
    return account.instance({**PROJECT, "label": label, "launch": f"launch-of-{label}"}, **options)


# --- ls ---


def test_ls_lists_this_projects_instances_only(account: Account) -> None:
    ours = instance(account)
    account.instance({"label": "2024-01"})
    (found,) = said("ls")
    assert found["id"] == ours
    assert found["tags"]["launch"] == "launch-of-2024-01"
    assert (found["state"], found["type"], found["market"]) == ("running", "m5.large", "on-demand")
    assert ours in run("ls").stdout


def test_ls_takes_tags_that_all_must_fit(account: Account) -> None:
    instance(account, "2024-01")
    wanted = instance(account, "2024-02")
    assert [found["id"] for found in said("ls", "label=2024-02", "launch=launch-of-2024-02")] == [wanted]
    assert said("ls", "label=2024-02", "launch=launch-of-2024-01") == []


def test_ls_shows_terminated_instances_only_if_all_are_wanted(account: Account) -> None:
    ended = instance(account)
    instances.terminate(account.ec2, [ended])
    result = run("ls")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "there is no instance\n")
    assert [(found["id"], found["state"]) for found in said("ls", "--all")] == [(ended, "terminated")]


@pytest.mark.parametrize("command", ["ls", "rm"])
@pytest.mark.usefixtures("account")
def test_what_is_no_selector_is_refused(command: str) -> None:
    assert "'2024-01' is not a selector: tag=value is needed" in " ".join(run(command, "2024-01").stderr.split())
    assert "label= is given twice" in run(command, "label=a", "label=b").stderr


# --- amis ---


def test_amis_says_which_fit_and_why_others_do_not(account: Account) -> None:
    versions = {name: metadata.version(name) for name in REQUIRES}
    fits = account.image("audience-explorer-2024-01-02", tags_of("3.11.2", versions))
    misfit = account.image("audience-explorer-2024-01-03", tags_of("3.8.0", versions) | {"boot": "0"})
    account.image("another", {})
    found = {image["id"]: image for image in said("amis")}
    assert set(found) == {fits, misfit}
    assert found[fits]["misfits"] == []
    assert (found[fits]["name"], found[fits]["tags"]["python"]) == ("audience-explorer-2024-01-02", "3.11.2")
    assert found[misfit]["misfits"] == [
        "its boot program is of version 0, 2 is needed",
        "it has Python 3.8.0, Python>=3.10 is needed",
    ]
    lines = run("amis").stdout.splitlines()
    assert {line.split()[1]: line.split()[5] for line in lines[1:]} == {fits: "yes", misfit: "no;"}


def test_amis_warns_if_the_newest_image_is_old(account: Account) -> None:
    old, older = (account.image(f"audience-explorer-2024-01-0{day}", tags_of("3.13.5", {})) for day in (2, 1))
    images = ec2_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].amis
    images[older].creation_date = utcnow() - timedelta(days=200)
    assert "WARNING" not in run("amis").stderr, "one of today is there"
    images[old].creation_date = utcnow() - timedelta(days=100)
    assert f"WARNING: Image audience-explorer-2024-01-02 ({old}) is 100 days old" in run("amis").stderr
    assert [image["days_old"] for image in said("amis")] == [100, 200]


@pytest.mark.usefixtures("account")
def test_amis_without_an_image_says_how_to_build_one() -> None:
    assert "python -m ami build" in run("amis").stderr


# --- ssh ---


def test_ssh_opens_a_session_through_ssm(account: Account, executed: list[list[str]]) -> None:
    wanted = instance(account)
    for by in (wanted, "label=2024-01"):
        assert run("ssh", by).exit_code == 0
        assert executed.pop() == ["aws", "ssm", "start-session", "--target", wanted, "--region", "us-east-1"]


def test_ssh_uses_ssh_where_the_instance_has_a_key_pair(account: Account, executed: list[list[str]]) -> None:
    wanted = instance(account, key_pair="mine")
    (described,) = instances.find(account.ec2)
    run("ssh", wanted)
    run("ssh", wanted, "--user", "explorer", "--", "tail", "-f", "/var/log/my log")
    assert executed == [
        ["ssh", f"admin@{described.address}"],
        ["ssh", f"explorer@{described.address}", "tail -f '/var/log/my log'"],
    ]
    run("ssh", wanted, "--via", "ssm")
    assert executed[-1][:3] == ["aws", "ssm", "start-session"]


def test_ssh_prints_a_command_that_a_shell_takes(account: Account, executed: list[list[str]]) -> None:
    wanted = instance(account)
    printed = run("ssh", "--print", wanted, "--", "df -h | sort").stdout
    assert shlex.split(printed)[-4:] == [
        "--document-name",
        "AWS-StartInteractiveCommand",
        "--parameters",
        '{"command": ["df -h | sort"]}',
    ]
    assert executed == []


def test_ssh_wants_exactly_one_running_instance_of_this_project(account: Account) -> None:
    first, second = instance(account), instance(account)
    not_ours = account.instance({"label": "x"})
    several = run("ssh", "label=2024-01")
    assert several.exit_code == 2
    assert first in several.stderr
    assert second in several.stderr
    account.ec2.stop_instances(InstanceIds=[first])
    for wanted in ("label=2024-02", not_ours, first):
        result = run("ssh", wanted)
        assert result.exit_code == 2
        assert f"No running instance of this project is {wanted}" in " ".join(result.stderr.split())


@pytest.mark.parametrize("missing", ["aws", "session-manager-plugin"])
def test_ssh_says_which_program_is_missing_and_where_to_get_it(
    account: Account, executed: list[list[str]], monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    wanted = instance(account)
    monkeypatch.setattr(shutil, "which", lambda program: None if program == missing else program)
    result = run("ssh", wanted)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {missing} is not installed, or not on the path. ")
    assert "https://docs.aws.amazon.com/" in result.stderr
    assert executed == []


# --- rm ---


def test_rm_ends_the_instances_that_fit_and_no_others(account: Account) -> None:
    ended, other = instance(account, "2024-01"), instance(account, "2024-02")
    not_ours = account.instance({"label": "2024-01"})
    assert run("rm", "label=2024-01", "--yes").exit_code == 0
    assert [found.id for found in instances.find(account.ec2)] == [other]
    assert run("rm", "--all", "--yes").exit_code == 0
    assert {found["id"] for found in said("ls", "--all")} == {ended, other}
    untouched = instances.describe(account.ec2, not_ours)
    assert untouched is not None
    assert untouched.state == "running"


@pytest.mark.parametrize("arguments", [(), ("label=2024-01", "--all")])
def test_rm_wants_to_be_told_either_tags_or_all(account: Account, arguments: tuple[str, ...]) -> None:
    instance(account)
    result = run("rm", *arguments, "--yes")
    assert result.exit_code == 2
    assert "or --all for every one" in " ".join(result.stderr.split())
    assert len(instances.find(account.ec2)) == 1


def test_rm_asks_first_and_does_nothing_without_a_yes(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = instance(account)
    result = run("rm", "label=2024-01")
    assert result.exit_code == 2
    assert wanted in result.stderr
    assert "If you are sure: --yes" in result.stderr
    monkeypatch.setattr(project, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    assert CliRunner().invoke(main, ["ec2", "rm", "label=2024-01"], input="n\n").exit_code == 1
    assert [found.state for found in instances.find(account.ec2)] == ["running"]
    assert CliRunner().invoke(main, ["ec2", "rm", "label=2024-01"], input="y\n").exit_code == 0
    assert instances.find(account.ec2) == []


# --- errors ---


@pytest.mark.parametrize("command", ["ls", "amis"])
@pytest.mark.usefixtures("account")
def test_a_region_that_is_not_known_is_told_in_a_line(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    result = run(command)
    assert result.exit_code == 1
    assert result.stderr == "Error: AWS: You must specify a region. Name one: --region\n"
