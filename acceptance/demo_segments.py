"""The demo finds the segments that its made-up audience has."""

import re

from acceptance.conftest import Explorer

FLOOR = 0.70  # of the adjusted Rand index; it is 0.76 to 0.82


def test_clusters_match_the_planted_segments(explorer: Explorer) -> None:
    said = explorer.command("audience-explorer", "demo", "--root", str(explorer.root)).stdout

    assert "39 launched, 0 reused, 0 failed" in said
    found = re.findall(r"^  (\S+)\s+(\d\.\d\d)   (\d+) clusters, (\d+) segments", said, re.MULTILINE)
    assert len(found) == 12
    for partition, index, clusters, segments in found:
        assert float(index) >= FLOOR, partition
        assert clusters == segments, f"{partition}: k_selection finds how many there are"
