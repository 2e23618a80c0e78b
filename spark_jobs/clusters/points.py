"""Weighted profiles as k-means works on them: in blocks that fit a core's cache, or as a coreset of few."""

import numpy as np
import scipy.sparse as sp

BLOCK = 1 << 13  # profiles at a time, whose distances stay in a core's cache


class Points:
    """Profiles, with what all inits need of them."""

    def __init__(self, profiles: sp.csr_matrix, weight: np.ndarray):
        self.profiles = profiles
        self.weight = weight.astype(float)
        self.squared_norm = np.asarray(profiles.multiply(profiles).sum(axis=1)).ravel()
        self.total_square = float(self.weight @ self.squared_norm)  # over the users
        self.blocks = [Block(profiles, self.weight, start) for start in range(0, profiles.shape[0], BLOCK)]

    def sums(self, labels: np.ndarray, k: int) -> np.ndarray:
        """(k, d): the sum of each cluster's users, given the cluster of each profile (n,)."""
        d = self.profiles.shape[1]
        sums = np.zeros(k * d)
        for block in self.blocks:
            place = labels[block.here][block.row] * d + block.profiles.indices
            sums += np.bincount(place, block.weighted, k * d)
        return sums.reshape(k, d)

    def closest_distances(self, chosen: np.ndarray, nearest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, t): the squared distance of each profile to each of t chosen ones, or `nearest` (n,) where that is less;
        and (t,) its sum over the users."""
        columns, own_norm = self.profiles[chosen].toarray().T, self.squared_norm[chosen]
        distances, sums = np.empty((len(self.weight), len(chosen))), np.zeros(len(chosen))
        for block in self.blocks:
            squared = distances[block.here]
            np.multiply(block.profiles @ columns, -2, out=squared)
            squared += self.squared_norm[block.here, None]
            squared += own_norm
            np.maximum(squared, 0, out=squared)
            np.minimum(squared, nearest[block.here, None], out=squared)
            sums += block.weight @ squared
        distances[chosen, np.arange(len(chosen))] = 0
        return distances, sums


class Block:
    """Some neighbours among the profiles."""

    def __init__(self, profiles: sp.csr_matrix, weight: np.ndarray, start: int):
        self.profiles = profiles[start : start + BLOCK]
        self.here = slice(start, start + self.profiles.shape[0])
        self.weight = weight[self.here]
        self.row = np.repeat(np.arange(self.profiles.shape[0]), np.diff(self.profiles.indptr))  # of each entry
        self.weighted = self.profiles.data * self.weight[self.row]


def coreset(points: Points, size: int, random: np.random.Generator) -> Points:
    """At most so many of the profiles, weighted so that for any centers they cost about what all of them do.

    A lightweight coreset (Bachem, Lucic and Krause 2018): half of the draws by users, half by what these add to the
    variance.
    """
    weight, profiles = points.weight, points.profiles
    mean = weight @ profiles / weight.sum()
    variance = weight * np.maximum(points.squared_norm - 2 * (profiles @ mean) + mean @ mean, 0)
    chance = weight / weight.sum() / 2 + variance / max(variance.sum(), np.finfo(float).tiny) / 2
    chance /= chance.sum()
    drawn, times = np.unique(random.choice(len(chance), size, p=chance), return_counts=True)
    return Points(profiles[drawn], weight[drawn] * times / (size * chance[drawn]))


def membership(labels: np.ndarray, weight: np.ndarray, k: int) -> sp.csr_matrix:
    """(k, n): the weight of each profile in the row of its cluster."""
    return sp.csr_matrix((weight.astype(float), (labels, np.arange(len(labels)))), shape=(k, len(labels)))
