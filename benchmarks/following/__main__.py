"""Measure how well segments are followed from month to month, where it is known what happens to them.

    python -m benchmarks.following
    python -m benchmarks.following --quick

Series of 12 months, one of them missing, in which segments are born, die, split and merge, clustered by this project's
own k-means: with the k that it chooses, or with one that is wrong by one in 2 of 5 months. Each is followed twice: with
the people who stayed (20 to 80 %), and as if nobody had. `results.md` is written here.
"""

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import click

from benchmarks.following import measure


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="5 series: shows that it works, in half a minute.")
@click.option("--series", type=click.IntRange(1), default=50, show_default=True)
@click.option("--first", type=click.IntRange(0), default=100, show_default=True, help="Seed of the first series.")
@click.option("--processes", type=click.IntRange(1), default=2, show_default=True)
@click.option("--results", type=click.Path(path_type=Path), help="[default: results.md here; with --quick, in build/]")
def main(quick: bool, series: int, first: int, processes: int, results: Path | None) -> None:
    started = time.monotonic()
    results = results or (Path("build/following.md") if quick else Path(__file__).with_name("results.md"))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # read by each process as it starts
        os.environ[name] = "1"
    seeds = range(first, first + (5 if quick else series))
    totals: dict[tuple[bool, bool], measure.Score] = {}
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        for seed, scores in zip(seeds, pool.map(measure.run, seeds), strict=True):
            for way, score in scores.items():
                totals.setdefault(way, measure.Score()).add(score)
            click.echo(
                f"{seed}: {'; '.join(error for score in scores.values() for error in score.errors) or 'all right'}"
            )
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(page(totals, len(seeds), first, time.monotonic() - started))
    click.echo(results)


def page(totals: dict[tuple[bool, bool], measure.Score], series: int, first: int, seconds: float) -> str:
    """The table of results, in Markdown."""
    lines = [
        "# Segments followed from month to month",
        "",
        f"`python -m benchmarks.following --series {series} --first {first}`: {series} series × 12 months, one missing;"
        f" {seconds / 60:.0f} minutes on 2 cores. An event counts if it is of the right kind and reported in the month"
        " that shows it, or the next.",
        "",
        "| k | who stayed | planted events | F1 (aim ≥ 0.90) | stable segment-months | false events in 100 (≤ 1) |"
        " same id (≥ 0.95) |",
        "|---|---|---|---|---|---|---|",
    ]
    for (chosen, members), score in sorted(totals.items()):
        k, who = "chosen" if chosen else "off by one in 2 of 5 months", "known" if members else "nobody"
        planted, false = score.right + score.missed, f"{score.false_in_100:.2f}"
        lines.append(f"| {k} | {who} | {planted} | {score.f1:.3f} | {score.stable} | {false} | {score.identity:.3f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
