"""Who likes what in each cluster, counted so that no page has a say in where the people are counted who like it.

A cluster was cut to look different on these very data: many people are in it because they like its pages. That it
differs on a page is so even where there is nothing to find. Two things keep the comparison honest:

- What a page is compared by is counted among people who are placed by all their other pages. Then clusters differ on a
  page only if it goes together with others, and not because they were cut by it.
- Centers fit the chance of the people they were learned from. So the people are split into two halves at random, and
  those of one are placed by centers that were learned from the other.

Loud people like more of everything, so people are counted by stratum: those who like about as many other pages.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from spark_jobs.clusters import clustering
from spark_jobs.clusters.points import BLOCK
from spark_jobs.config import KMeansParams

# How many pages somebody likes: the fewest of each stratum.
STRATA = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 18, 22, 27, 33, 40, 50, 65, 85, 120)
LEARN = 6_000  # people whom the centers of each half are learned from, at most

_FEW = 500  # people to learn from, whose chance decides in which valley of the objective the centers lie
_FEW_INITS = 3
_PARAMS = KMeansParams("kmeans||", 50, 0.01)
_ENTRIES = 1 << 17  # whose distances to all centers are in memory at a time


@dataclass(frozen=True)
class Likes:
    """People of k clusters by stratum and page: g strata, d pages. Sums of several are of all their people."""

    people: np.ndarray  # (k, g) by all their pages; who likes none is not counted
    fans: np.ndarray  # (k, g, d) of those, the ones who like the page
    held_out: np.ndarray  # (k, g, d) who like the page, by their other pages; who likes no other is not counted

    def __add__(self, other: "Likes") -> "Likes":
        return Likes(self.people + other.people, self.fans + other.fans, self.held_out + other.held_out)

    @property
    def comparable(self) -> np.ndarray:
        """(k, g, d) all people by their pages but that one: those who like it, and those who do not."""
        return np.asarray(self.people[:, :, None] - self.fans + self.held_out)


def count_held_out(
    profiles: sp.csr_matrix,
    weight: np.ndarray,
    fit_weight: np.ndarray,
    centers: np.ndarray,
    keep_length: bool,
    seed: int,
) -> Likes:
    """The likes of some people in clusters, each of them placed by centers that were learned from others.

    Args:
        profiles: (n, d).
        weight: (n,) people with each.
        fit_weight: (n,) those of them to learn from, of whom some are drawn where they are many.
        centers: (k, d) of the clusters.
        keep_length: See `count_likes`.
        seed: Of the random numbers.
    """
    counted = nobody(*centers.shape)
    clusters = clustering.assign(profiles, centers)[0]
    first, second = _two_halves(fit_weight, seed)
    rest = np.maximum(weight - first - second, 0)
    before = np.cumsum(rest) - rest
    rest_of_first = (before + rest + 1) // 2 - (before + 1) // 2  # every other one
    for learned, placed in ((first, second + rest - rest_of_first), (second, first + rest_of_first)):
        rows = np.flatnonzero(learned)
        if not rows.size:
            continue
        refitted = _refit(profiles[rows], learned[rows], centers, seed)
        # Which cluster each of the new ones is: the one that most of its people are in.
        shared = np.zeros((len(refitted), len(centers)))
        np.add.at(shared, (clustering.assign(profiles, refitted)[0], clusters), weight)
        rows = np.flatnonzero(placed)
        found = count_likes(profiles[rows], np.minimum(placed, weight)[rows], refitted, keep_length)
        for number, cluster in enumerate(shared.argmax(axis=1).tolist()):
            counted.people[cluster] += found.people[number]
            counted.fans[cluster] += found.fans[number]
            counted.held_out[cluster] += found.held_out[number]
    return counted


def _two_halves(fit_weight: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(n,) and (n,): people of each profile in one half of those to learn from, and in the other."""
    people = int(fit_weight.sum())
    size = min(LEARN, people // 2)
    drawn = np.random.default_rng(seed).choice(people, 2 * size, replace=False)
    ends = np.concatenate([[0], np.cumsum(fit_weight)])
    first, second = (np.diff(np.searchsorted(np.sort(half), ends)) for half in (drawn[:size], drawn[size:]))
    return first, second


def _refit(profiles: sp.csr_matrix, weight: np.ndarray, centers: np.ndarray, seed: int) -> np.ndarray:
    """Centers of some people: near those given, which are of everybody; of few people, found anew."""
    if weight.sum() >= _FEW // 2:
        return clustering.lloyd(profiles, weight, centers, _PARAMS.max_iter, _PARAMS.tol).centers
    return clustering.fit(profiles, weight, len(centers), _PARAMS, _FEW_INITS, seed, searches=0).centers


def count_likes(profiles: sp.csr_matrix, weight: np.ndarray, centers: np.ndarray, keep_length: bool) -> Likes:
    """Count the people of some profiles.

    Args:
        profiles: (n, d).
        weight: (n,) people with each.
        centers: (k, d), at least one.
        keep_length: Whether a vector without a page is stretched to its former length: where the scaling gives all
            vectors the same one.
    """
    counted = nobody(*centers.shape)
    half_norm, columns = (centers**2).sum(axis=1) / 2, np.ascontiguousarray(centers.T)
    start = 0
    while start < profiles.shape[0]:
        fits = int(np.searchsorted(profiles.indptr, profiles.indptr[start] + _ENTRIES, side="right")) - 1
        end = min(max(fits, start + 1), start + BLOCK)
        block = profiles[start:end]
        block.eliminate_zeros()
        counted += _count(block, weight[start:end], half_norm, columns, keep_length)
        start = end
    return counted


def nobody(k: int, d: int) -> Likes:
    """The likes of no people, on d pages in k clusters."""
    g = len(STRATA)
    return Likes(np.zeros((k, g), np.int64), np.zeros((k, g, d), np.int64), np.zeros((k, g, d), np.int64))


def _count(
    profiles: sp.csr_matrix, weight: np.ndarray, half_norm: np.ndarray, columns: np.ndarray, keep_length: bool
) -> Likes:
    (d, k), g = columns.shape, len(STRATA)
    pages = np.diff(profiles.indptr)
    row, page, value = np.repeat(np.arange(len(pages)), pages), profiles.indices, profiles.data
    products = profiles @ columns
    own = (half_norm - products).argmin(axis=1)  # half of ‖x - c‖² - ‖x‖²

    without = products[row] - value[:, None] * columns[page]
    if keep_length:
        squared = np.bincount(row, value**2, len(pages))[row]
        without *= np.sqrt(squared / np.maximum(squared - value**2, np.finfo(float).tiny))[:, None]
    elsewhere = (half_norm - without).argmin(axis=1)

    stratum, users = _stratum(pages), weight[row]
    likes_others = pages[row] > 1

    def by_cell(cluster: np.ndarray, stratum: np.ndarray, people: np.ndarray) -> np.ndarray:
        cell = (cluster * g + stratum) * d + page
        return np.bincount(cell, people, k * g * d).astype(np.int64).reshape(k, g, d)

    active = pages > 0
    people = np.bincount(own[active] * g + stratum[active], weight[active], k * g).astype(np.int64).reshape(k, g)
    return Likes(
        people,
        by_cell(own[row], stratum[row], users),
        by_cell(elsewhere, _stratum(pages[row] - 1), users * likes_others),
    )


def _stratum(pages: np.ndarray) -> np.ndarray:
    """The stratum of people who like so many pages; that of the first for none."""
    return np.maximum(np.searchsorted(STRATA, pages, side="right") - 1, 0)
