"""A root is moved, and then copied without its records: nothing is computed again."""

import shutil
from pathlib import Path

from acceptance.conftest import Explorer

MONTH = "2018-12"


def test_a_moved_root_is_reused_and_a_copied_one_adopted(explorer: Explorer, ansible: Path) -> None:
    explorer.bring(ansible, MONTH)
    cloud = ("--month", MONTH, "--category", "cloud")
    first = explorer.pipeline(*cloud)
    assert len(first.launched) == 6

    moved = explorer.root.with_name("moved")
    explorer.root.rename(moved)
    explorer.environment["AUDIENCE_EXPLORER_ROOT"] = str(moved)
    assert explorer.pipeline(*cloud).launched == set()

    copied = explorer.root.with_name("copied")
    shutil.copytree(moved, copied)
    explorer.environment["DAGSTER_HOME"] = str(copied / ".dagster_home")
    explorer.environment["AUDIENCE_EXPLORER_ROOT"] = str(copied)
    told = explorer.command("audience-explorer", "pipeline", *cloud, "--dry-run").stderr
    assert "audience-explorer adopt" in told
    assert "6 to be put on record" in explorer.command("audience-explorer", "adopt", "--dry-run").stdout
    assert "6 put on record" in explorer.command("audience-explorer", "adopt").stdout
    adopted = explorer.pipeline(*cloud)
    assert adopted.launched == set()
    assert all(folder.is_relative_to(copied) for folder in adopted.folders.values())
