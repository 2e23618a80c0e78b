"""Measure whether comparisons with another segment, and with everybody, hold.

    python -m benchmarks.segments.baselines

Without structure, audiences are cut anyway: of two such segments, no more than chance may be said to differ. With known
segments, the lift that is measured on some people is compared with that among very many other people, who are placed by
the same centers.
"""

import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from benchmarks.segments.designs import DESIGNS, Design, draw
from benchmarks.segments.distinctive import FRESH, MIN_PEOPLE, Figures, cluster
from benchmarks.segments.report import table
from spark_jobs.clusters.baselines import against_each_other, against_everybody
from spark_jobs.clusters.lifts import Lifts, lifts
from spark_jobs.clusters.likes import Likes, count_likes

CUT_INTO = (4, 8)  # where there is nothing to cut


def without_structure(design: Design, seed: int) -> Figures:
    """What is said of pairs of segments that are none."""
    counts = draw(design, seed).counts
    figures: Figures = {"pairs": 0, "distinctive": 0, "cells": 0, "excluding": 0}
    for k in CUT_INTO:
        found = cluster(counts, k, counts.shape[0])
        for measured in pairs(found.likes, MIN_PEOPLE):
            known = np.isfinite(measured.high)
            figures["pairs"] += 1
            figures["distinctive"] += int(measured.distinctive.any())
            figures["cells"] += int(known.sum())
            figures["excluding"] += int((known & ((measured.low > 1) | (measured.high < 1))).sum())
    return figures


def planted(design: Design, seed: int) -> Figures:
    """How often the intervals hold of an audience with known segments."""
    audience = draw(replace(design, people=design.people + FRESH), seed)
    found = cluster(audience.counts, design.k, design.people)
    rows = np.flatnonzero(found.others)
    fresh = count_likes(found.profiles[rows], found.others[rows], found.model.centers, keep_length=True)
    figures = {"seconds": 0.0}
    begun = time.process_time()
    measured = {"pairs": pairs(found.likes, MIN_PEOPLE), "everybody": [everybody(found.likes, MIN_PEOPLE)]}
    figures["seconds"] = time.process_time() - begun
    truth = {"pairs": pairs(fresh, 1), "everybody": [everybody(fresh, 1)]}
    for name, of in measured.items():
        known = [np.isfinite(one.high) & np.isfinite(true.lift) for one, true in zip(of, truth[name], strict=True)]
        holding = [
            cells & (one.low <= true.lift) & (true.lift <= one.high)
            for cells, one, true in zip(known, of, truth[name], strict=True)
        ]
        figures[f"{name}_cells"] = sum(int(cells.sum()) for cells in known)
        figures[f"{name}_holding"] = sum(int(cells.sum()) for cells in holding)
    return figures


def pairs(likes: Likes, min_people: int) -> list[Lifts]:
    """Each cluster against each other one, in order."""
    return [found for _, _, found in against_each_other(likes, likes.fans.sum(axis=1), min_people)]


def everybody(likes: Likes, min_people: int) -> Lifts:
    """Each cluster against everybody."""
    return against_everybody(likes, lifts(likes, min_people), min_people)


def sections(nothing: dict[str, list[Figures]], known: dict[str, list[Figures]]) -> str:
    """The results as Markdown."""
    without, within = ({name: _sum(rows) for name, rows in of.items()} for of in (nothing, known))
    without["**all**"], within["**all**"] = (_sum(list(of.values())) for of in (without, within))
    return "\n\n".join(
        [
            "# What sets a segment apart from another one, and from everybody",
            "By `python -m benchmarks.segments.baselines`.",
            "## Nothing to find",
            f"Cut into {' and '.join(map(str, CUT_INTO))} anyway. Pairs: segments, each with each other one. Excluding:"
            " 95 % intervals that exclude “no difference”. Distinctive: pairs of which a page is said to set the first"
            " apart.",
            table(
                ["audience", "pairs", "lifts", "excluding", "distinctive"],
                [
                    [
                        name,
                        f"{row['pairs']:,.0f}",
                        f"{row['cells']:,.0f}",
                        _percent(row["excluding"], row["cells"]),
                        _percent(row["distinctive"], row["pairs"]),
                    ]
                    for name, row in without.items()
                ],
            ),
            "## Known segments",
            f"Holding: 95 % intervals that hold the lift among {FRESH:,} other people, placed by the same centers. CPU:"
            " seconds for all comparisons of one audience.",
            table(
                ["audience", "lifts, pairs", "holding", "lifts, everybody", "holding", "CPU"],
                [
                    [
                        name,
                        f"{row['pairs_cells']:,.0f}",
                        _percent(row["pairs_holding"], row["pairs_cells"]),
                        f"{row['everybody_cells']:,.0f}",
                        _percent(row["everybody_holding"], row["everybody_cells"]),
                        f"{row['seconds'] / row['draws']:.3f}",
                    ]
                    for name, row in within.items()
                ],
            ),
        ]
    )


def _sum(rows: Sequence[Figures]) -> Figures:
    names = rows[0].keys() - {"draws"}
    return {**{name: sum(row[name] for row in rows) for name in names}, "draws": sum(r.get("draws", 1) for r in rows)}


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


@click.command(help=__doc__)
@click.option("--seeds", type=click.IntRange(1), default=5, show_default=True, help="Draws without structure.")
@click.option("--planted-seeds", type=click.IntRange(1), default=1, show_default=True, help="Draws with segments.")
@click.option("--processes", type=click.IntRange(1), default=2, show_default=True)
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    default=Path(__file__).with_name("baselines.md"),
    show_default="baselines.md here",
)
def main(seeds: int, planted_seeds: int, processes: int, results: Path) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # read by each process as it starts
        os.environ[name] = "1"
    small = [design for design in DESIGNS if design.people <= 12_000]
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        made = {
            (design.structured, design.name): [
                pool.submit(planted if design.structured else without_structure, design, seed)
                for seed in range(planted_seeds if design.structured else seeds)
            ]
            for design in small
        }
        done = {key: [each.result() for each in of] for key, of in made.items()}
    nothing, known = ({name: rows for (has, name), rows in done.items() if has == of} for of in (False, True))
    results.write_text(sections(nothing, known) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
