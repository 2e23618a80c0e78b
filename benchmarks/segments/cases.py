"""The suite's cases: what is run, on what, and what is noted of it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from benchmarks.segments import nulls, ours, real, vectors
from benchmarks.segments.designs import DESIGNS, Design, draw
from benchmarks.segments.peers import PEERS, multinomial_mixture
from spark_jobs.clusters import clustering
from spark_jobs.config import KMeansConfig, parse_params
from spark_jobs.vectors import clustering_inputs

K_MAX = 12
COST_KS = (2, 4, 8, 12)
LARGE = 10_000  # people, of whom a null is not drawn twice as often
QUICK = ("2 segments, Pareto", "3 segments, few people", "3 segments, Pareto, few people", "none, few people")

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One run of ours, and of the peers if asked, on one set of counts."""

    kind: str  # "design", "shuffled" or "real"
    name: str
    seed: int
    peers: bool = False

    @property
    def cost(self) -> int:
        """What to start first, so that no long case is left for the end: a rough order, no unit."""
        size = _design(self.name).people if self.kind == "design" else 20_000 if "2011-05" in self.name else 2000
        return size * (10 if self.peers else 1)


def suite(seeds: int, peer_seeds: int, quick: bool, only: Sequence[str]) -> list[Case]:
    """The cases whose name has one of `only` in it, the longest first."""
    cases = []
    for design in DESIGNS:
        if not quick or design.name in QUICK:
            draws = seeds if design.structured or design.people > LARGE or quick else 2 * seeds
            cases += [Case("design", design.name, seed, seed < peer_seeds) for seed in range(draws)]
    if real.DATA.exists() and not quick:
        cases += _real_cases(seeds, peer_seeds)
    wanted = [case for case in cases if not only or any(part in case.name for part in only)]
    return sorted(wanted, key=lambda case: -case.cost)


def _real_cases(seeds: int, peer_seeds: int) -> list[Case]:
    """Months as they are, and shuffled: each of few people once, each larger set as often as there are seeds."""
    ansible = [f"ansible {name} {month}" for name in ("cloud", "network") for month in real.months("ansible")]
    tags = [f"Last.fm {month}" for month in real.months("lastfm") if month != "2011-05"]
    cases = [Case("real", name, 0) for name in [*ansible, "Last.fm 2011-05"]]
    cases += [Case("shuffled", name, 0, peer_seeds > 0) for name in [*ansible, *tags]]
    for name in ("pooled cloud", "pooled network", "pooled tags", "Last.fm 2011-05"):
        cases += [Case("shuffled", name, seed, seed < min(1, peer_seeds)) for seed in range(seeds)]
    return cases


def run(case: Case) -> Row:
    """What was found in a case."""
    if case.kind == "design":
        return _run_design(case)
    month = _month(case.name)
    counts = nulls.shuffled(month.counts, case.seed) if case.kind == "shuffled" else month.counts
    row, labels = _run_ours(case, counts)
    if case.kind == "shuffled":
        return row | {"true_k": 1, "peers": _run_peers(case, counts)}
    row["costs"] = costs(counts, COST_KS)
    if "Last.fm" in case.name and row["ours"]["k"] > 1:
        row["distinctive"] = real.distinctive(month.counts, labels, month.pages)
    return row


def _run_design(case: Case) -> Row:
    design = _design(case.name)
    audience = draw(design, case.seed)
    counts, k, busy = audience.counts, audience.k, vectors.busy(audience.counts)
    row, labels = _run_ours(case, counts)
    row |= {"true_k": k, "peers": _run_peers(case, counts)}
    if k > 1:
        at_k, mixtures = ours.segment(counts, k).labels, {}
        damped = {"em_log1p": counts.log1p()} if design.bursts else {}  # a burst breaks EM's multinomial model
        for name, values in {"em": counts, **damped}.items():
            begun = time.perf_counter()
            mixtures[name] = multinomial_mixture(values, k, case.seed).labels
            row[f"{name}_seconds"] = time.perf_counter() - begun
        for name, found in {"ours": labels, "ours_true_k": at_k, **mixtures}.items():
            row[f"ari_{name}"] = adjusted_rand_score(audience.segment[busy], found[busy])
            row[f"ari_all_{name}"] = adjusted_rand_score(audience.segment, found)
        if case.peers:
            row["costs"] = costs(counts, (k, 2 * k))
    return row


def costs(counts: sp.csr_matrix, ks: Sequence[int]) -> list[Row]:
    """What our k-means costs at each k by default, beside the best of three times as many of scikit-learn's inits.

    Both see the same: the weighted profiles of the users who are learned from, or of all where those are too few.
    """
    profiles, weight, fit_weight, _ = ours.inputs(counts)
    weight = fit_weight if clustering_inputs.enough_to_learn(int(fit_weight.sum()), max(ks), max(ks)) else weight
    profiles, weight = profiles[np.flatnonzero(weight)], weight[weight > 0]
    config = KMeansConfig()
    rows = []
    for k in sorted({min(k, profiles.shape[0]) for k in ks}):
        begun = time.perf_counter()
        model = clustering.fit(profiles, weight, k, parse_params(config.params), config.n_init, config.seed)
        done = time.perf_counter()
        theirs = KMeans(k, n_init=3 * config.n_init, random_state=0, tol=0).fit(profiles, sample_weight=weight)
        seconds = {"seconds": done - begun, "sklearn_seconds": time.perf_counter() - done}
        rows.append({"k": k, "cost": model.wssse, "sklearn": float(theirs.inertia_), **seconds})
    return rows


def _run_ours(case: Case, counts: sp.csr_matrix) -> tuple[Row, np.ndarray]:
    begun = time.perf_counter()
    found = ours.segment(counts)
    seconds = time.perf_counter() - begun
    sizes = np.sort(np.bincount(found.labels, minlength=found.k))[::-1]
    row: Row = {"kind": case.kind, "name": case.name, "seed": case.seed}
    row |= {"people": counts.shape[0], "pages": counts.shape[1], "busy": int(vectors.busy(counts).sum())}
    row["ours"] = {"verdict": found.verdict, "k": int(found.k), "seconds": seconds, "sizes": sizes.tolist()}
    return row, _by_size(found.labels)


def _by_size(labels: np.ndarray) -> np.ndarray:
    """The labels, numbered by size, the largest first."""
    order = np.argsort(-np.bincount(labels), kind="stable")
    return np.asarray(np.argsort(order)[labels])


def _run_peers(case: Case, counts: sp.csr_matrix) -> Row:
    found: Row = {}
    for peer in PEERS if case.peers else ():
        begun = time.perf_counter()
        k = peer.k(counts, K_MAX, case.seed)
        found[peer.name] = {"k": k, "seconds": time.perf_counter() - begun}
    return found


def _design(name: str) -> Design:
    return next(design for design in DESIGNS if design.name == name)


def _month(name: str) -> real.Month:
    """By the names that `suite` gives: `ansible CATEGORY MONTH`, `Last.fm MONTH`, `pooled WHAT`."""
    source, *rest = name.split()
    if source == "ansible":
        return real.ansible(*rest)
    return real.lastfm(*rest) if source == "Last.fm" else real.pooled(*rest)
