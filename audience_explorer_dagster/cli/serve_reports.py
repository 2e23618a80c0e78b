"""`audience-explorer serve-reports`: the reports in a browser, on this machine."""

import os

import click

from audience_explorer_dagster.cli.project import ROOT, errors_told, root_option, tell
from spark_jobs import storage


@click.command("serve-reports")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option(
    "--port",
    default=3001,
    show_default=True,
    envvar="AUDIENCE_EXPLORER_REPORTS_PORT",
    type=click.IntRange(1, 65535),
    help="The port to listen at.",
)
@click.option("--private", is_flag=True, help="Show private categories, too.")
@root_option
def serve_reports(host: str, port: int, private: bool, root: str) -> None:
    """Serve the index of all current reports, and the reports: / and /CATEGORY/MONTH.

    It only reads, and nothing but these pages can be had. It asks nobody who they are: leave it on this machine, and
    reach it through a tunnel, or put a server that asks before it.
    """
    os.environ[ROOT] = storage.absolute(root)
    with errors_told():
        import uvicorn

        from audience_explorer_dagster import settings
        from audience_explorer_dagster.reports.served import Served
        from audience_explorer_dagster.reports.server import hosts_of, make_app
        from audience_explorer_dagster.store import Store

        served = Served(Store(root=os.environ[ROOT]), private)
        app = make_app(served, hosts_of(host, settings.read().reports_url))
    shown = f"[{host}]" if ":" in host else host
    tell(f"reports of {os.environ[ROOT]}: http://{shown}:{port}/")
    uvicorn.run(app, host=host, port=port, log_level="warning", server_header=False)
