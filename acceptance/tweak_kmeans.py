"""An analyst tweaks k-means: only k-means runs, the tweaks stand side by side, and going back computes nothing."""

import json
from pathlib import Path

from acceptance.conftest import Explorer

MONTH = "2018-12"
CLOUD = f"kmeans cloud|{MONTH}"


def test_a_tweak_runs_kmeans_alone(explorer: Explorer, ansible: Path) -> None:
    explorer.bring(ansible, MONTH)
    cloud = ("--month", MONTH, "--category", "cloud")
    first = explorer.pipeline(*cloud)

    tweaked = explorer.pipeline(*cloud, "--k", "6", "--params", "random,50,0.01", "--label", "six")

    assert tweaked.launched == {CLOUD}
    summary = json.loads((tweaked.folders[CLOUD] / "summary.json").read_text())
    assert (summary["k"], summary["params"], summary["label"]) == (6, "random,50,0.01", "six")
    assert (first.folders[CLOUD] / "data.json").exists(), "the first result stands beside it"

    back = explorer.pipeline(*cloud)

    assert back.launched == set()
    assert back.folders[CLOUD] == first.folders[CLOUD]
    current = json.loads((first.folders[CLOUD].parent / "current.json").read_text())
    assert current["folder"] == str(first.folders[CLOUD])
