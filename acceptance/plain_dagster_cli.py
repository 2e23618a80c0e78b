"""The dagster command line alone does the same work: grouped_users of a month, then the rest as a range."""

from pathlib import Path

from acceptance.browser.conftest import keep_categories
from acceptance.conftest import Explorer

MONTH = "2018-12"


def test_two_commands_do_a_month(explorer: Explorer, ansible: Path) -> None:
    explorer.bring(ansible, MONTH)
    keep_categories(explorer, "cloud", "network", "windows")
    explorer.command("audience-explorer", "categories", "sync")
    materialize = ("dagster", "asset", "materialize", "-m", "audience_explorer_dagster.definitions")

    explorer.command(*materialize, "--select", "grouped_users", "--partition", MONTH)
    assets = "clustering_inputs,k_selection,kmeans,segments,audience_report"
    rest = ("--select", assets, "--partition-range", f"cloud|{MONTH}...windows|{MONTH}")
    first = explorer.command(*materialize, *rest)
    second = explorer.command(*materialize, *rest)

    assert "kmeans cloud|2018-12 starts" in first.stderr
    assert " starts" not in second.stderr, "the second time no job runs"
    assert "reused from" in second.stderr

    # And audience-explorer finds all of it done.
    assert explorer.pipeline("--month", MONTH).launched == set()

    reversed_range = ("--select", "kmeans", "--partition-range", f"windows|{MONTH}...cloud|{MONTH}")
    done = explorer.command(*materialize, *reversed_range, ok=False)
    assert done.returncode != 0
    assert "holds no partition" in done.stderr
