"""`audience-explorer emr-serverless`: the launcher on EMR Serverless."""

import click

from audience_explorer_dagster.cli.aws import AWSGroup
from audience_explorer_dagster.cli.checked import end_with, warnings_left_out
from audience_explorer_dagster.cli.project import json_option


@click.group("emr-serverless", cls=AWSGroup)
def emr_serverless() -> None:
    """Launches on EMR Serverless."""


@emr_serverless.command()
@json_option
def check(as_json: bool) -> None:
    """Check whether launches would work as they are configured, before the first of them.

    Nothing is made or changed, and nothing costs. What is red comes with what to do; then the exit code is 1.
    """
    with warnings_left_out():  # importing looks for the first month
        from audience_explorer_dagster.launchers.emr_serverless.check import run_checks

    end_with(run_checks(), as_json)
