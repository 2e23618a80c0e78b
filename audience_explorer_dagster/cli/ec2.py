"""`audience-explorer ec2`: this project's instances and machine images."""

import json
import os
import shlex
import shutil
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import click

from audience_explorer_dagster.cli.aws import REGIONS, AWSGroup, as_selectors, region_option_of
from audience_explorer_dagster.cli.checked import end_with, warnings_left_out
from audience_explorer_dagster.cli.project import ask, json_option, tell, tell_table, yes_option
from spark_jobs.launch.aws import client
from spark_jobs.terminal import as_age, as_table

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

    from ami.instances import Instance

_ENDING = ("shutting-down", "terminated")

_WAYS_OUT = {
    "aws": "Install the AWS command line, https://docs.aws.amazon.com/cli/latest/userguide/getting-started-install.html",
    "session-manager-plugin": "Sessions need it beside the AWS command line:"
    " https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-working-with-install-plugin.html",
    "ssh": "Install an SSH client (Debian: apt-get install openssh-client), or use --via ssm.",
}

region_option = region_option_of([REGIONS["ec2"]])
selectors_argument = click.argument("selectors", metavar="[TAG=VALUE]…", nargs=-1)


@click.group(cls=AWSGroup)
def ec2() -> None:
    """This project's instances and machine images on EC2. Others are never seen or touched."""


@ec2.command()
@json_option
def check(as_json: bool) -> None:
    """Check whether launches would work as they are configured, before the first of them.

    Nothing is made or changed, and nothing costs. What is red comes with what to do; then the exit code is 1.
    """
    with warnings_left_out():  # importing looks for the first month
        from audience_explorer_dagster.launchers.ec2.check import run_checks

    end_with(run_checks(), as_json)


@ec2.command()
@selectors_argument
@click.option("--all", "with_ended", is_flag=True, help="Also those that were terminated, as long as EC2 lists them.")
@region_option
@json_option
def ls(selectors: tuple[str, ...], with_ended: bool, region: str | None, as_json: bool) -> None:
    """List instances that have all the tags, the oldest first."""
    from ami import instances

    found = instances.find(client("ec2", region), as_selectors(selectors), ended=with_ended)
    if as_json:
        click.echo(json.dumps([_facts(instance) for instance in found], indent=1))
    elif found:
        click.echo(_instance_table(found))
    else:
        tell("there is no such instance" if selectors else "there is no instance")


@ec2.command()
@region_option
@json_option
def amis(region: str | None, as_json: bool) -> None:
    """List machine images, the newest first, and whether jobs of this checkout run on them."""
    from ami import images

    found = images.ours(client("ec2", region))
    if as_json:
        facts = [{**asdict(image), "misfits": image.misfits, "days_old": image.days_old} for image in found]
        click.echo(json.dumps(facts, indent=1))
        return
    if not found:
        tell("there is no image. Build one: python -m ami build")
        return
    columns: dict[str, Callable[[images.Image], str]] = {
        "image": lambda i: i.name,
        "id": lambda i: i.id,
        "state": lambda i: i.state,
        "date": lambda i: i.created[:10],
        "python": lambda i: i.tags.get("python", ""),
        "fits": lambda i: "; ".join(["no", *i.misfits]) if i.misfits else "yes",
    }
    click.echo(as_table(columns, found))
    if found[0].is_old:
        tell(f"WARNING: {found[0].age_warning}")


