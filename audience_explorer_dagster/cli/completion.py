"""Completion of months and categories in a shell: what lies under the root is offered."""

import os
from collections.abc import Callable

import click

from audience_explorer_dagster.cli.project import ROOT
from spark_jobs import storage
from spark_jobs.errors import InputError, S3Error
from spark_jobs.raw.months import list_months
from spark_jobs.vectors.category_files import category_folder, list_category_files


def complete_month(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The months with raw data that begin like this."""
    return _complete(ctx, incomplete, lambda root: list_months(storage.join(storage.absolute(root), "raw")))


def complete_category(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The categories with a file that begin like this."""
    return _complete(ctx, incomplete, lambda root: list(list_category_files(category_folder(root))))


def _complete(ctx: click.Context, incomplete: str, list_all: Callable[[str], list[str]]) -> list[str]:
    """What begins like this; nothing where the root can't be listed, for a shell has no place for an error."""
    root = ctx.params.get("root") or os.environ.get(ROOT) or "data"
    try:
        return [name for name in list_all(root) if name.startswith(incomplete)]
    except (OSError, InputError, S3Error):
        return []
