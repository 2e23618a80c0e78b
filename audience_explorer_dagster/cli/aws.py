"""What the commands on AWS have in common: the region, how errors of AWS's are reported, and tags to select by."""

import errno
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from spark_jobs.errors import InputError, S3Error, as_line
from spark_jobs.terminal import visible_lines

Command = TypeVar("Command", bound=Callable[..., Any])

_WHOLE = 1000  # characters of a first sentence

# The variable of each launcher on AWS that names its region.
REGIONS = {"ec2": "AUDIENCE_EXPLORER_EC2_REGION", "emr-serverless": "AUDIENCE_EXPLORER_EMR_REGION"}


def region_option_of(variables: Iterable[str]) -> Callable[[Command], Command]:
    """The option of a region that one of these variables names, or else AWS's usual settings."""
    return click.option(
        "--region",
        envvar=[*variables, "AWS_REGION", "AWS_DEFAULT_REGION"],
        show_envvar=True,
        help="The region; by default AWS's usual settings name it.",
    )


class AWSGroup(click.Group):
    """Commands whose errors of AWS's, of the input's and of the disk's end as one line."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List each command with the whole first sentence of its help: click cuts it off after a line."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        rows = [
            (name, command.get_short_help_str(_WHOLE))
            for name, command in commands.items()
            if command and not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError, NoRegionError

        try:
            return super().invoke(ctx)
        except InputError as error:
            raise click.UsageError(visible_lines(str(error)), ctx) from None
        except S3Error as error:
            raise click.ClickException(visible_lines(str(error))) from None
        except OSError as error:
            if error.errno in (None, errno.EPIPE):  # another library's own; or its reader is gone, as click knows
                raise
            raise click.ClickException(visible_lines(as_line(error))) from None
        except (BotoCoreError, ClientError) as error:
            way_out = " Name one: --region" if isinstance(error, NoRegionError) else ""
            raise click.ClickException(f"AWS: {' '.join(str(error).split())}{way_out}") from None


def as_selectors(given: Iterable[str]) -> dict[str, str]:
    """Tags by name, from `tag=value` each.

    Raises:
        InputError: One is of another form, or a tag is given twice, which no instance could fit.
    """
    tags: dict[str, str] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not name or not separator:
            raise InputError(f"{text!r} is not a selector: tag=value is needed, such as label=2024-01.")
        if name in tags:
            raise InputError(f"{name}= is given twice.")
        tags[name] = value
    return tags
