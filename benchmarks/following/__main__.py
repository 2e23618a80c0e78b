"""Measure how well segments are followed from month to month, where it is known what happens to them.

    python -m benchmarks.following
    python -m benchmarks.following --quick

Series of 12 months, one of them missing, in which segments are born, die, split and merge, clustered by this project's
own k-means: with the k that it chooses, or with one that is wrong by one in 2 of 5 months. Each is followed with the
people who stayed (20 to 80 %), as if it were unknown who did, and once more as a series in which nobody stays.

A series is added to the results file as soon as it is measured, and not measured again (`--again` forgets all); a page
of tables is written beside the file.
"""

import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import click

from benchmarks.following import measure, report


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="5 series: shows that it works, in half a minute.")
@click.option("--series", type=click.IntRange(1), default=50, show_default=True)
@click.option("--first", type=click.IntRange(0), default=100, show_default=True, help="Seed of the first series.")
@click.option("--processes", type=click.IntRange(1), default=2, show_default=True)
@click.option("--again", is_flag=True, help="Measure all series anew.")
@click.option(
    "--results", "file", type=click.Path(path_type=Path), help="[default: results.json here; with --quick, in build/]"
)
def main(quick: bool, series: int, first: int, processes: int, again: bool, file: Path | None) -> None:
    file = file or (Path("build/following.json") if quick else Path(__file__).with_name("results.json"))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # read by each process as it starts
        os.environ[name] = "1"
    rows: list[report.Row] = json.loads(file.read_text())["rows"] if file.exists() and not again else []
    known = {row["seed"] for row in rows}
    wanted = [seed for seed in range(first, first + (5 if quick else series)) if seed not in known]
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        try:
            for done in as_completed([pool.submit(measure.run, seed) for seed in wanted]):
                found = [each.as_row() for each in done.result()]
                rows = sorted([*rows, *found], key=lambda row: (row["seed"], row["who"]))
                _write(file, rows)
                click.echo(report.line(found))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    _write(file, rows)
    click.echo(f"{file}, {file.with_suffix('.md')}")


def _write(file: Path, rows: list[report.Row]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    file.with_suffix(".md").write_text(report.page(rows))


if __name__ == "__main__":
    main()
