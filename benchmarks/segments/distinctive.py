"""Measure whether what is said to set segments apart does, and whether the intervals of lifts hold.

    python -m benchmarks.segments.distinctive

Without structure, designs and shuffled audiences are cut anyway: no more than chance may be said to set a segment
apart. With known segments, the lift that is measured on some people is compared with that among very many other people,
who are placed by the same centers; and the pages that were planted should be found.
"""

import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import scipy.sparse as sp

from benchmarks.segments import nulls, ours
from benchmarks.segments.designs import DESIGNS, Design, draw
from benchmarks.segments.report import table
from spark_jobs.clusters import names
from spark_jobs.clusters.clustering import Model
from spark_jobs.clusters.in_memory import learn_and_place
from spark_jobs.clusters.lifts import Lifts, lifts, only_here
from spark_jobs.clusters.likes import Likes, count_held_out, count_likes
from spark_jobs.config import KMeansConfig
from spark_jobs.vectors.clustering_inputs import enough_to_learn

CUT_INTO = (2, 4, 8)  # where there is nothing to cut
FRESH = 60_000  # people on whom the lifts are measured that should be within the intervals
TOP = 3  # planted pages of a segment
LISTED = 8  # pages of a segment that are listed, at most
MIN_PEOPLE = KMeansConfig().min_people
SHUFFLED = ("4 segments", "4 segments, Pareto, bursts", "9 segments, Pareto")

Figures = dict[str, float]


@dataclass(frozen=True)
class Clustered:
    """Some people as weighted profiles, and their clusters."""

    profiles: sp.csr_matrix  # (n, d) of them and of other people
    weight: np.ndarray  # (n,) people of those who were clustered
    others: np.ndarray  # (n,) other people
    model: Model
    likes: Likes
    labels: np.ndarray  # of each person who was clustered
    seconds: float  # of CPU, for the likes and the lifts


def cluster(counts: sp.csr_matrix, k: int, people: int) -> Clustered:
    """Cluster the first of the people in `counts` (n, d), and count what they like."""
    profiles, weight, _, profile_of = ours.inputs(counts)
    active = np.asarray(counts.sum(axis=1)).ravel() >= ours.DEFAULT_FIT_MIN_ACTIONS
    theirs = np.bincount(profile_of[:people], minlength=len(weight))
    fit = np.bincount(profile_of[:people][active[:people]], minlength=len(weight))
    if not enough_to_learn(int(fit.sum()), int(np.count_nonzero(fit)), k):
        fit = theirs
    rows = np.flatnonzero(theirs)
    _, model = learn_and_place(profiles[rows], theirs[rows], fit[rows], k, KMeansConfig())
    begun = time.process_time()
    likes = count_held_out(profiles[rows], theirs[rows], fit[rows], model.centers, True, seed=0)
    lifts(likes, MIN_PEOPLE)
    seconds = time.process_time() - begun
    labels = np.zeros(len(weight), int)
    labels[rows] = model.labels
    return Clustered(profiles, theirs, weight - theirs, model, likes, labels[profile_of[:people]], seconds)


def compare(counts: sp.csr_matrix, k: int) -> tuple[Lifts, np.ndarray]:
    """How k clusters of the people in `counts` (n, d) differ, and the cluster of each of them (n,)."""
    found = cluster(counts, k, counts.shape[0])
    return lifts(found.likes, MIN_PEOPLE), found.labels


def without_structure(name: str, seed: int) -> list[Figures]:
    """What is said of an audience that has no segments, for each number of clusters it is cut into."""
    counts = draw(_design(name.removeprefix("shuffled ")), seed).counts
    if name.startswith("shuffled "):
        counts = nulls.shuffled(counts, seed)
    figures = []
    for k in CUT_INTO:
        found = cluster(counts, k, counts.shape[0])
        honest = lifts(found.likes, MIN_PEOPLE)
        naive = lifts(Likes(found.likes.people, found.likes.fans, found.likes.fans), MIN_PEOPLE)
        figures.append(
            {
                **{f"honest_{what}": value for what, value in _excluding(honest).items()},
                **{f"naive_{what}": value for what, value in _excluding(naive).items()},
                "segments": found.model.k,
                "named": int((honest.distinctive & only_here(found.likes)).any(axis=1).sum()),
                "distinctive": int(honest.distinctive.any(axis=1).sum()),
                "seconds": found.seconds,
            }
        )
    return figures


def _excluding(found: Lifts) -> Figures:
    known = np.isfinite(found.high)
    return {"cells": int(known.sum()), "excluding": int((known & ((found.low > 1) | (found.high < 1))).sum())}


def planted(name: str, seed: int) -> list[Figures]:
    """What is said of an audience with known segments, cut into that many."""
    design = _design(name)
    audience = draw(replace(design, people=design.people + FRESH), seed)
    found = cluster(audience.counts, design.k, design.people)
    measured = lifts(found.likes, MIN_PEOPLE)
    rows = np.flatnonzero(found.others)
    fresh = count_likes(found.profiles[rows], found.others[rows], found.model.centers, keep_length=True)
    truth = lifts(fresh, 1).lift
    known = np.isfinite(measured.high) & np.isfinite(truth)
    share = _planted_shares(audience.counts, audience.segment, design.k)
    named = only_here(found.likes) & measured.distinctive
    figures = {"top": 0, "found": 0, "in_names": 0, "own_in_names": 0, "unnamed": 0}
    for cluster_id in range(found.model.k):
        segment = np.bincount(audience.segment[: design.people][found.labels == cluster_id]).argmax()
        more_than_others = share[segment] - np.delete(share, segment, axis=0).max(axis=0)
        top = np.argsort(-more_than_others)[:TOP]
        strongest = np.argsort(-np.where(measured.distinctive[cluster_id], measured.z[cluster_id], -np.inf))
        listed = [page for page in strongest[:LISTED] if measured.distinctive[cluster_id, page]]
        in_name = [page for page in strongest if named[cluster_id, page]][: names.PAGES]
        own = sum(more_than_others[page] > 0 for page in in_name)
        figures["top"] += TOP
        figures["found"] += len(set(top) & set(listed))
        figures["in_names"] += len(in_name)
        figures["own_in_names"] += int(own)
        figures["unnamed"] += not in_name
    holding = known & (measured.low <= truth) & (truth <= measured.high)
    return [
        {
            **figures,
            "cells": int(known.sum()),
            "holding": int(holding.sum()),
            "segments": found.model.k,
            "seconds": found.seconds,
        }
    ]


