"""The command line, `python -m ami`."""

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from types import FrameType
from typing import Any

import boto3
import click
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from ami.build import Build, Settings
from ami.errors import BuildFailed
from ami.images import ImageSeen, discard, dispensable, left_over_builders, ours
from audience_explorer_dagster.launchers.ec2 import instances

_EC2 = "AUDIENCE_EXPLORER_EC2_"
_PATIENT = Config(retries={"mode": "standard", "max_attempts": 10})


def _launches_of_root() -> str:
    """Where the launcher keeps launches if it is not told; nothing if the root is not on S3."""
    root = os.environ.get("AUDIENCE_EXPLORER_ROOT", "")
    return f"{root.rstrip('/')}/launches" if root.startswith("s3://") else ""


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
    default=_launches_of_root,
    show_default="launches/ of $AUDIENCE_EXPLORER_ROOT, if that is on S3",
    help="s3://bucket/prefix; the builder's input, log and status lie below its ami/.",
)
@click.option(
    "--instance-profile",
    envvar=[f"{_EC2}BUILDER_PROFILE", f"{_EC2}INSTANCE_PROFILE"],
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
    launches: str,
    instance_profile: str,
    instance_type: str,
    subnets: str | None,
    security_groups: str | None,
    volume_gb: int,
    timeout: int,
    keep: int,
) -> None:
    """Build an image from the newest Debian 12, print its id, and remove old images.

    The builder is ended, whatever happens.
    """
    if not launches.startswith("s3://"):
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
    with _errors_told():
        ec2, s3, ssm = (_client(service, region) for service in ("ec2", "s3", "ssm"))
        built = Build(ec2, s3, ssm, settings, _tell).run()
        for image in dispensable(ours(ec2), keep, _spared()):
            discard(ec2, image.id)
            _tell(f"removed {image.name} ({image.id}), which is not among the newest {keep}")
    click.echo(built)


@main.command()
@region_option
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def ls(region: str | None, as_json: bool) -> None:
    """List this project's images, the newest first, and whether jobs of this checkout run on them."""
    with _errors_told():
        found = ours(_client("ec2", region))
    click.echo(json.dumps([_facts(image) for image in found], indent=1) if as_json else _table(found))


@main.command()
@region_option
@keep_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def prune(region: str | None, keep: int, yes: bool) -> None:
    """Remove old images with their snapshots, and builders that a killed build left.

    Only this project's, and never an image that an instance uses, or that AUDIENCE_EXPLORER_EC2_IMAGE names.
    """
    with _errors_told():
        ec2 = _client("ec2", region)
        images = dispensable(ours(ec2), keep, _spared())
        builders = left_over_builders(ec2)
        if not images and not builders:
            _tell("nothing to remove")
            return
        for image in images:
            _tell(f"image {image.name} ({image.id}), {image.gigabytes} GB, of {image.created}")
        for builder in builders:
            _tell(f"builder {builder.id}, {builder.state}, of {builder.launched_at:%Y-%m-%d %H:%M}")
        if not yes:
            click.confirm("Remove them?", abort=True, err=True)
        for image in images:
            discard(ec2, image.id)
        instances.terminate(ec2, [builder.id for builder in builders])
        _tell(f"removed {len(images)} images and {len(builders)} builders")


def _client(service: str, region: str | None) -> Any:
    return boto3.client(service, region_name=region, config=_PATIENT)  # type: ignore[call-overload]


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _spared() -> list[str]:
    """The image that the launcher is told to use, if it is told one."""
    return [image for image in [os.environ.get(f"{_EC2}IMAGE")] if image]


def _facts(image: ImageSeen) -> dict[str, Any]:
    return {**asdict(image), "misfits": image.misfits}


def _table(images: Sequence[ImageSeen]) -> str:
    if not images:
        return "no images; make one: python -m ami build"
    rows = [("image", "name", "created", "GB", "used by", "fits")]
    rows += [
        (
            image.id,
            image.name,
            image.created[:16],
            str(image.gigabytes),
            f"{len(image.used_by)} instances" if image.used_by else "",
            (image.state if image.state != "available" else "") or "; ".join(image.misfits) or "yes",
        )
        for image in images
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _tell(line: str) -> None:
    click.echo(line, err=True)


@contextmanager
def _errors_told() -> Iterator[None]:
    try:
        yield
    except BuildFailed as error:
        raise click.ClickException(str(error)) from error
    except (BotoCoreError, ClientError) as error:
        raise click.ClickException(f"AWS: {error}") from error
    except KeyboardInterrupt:
        _tell("interrupted")
        sys.exit(130)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)  # who is told to end cleans up, as after Ctrl-C
    main(prog_name="python -m ami")
