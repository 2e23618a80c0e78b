"""`audience-explorer archive`: the packed archive of the jobs and their packages."""

import click


@click.command()
@click.option(
    "--architecture",
    type=click.Choice(["x86_64", "aarch64"]),
    help="The cluster's processors.  [default: this machine's]",
)
def archive(architecture: str | None) -> None:
    """Make the archive that Spark clusters get, unless it is there, and print its path.

    It has the jobs' code and all that it needs but PySpark, for Linux and for this Python's version. Launchers make it
    by themselves.
    """
    from audience_explorer_dagster.launchers import LaunchFailed
    from audience_explorer_dagster.launchers import packing as packed

    wanted: packed.Architecture = "aarch64" if architecture == "aarch64" else "x86_64"
    try:
        click.echo(packed.build(wanted if architecture else packed.of_this_machine()))
    except LaunchFailed as error:
        raise click.ClickException(str(error)) from None
