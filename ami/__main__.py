"""The command line, `python -m ami`."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from types import FrameType
from typing import TYPE_CHECKING, Any

import click
from botocore.exceptions import BotoCoreError, ClientError

from ami import instances
from ami.build import Build, Settings
from ami.errors import BuildFailed
from ami.images import Image, ours
from ami.removal import delete_snapshots, discard, dispensable, left_over_builders, left_over_snapshots, users
from spark_jobs.launch.aws import client, launches_of_root
from spark_jobs.terminal import as_table

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

_EC2 = "AUDIENCE_EXPLORER_EC2_"


region_option = click.option(
    "--region", envvar=["AWS_REGION", "AWS_DEFAULT_REGION"], show_envvar=True, help="The region; AWS's usual settings."
)
keep_option = click.option(
    "--keep", default=3, show_default=True, type=click.IntRange(min=1), help="How many of the newest images stay."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def main() -> None:
    """Makes, lists and removes the machine images that jobs run on, on EC2."""


@main.command()
@region_option
@click.option(
    "--launches",
    envvar=f"{_EC2}LAUNCHES",
    show_envvar=True,
    default=launches_of_root,
    show_default="launches/ of $AUDIENCE_EXPLORER_ROOT, if that is on S3",
    help="s3://bucket/prefix; the builder's input, log and status lie below its ami/.",
)
@click.option(
    "--instance-profile",
    envvar=f"{_EC2}BUILDER_PROFILE",
    show_envvar=True,
    required=True,
    help="Name or ARN of the builder's profile; its role is in ami/iam/image_builder.json.",
)
@click.option("--instance-type", default="m7i.large", show_default=True, help="The builder's type.")
@click.option(
    "--subnet",
    "subnets",
    envvar=f"{_EC2}SUBNETS",
    show_envvar=True,
    help="The builder's, from which packages can be had.",
)
@click.option(
    "--security-group",
    "security_groups",
    envvar=f"{_EC2}SECURITY_GROUPS",
    show_envvar=True,
    help="The builder's; several are separated by commas.",
)
@click.option("--volume-gb", default=10, show_default=True, type=click.IntRange(min=8), help="The size of the image.")
@click.option(
    "--timeout", default=3600, show_default=True, type=click.IntRange(min=1), help="Seconds a build may take."
)
@keep_option
def build(
    region: str | None,
    launches: str | None,
    instance_profile: str,
    instance_type: str,
    subnets: str | None,
    security_groups: str | None,
    volume_gb: int,
    timeout: int,
    keep: int,
) -> None:
    """Build an image from the newest Debian 13, print its id, and remove old images.

    The builder is ended, whatever happens.
    """
    if launches is None or not launches.startswith("s3://"):
        raise click.BadParameter(
            f"{launches!r} is not of the form s3://bucket/prefix. Give it, or set {_EC2}LAUNCHES.",
            param_hint="--launches",
        )
    settings = Settings(
        launches=launches,
        instance_profile=instance_profile,
        instance_type=instance_type,
        subnet=next(iter(_listed(subnets)), None),
        security_groups=_listed(security_groups),
        volume_gb=volume_gb,
        timeout=timeout,
    )
    with _errors_reported():
        ec2 = client("ec2", region)
        built = Build(ec2, client("s3", region), client("ssm", region), settings, _report).run()
        for image in _dispensable(ec2, keep):
            discard(ec2, image.id, image.name)
            _report(f"removed {image.name} ({image.id}), which is not among the newest {keep}")
    click.echo(built)


@main.command()
@region_option
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def ls(region: str | None, as_json: bool) -> None:
    """List this project's images, the newest first, and whether jobs of this checkout run on them."""
    with _errors_reported():
        ec2 = client("ec2", region)
        found = ours(ec2)
        used_by = users(ec2, found)
    facts = [_facts(image, used_by) for image in found]
    click.echo(json.dumps(facts, indent=1) if as_json else _table(found, used_by))
    if found and found[0].is_old:
        _report(f"WARNING: {found[0].age_warning}")


@main.command()
@region_option
@keep_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def prune(region: str | None, keep: int, yes: bool) -> None:
    """Remove old images with their snapshots, and the builders and snapshots that killed builds left.

    Only this project's, and never an image that an instance uses, or that AUDIENCE_EXPLORER_EC2_IMAGE names.
    """
    with _errors_reported():
        ec2 = client("ec2", region)
        images = _dispensable(ec2, keep)
        builders = left_over_builders(ec2)
        snapshots = left_over_snapshots(ec2)
        if not images and not builders and not snapshots:
            _report("nothing to remove")
            return
        for image in images:
            _report(f"image {image.name} ({image.id}), {image.gigabytes} GB, of {image.created}")
        for builder in builders:
            _report(f"builder {builder.id}, {builder.state}, of {builder.launched_at:%Y-%m-%d %H:%M}")
        for snapshot in snapshots:
            _report(f"snapshot {snapshot.id}, of {snapshot.name}, which has no image, {snapshot.gigabytes} GB")
        if not yes:
            click.confirm("Remove them?", abort=True, err=True)
        for image in images:
            discard(ec2, image.id, image.name)
        instances.terminate(ec2, [builder.id for builder in builders])
        delete_snapshots(ec2, [snapshot.id for snapshot in snapshots])
        _report(
            f"removed {len(images)} images, {len(builders)} builders and {len(snapshots)} snapshots that had no image"
        )


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _dispensable(ec2: "EC2Client", keep: int) -> list[Image]:
    """The images that may go: neither those that instances use, nor the one that the launcher is configured to use."""
    images = ours(ec2)
    return dispensable(images, keep, spared=[*users(ec2, images), os.environ.get(f"{_EC2}IMAGE", "")])


def _facts(image: Image, used_by: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    return {**asdict(image), "used_by": used_by.get(image.id, []), "misfits": image.misfits, "days_old": image.days_old}


def _table(images: Sequence[Image], used_by: Mapping[str, Sequence[str]]) -> str:
    columns: dict[str, Callable[[Image], str]] = {
        "image": lambda i: i.id,
        "name": lambda i: i.name,
        "created": lambda i: i.created[:16],
        "GB": lambda i: str(i.gigabytes),
        "used by": lambda i: f"{len(used_by[i.id])} instances" if i.id in used_by else "",
        "fits": lambda i: (i.state if i.state != "available" else "") or "; ".join(i.misfits) or "yes",
    }
    return as_table(columns, images) if images else "no images; make one: python -m ami build"


def _report(line: str) -> None:
    click.echo(line, err=True)


@contextmanager
def _errors_reported() -> Iterator[None]:
    try:
        yield
    except BuildFailed as error:
        raise click.ClickException(str(error)) from error
    except (BotoCoreError, ClientError) as error:
        raise click.ClickException(f"AWS: {error}{_way_out(error)}") from error
    except KeyboardInterrupt:
        _report("interrupted")
        sys.exit(130)


def _way_out(error: BotoCoreError | ClientError) -> str:
    """What to do about a request that was refused; nothing for another error."""
    if instances.is_profile_unknown(error):
        return f". Make the profile, with a role of ami/iam/image_builder.json, or name another: {_EC2}BUILDER_PROFILE"
    code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
    denied = code in ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation")
    needed = "What whoever builds images needs is in ami/iam/image_operator.json: put it, as it is now, in force"
    return f". {needed}" if denied else ""


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)  # clean up, as after Ctrl-C
    main(prog_name="python -m ami")
