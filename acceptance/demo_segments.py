"""The demo finds the segments that its made-up audience has, and none where it has none, with all defaults."""

from acceptance.conftest import Explorer
from spark_jobs import demo_audience

FLOOR = 0.90  # of the adjusted Rand index; it is 0.95 to 0.97


def test_the_demo_finds_what_was_planted(explorer: Explorer) -> None:
    said = explorer.command("audience-explorer", "demo", "--root", str(explorer.root)).stdout

    assert "93 launched, 0 reused, 0 failed" in said
    lines = said[said.index("\npartition           users") :].split("\n\n")[0].splitlines()[2:]
    found = {line.split()[0]: line.split(maxsplit=2)[2] for line in lines}
    assert set(found) == {f"{name}|{month}" for name in demo_audience.CATEGORIES for month in demo_audience.MONTHS}
    for partition, result in found.items():
        category = partition.split("|")[0]
        if category == "news":
            assert result.split() == ["no", "segments", "no", "segments"], partition
        elif category == "beekeeping":
            assert result.split() == ["2", "segments", "too", "few", "people"], partition
        else:
            *segments, agreement = result.split()
            assert segments == [str(demo_audience.planted(category)), "segments"] * 2, partition
            assert float(agreement) >= FLOOR, partition
