"""An analyst tweaks k-means: only k-means runs, the tweaks stand side by side, and going back computes nothing."""

import json
from pathlib import Path

from acceptance.conftest import Explorer

MONTH = "2018-12"
CLOUD = f"kmeans cloud|{MONTH}"
WHAT_FOLLOWS = {f"segments cloud|{MONTH}", f"audience_report cloud|{MONTH}"}


def test_a_tweak_runs_kmeans_and_what_follows_from_it_alone(explorer: Explorer, ansible: Path) -> None:
    explorer.bring(ansible, MONTH)
    cloud = ("--month", MONTH, "--category", "cloud")
    first = explorer.pipeline(*cloud)

    tweaked = explorer.pipeline(*cloud, "--k", "6", "--params", "random,50,0.01", "--label", "six")

    assert tweaked.launched == {CLOUD, *WHAT_FOLLOWS}
    summary = json.loads((tweaked.folders[CLOUD] / "summary.json").read_text())
    assert (summary["k"], summary["params"], summary["label"]) == (6, "random,50,0.01", "six")
    assert (first.folders[CLOUD] / "data.json").exists()
    assert current(first.folders[CLOUD]) == first.folders[CLOUD], "the tweak stands beside it"

    back = explorer.pipeline(*cloud)

    assert back.launched == set()
    assert back.folders[CLOUD] == first.folders[CLOUD]
    assert current(first.folders[CLOUD]) == first.folders[CLOUD]


def test_a_promotion_outlives_a_night_of_cron(explorer: Explorer, ansible: Path) -> None:
    explorer.bring(ansible, MONTH)
    cloud = ("--month", MONTH, "--category", "cloud")
    first = explorer.pipeline(*cloud).folders[CLOUD]
    six = explorer.pipeline(*cloud, "--k", "6", "--label", "six").folders[CLOUD]
    explorer.command("audience-explorer", "promote", *cloud, "--label", "six")

    explorer.pipeline(*cloud, "--k", "9")
    explorer.pipeline(*cloud)
    assert current(first) == six

    explorer.command("audience-explorer", "promote", *cloud, "--automatic")
    assert current(first) == first


def current(of_partition: Path) -> Path:
    """The current output of the partition of an output."""
    return Path(json.loads((of_partition.parent / "current.json").read_text())["folder"])
