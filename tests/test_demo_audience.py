"""The audience of `make demo`."""

from pathlib import Path

from spark_jobs import demo_audience


def test_made_again_it_is_the_same_bytes_so_that_nothing_is_computed_again(tmp_path: Path) -> None:
    made = []
    for _ in range(2):
        demo_audience.make(str(tmp_path), users=300)
        made.append({file.relative_to(tmp_path): file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()})
    assert len(made[0]) > len(demo_audience.MONTHS)
    assert made[0] == made[1]