@ec2.command()
@click.argument("wanted", metavar="INSTANCE|TAG=VALUE")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND…]")
@click.option(
    "--via", type=click.Choice(["ssm", "ssh"]), help="How to get there.  [default: ssh if it has a key pair, else ssm]"
)
@click.option("--user", default="admin", show_default=True, help="Who to be, by ssh; Debian's images have this one.")
@click.option("--print", "print_only", is_flag=True, help="Print the command that would be run.")
@region_option
def ssh(
    wanted: str,
    command: tuple[str, ...],
    via: Literal["ssm", "ssh"] | None,
    user: str,
    print_only: bool,
    region: str | None,
) -> None:
    """Open a session on the one running instance that is meant, or run a command there.

    The instance is reached through AWS Systems Manager (SSM), which needs no open port; or by ssh where it was
    launched with a key pair.
    """
    api = client("ec2", region)
    instance = _one_running(api, wanted)
    if (via or ("ssh" if instance.key_pair else "ssm")) == "ssh":
        programs, arguments = ["ssh"], _ssh(instance, user, command)
    else:
        programs, arguments = ["aws", "session-manager-plugin"], _ssm(instance, api.meta.region_name, command)
    if print_only:
        click.echo(shlex.join(arguments))
        return
    for program in programs:
        if shutil.which(program) is None:
            raise click.ClickException(f"{program} is not installed, or not on the path. {_WAYS_OUT[program]}")
    os.execvp(arguments[0], arguments)  # noqa: S606  # no shell is the point


@ec2.command()
@selectors_argument
@click.option("--all", "all_of_them", is_flag=True, help="Instead of tags: every instance of this project.")
@region_option
@yes_option
def rm(selectors: tuple[str, ...], all_of_them: bool, region: str | None, yes: bool) -> None:
    """End the instances that have all the tags. Their launches fail, and their logs stay."""
    from ami import instances

    if bool(selectors) == all_of_them:
        raise click.UsageError("Say which instances: TAG=VALUE, such as label=2024-01; or --all for every one, alone.")
    api = client("ec2", region)
    found = [one for one in instances.find(api, as_selectors(selectors)) if one.state not in _ENDING]
    if not found:
        tell("there is no such instance")
        return
    tell_table(_instance_table(found))
    ask(f"End {len(found)} instance{'s' if len(found) > 1 else ''}?", yes)
    instances.terminate(api, [one.id for one in found])
    tell(f"ended {', '.join(one.id for one in found)}")


# --- what the commands share -----------------------------------------------------------------------


def _one_running(api: "EC2Client", wanted: str) -> "Instance":
    from ami import instances

    found = instances.find(api, as_selectors([wanted]) if "=" in wanted else {})
    running = [one for one in found if one.state == "running" and ("=" in wanted or one.id == wanted)]
    if not running:
        raise click.UsageError(f"No running instance of this project is {wanted}. List them: audience-explorer ec2 ls")
    if len(running) > 1:
        names = ", ".join(f"{one.id} ({one.tags.get('label', one.type)})" for one in running)
        raise click.UsageError(f"{len(running)} running instances have {wanted}; name one: {names}")
    return running[0]


def _ssm(instance: "Instance", region: str, command: tuple[str, ...]) -> list[str]:
    """https://docs.aws.amazon.com/cli/latest/reference/ssm/start-session.html"""
    arguments = ["aws", "ssm", "start-session", "--target", instance.id, "--region", region]
    if command:
        parameters = json.dumps({"command": [_as_line(command)]})
        arguments += ["--document-name", "AWS-StartInteractiveCommand", "--parameters", parameters]
    return arguments


def _ssh(instance: "Instance", user: str, command: tuple[str, ...]) -> list[str]:
    return ["ssh", f"{user}@{instance.address}", *([_as_line(command)] if command else [])]


def _as_line(command: tuple[str, ...]) -> str:
    """What the shell at the other end reads: one argument is a line for it already, as with ssh itself."""
    return command[0] if len(command) == 1 else shlex.join(command)


def _facts(instance: "Instance") -> dict[str, Any]:
    facts = asdict(instance)
    launched_at: datetime = facts["launched_at"]
    return {**facts, "launched_at": launched_at.isoformat()}


def _instance_table(found: "list[Instance]") -> str:
    columns: dict[str, Callable[[Instance], str]] = {
        "instance": lambda i: i.id,
        "state": lambda i: i.state,
        "type": lambda i: i.type,
        "zone": lambda i: i.zone,
        "market": lambda i: i.market,
        "age": lambda i: as_age(i.launched_at),
        "label": lambda i: i.tags.get("label", ""),
        "launch": lambda i: i.tags.get("launch", ""),
        "pipeline": lambda i: i.tags.get("pipeline", ""),
        "image": lambda i: i.image,
    }
    return as_table(columns, found)
