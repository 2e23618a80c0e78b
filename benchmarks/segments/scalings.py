"""Measure scalings, and who is learned from: what the defaults of both were chosen by.

    python -m benchmarks.segments.scalings

On designs with known segments and the true k: the adjusted Rand index of users with at least 5 actions, for each
scaling and each `fit_min_actions`. On Last.fm, where nobody knows the truth: listeners are split in two at random, one
half is clustered, and the other half should listen together to the most distinctive artists of each segment.
"""

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import click
import numpy as np
import scipy.sparse as sp
from sklearn.metrics import adjusted_rand_score

from benchmarks.segments import ours, real, vectors
from benchmarks.segments.designs import DESIGNS, Design, draw
from benchmarks.segments.report import table

SCALINGS = ("max", "l2", "log1p,l2", "loglog,l2", "log1p,idf,l2", "loglog,tfidf,l2", "loglog,idf,l2")
FIT_MIN_ACTIONS = (1, 5, 8, 12)
SPLITS = 10  # of Last.fm's listeners
KS = (8, 10, 12)
TOP = 10  # artists of a segment

Scores = dict[str, list[float]]


@click.command(help=__doc__)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Draws of each design.")
@click.option("--processes", type=click.IntRange(1), default=2, show_default=True)
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    default=Path(__file__).with_name("scalings.md"),
    show_default="scalings.md here",
)
def main(seeds: int, processes: int, results: Path) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # read by each process as it starts
        os.environ[name] = "1"
    designs = [design for design in DESIGNS if design.structured and design.people <= 12_000]
    cases = [(design, seed) for design in designs for seed in range(seeds)]
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        recovered = list(pool.map(recovery, *zip(*cases, strict=True)))
        together = list(pool.map(coherence, range(SPLITS))) if real.DATA.exists() else []
    by_design = [_mean(recovered[place : place + seeds]) for place in range(0, len(cases), seeds)]
    results.write_text(page(designs, by_design, _mean(together) if together else None))
    click.echo(results)


def recovery(design: Design, seed: int) -> Scores:
    """For each scaling, the adjusted Rand index with each of FIT_MIN_ACTIONS."""
    audience = draw(design, seed)
    busy = vectors.busy(audience.counts)

    def score(scaling: str, fit_min_actions: int) -> float:
        found = ours.segment(audience.counts, design.k, scaling, fit_min_actions)
        return float(adjusted_rand_score(audience.segment[busy], found.labels[busy]))

    return {scaling: [score(scaling, least) for least in FIT_MIN_ACTIONS] for scaling in SCALINGS}


def coherence(split: int) -> Scores:
    """For each scaling and k, how much the other half listens to a segment's artists together.

    The mean log lift over the pairs of a segment's artists, and over the people.
    """
    counts = real.lastfm("2011-05").counts
    people = np.random.default_rng(split).permutation(counts.shape[0])
    one, other = counts[people[: len(people) // 2]], counts[people[len(people) // 2 :]]
    pages = [str(page) for page in range(counts.shape[1])]
    lift = log_lift(other)
    pairs = np.triu_indices(TOP, 1)

    def score(scaling: str, k: int) -> float:
        found = ours.segment(one, k, scaling)
        tops = [[int(page) for page in top] for top in real.distinctive(one, found.labels, pages, TOP)]
        shares = np.bincount(found.labels) / len(found.labels)
        return float(shares @ [lift[np.ix_(top, top)][pairs].mean() for top in tops])

    return {scaling: [score(scaling, k) for k in KS] for scaling in SCALINGS}


def log_lift(counts: sp.csr_matrix) -> np.ndarray:
    """(d, d): the log of how often two pages are visited by the same people, over what popularity alone gives."""
    present = (counts > 0).astype(float)
    both = np.asarray((present.T @ present).toarray())
    users = np.diag(both)
    return np.asarray(np.log((both + 0.5) / (np.outer(users, users) / counts.shape[0] + 0.5)))


def page(designs: Sequence[Design], by_design: Sequence[Scores], together: Scores | None) -> str:
    """The tables, as Markdown."""
    place = FIT_MIN_ACTIONS.index(ours.DEFAULT_FIT_MIN_ACTIONS)
    overall = _mean(by_design)
    rows = [[design.name, *_row(scores, place)] for design, scores in zip(designs, by_design, strict=True)]
    rows.append(["**mean**", *_row(overall, place)])
    parts = [
        "# Scalings, and who is learned from",
        "`python -m benchmarks.segments.scalings`",
        "The adjusted Rand index of users with at least 5 actions at the true k, learned from users with at least"
        f" {FIT_MIN_ACTIONS[place]}:",
        table(["design", *SCALINGS], rows),
        "The mean over all designs, by `fit_min_actions`:",
        table(
            ["fit_min_actions", *SCALINGS],
            [[str(least), *_row(overall, number)] for number, least in enumerate(FIT_MIN_ACTIONS)],
        ),
    ]
    if together is not None:
        parts += [
            f"Last.fm, 2011-05: the mean log lift of a segment's {TOP} most distinctive artists among held-out"
            f" listeners, over {SPLITS} splits:",
            table(["k", *SCALINGS], [[str(k), *_row(together, number)] for number, k in enumerate(KS)]),
        ]
    return "\n\n".join(parts) + "\n"


def _row(scores: Scores, place: int) -> list[str]:
    return [f"{scores[scaling][place]:.3f}" for scaling in SCALINGS]


def _mean(of: Sequence[Scores]) -> Scores:
    return {scaling: np.mean([each[scaling] for each in of], axis=0).tolist() for scaling in SCALINGS}


if __name__ == "__main__":
    main()