def _planted_shares(counts: sp.csr_matrix, segment: np.ndarray, k: int) -> np.ndarray:
    """(k, d): the share of each segment's people who like each page."""
    member = sp.csr_matrix((np.ones(len(segment)), (segment, np.arange(len(segment)))), shape=(k, len(segment)))
    return np.asarray((member @ (counts > 0)).toarray() / np.bincount(segment, minlength=k)[:, None])


def _design(name: str) -> Design:
    return next(design for design in DESIGNS if design.name == name)


@click.command(help=__doc__)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Draws of each design.")
@click.option("--processes", type=click.IntRange(1), default=2, show_default=True)
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    default=Path(__file__).with_name("distinctive.md"),
    show_default="distinctive.md here",
)
def main(seeds: int, processes: int, results: Path) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # read by each process as it starts
        os.environ[name] = "1"
    empty = [design.name for design in DESIGNS if not design.structured and design.people <= 12_000]
    empty += [f"shuffled {name}" for name in SHUFFLED]
    structured = [design.name for design in DESIGNS if design.structured and design.people <= 12_000]
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        nothing = {name: [pool.submit(without_structure, name, seed) for seed in range(seeds)] for name in empty}
        segments = {name: [pool.submit(planted, name, seed) for seed in range(seeds)] for name in structured}
        without = {name: _sum([row for each in made for row in each.result()]) for name, made in nothing.items()}
        with_them = {name: _sum([row for each in made for row in each.result()]) for name, made in segments.items()}
    results.write_text(page(without, with_them, seeds))
    click.echo(results)


def page(without: dict[str, Figures], with_them: dict[str, Figures], seeds: int) -> str:
    """The tables, as Markdown."""
    nothing, segments = _sum(list(without.values())), _sum(list(with_them.values()))
    aims = [
        ["without structure: intervals that exclude 1", "≤ 6 %", _share(nothing, "honest_excluding", "honest_cells")],
        ["the same, of people placed by all their pages", "", _share(nothing, "naive_excluding", "naive_cells")],
        ["without structure: segments with a named page", "≤ 5 %", _share(nothing, "named", "segments")],
        ["planted lifts within their 95 % interval", "93 to 97 %", _share(segments, "holding", "cells")],
        [f"planted top-{TOP} pages among those listed", "≥ 90 %", _share(segments, "found", "top")],
        ["pages in names that no other segment likes as much", "100 %", _share(segments, "own_in_names", "in_names")],
    ]
    parts = [
        "# What sets segments apart",
        f"`python -m benchmarks.segments.distinctive`, seeds 0 to {seeds - 1}",
        table(["what", "aim", "found"], aims),
        "## Without structure",
        f"Cut into {', '.join(map(str, CUT_INTO))} clusters anyway. Excluding: intervals of lifts that exclude 1;"
        " naive: the same intervals, of people who are placed by all their pages. Distinctive: segments with such a"
        " page; named: with one in its name.",
        table(
            ["audience", "lifts", "excluding", "naive", "segments", "distinctive", "named"],
            [
                [
                    name,
                    f"{row['honest_cells']:,.0f}",
                    _share(row, "honest_excluding", "honest_cells"),
                    _share(row, "naive_excluding", "naive_cells"),
                    f"{row['segments']:.0f}",
                    _share(row, "distinctive", "segments"),
                    _share(row, "named", "segments"),
                ]
                for name, row in {**without, "**all**": nothing}.items()
            ],
        ),
        "## Known segments",
        f"Holding: 95 % intervals that hold the lift among {FRESH:,} other people, placed by the same centers. Found:"
        f" the {TOP} most telling pages of each planted segment that are among the {LISTED} listed. Own: pages in names"
        " that people of no other planted segment like as much. CPU: seconds for all lifts of one audience.",
        table(
            ["audience", "lifts", "holding", f"top {TOP} found", "own in names", "unnamed", "CPU"],
            [
                [
                    name,
                    f"{row['cells']:,.0f}",
                    _share(row, "holding", "cells"),
                    _share(row, "found", "top"),
                    _share(row, "own_in_names", "in_names"),
                    f"{row['unnamed']:.0f}",
                    f"{row['seconds'] / row['draws']:.3f}",
                ]
                for name, row in {**with_them, "**all**": segments}.items()
            ],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _sum(rows: Sequence[Figures]) -> Figures:
    """The sum of each figure, and of how many draws it is."""
    names = rows[0].keys() - {"draws"}
    return {**{name: sum(row[name] for row in rows) for name in names}, "draws": sum(r.get("draws", 1) for r in rows)}


def _share(row: Figures, part: str, whole: str) -> str:
    return f"{100 * row[part] / row[whole]:.1f} %" if row[whole] else "–"


if __name__ == "__main__":
    main()
