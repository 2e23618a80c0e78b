"""Measure how well segments are found where they are known, and how often where there are none.

    python -m benchmarks.segments
    python -m benchmarks.segments --quick
    python -m benchmarks.segments --only Pareto --no-peers --results build/pareto.json

Ours by default settings, beside other ways to choose k, on generated audiences, on real months shuffled so that no
segments are left, and on real months. A page of tables is written beside the results file.
"""

import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import click

from benchmarks.segments import cases, report


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="A few small designs, 2 seeds: shows that it works, in under a minute.")
@click.option("--seeds", type=click.IntRange(1), default=10, show_default=True, help="Draws of each design.")
@click.option(
    "--peer-seeds", type=click.IntRange(0), default=1, show_default=True, help="Draws that the peers see as well."
)
@click.option("--only", multiple=True, help="Cases with this in their name; repeat it.")
@click.option("--no-peers", is_flag=True, help="Only ours, and the mixture that bounds recovery.")
@click.option("--processes", type=click.IntRange(1), default=2, show_default=True)
@click.option(
    "--results", "file", type=click.Path(path_type=Path), help="[default: results.json here; with --quick, in build/]"
)
def main(
    quick: bool, seeds: int, peer_seeds: int, only: tuple[str, ...], no_peers: bool, processes: int, file: Path | None
) -> None:
    if quick:
        seeds, peer_seeds = 2, 1
    default = Path("build/segments-quick.json") if quick else Path(__file__).with_name("results.json")
    file = file or default
    wanted = cases.suite(seeds, 0 if no_peers else peer_seeds, quick, only)
    begun = time.perf_counter()
    rows = run(wanted, processes)
    content = {"seeds": seeds, "seconds": time.perf_counter() - begun, "rows": rows}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1) + "\n")
    file.with_suffix(".md").write_text(report.page(content))
    click.echo(f"{file}, {file.with_suffix('.md')}")


def run(wanted: list[cases.Case], processes: int) -> list[cases.Row]:
    """The rows of all cases, in the order of kind, name and seed."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # read by each process as it starts
        os.environ[name] = "1"
    rows: list[cases.Row] = []
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(cases.run, case) for case in wanted]
        try:
            for done in as_completed(futures):
                rows.append(done.result())
                click.echo(f"{len(rows)}/{len(futures)} {report.line(rows[-1])}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return sorted(rows, key=lambda row: (row["kind"], row["name"], row["seed"]))


if __name__ == "__main__":
    main()
