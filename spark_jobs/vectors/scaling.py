"""Scaling: what is done to the values of vectors before they are compared, in steps that are applied in order.

A step takes profiles × dimensions, values of at least 0, and gives new values of the same entries: zeros stay zeros.
`docs/vectors.md` shows what each does.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse as sp
import scipy.special

_RARE = 0.05  # the share of users below which a page's rarity counts no more

Step = Callable[[sp.csr_matrix, np.ndarray], np.ndarray]


def scale(raw: sp.csr_matrix, weight: np.ndarray, steps: Sequence[str]) -> tuple[sp.csr_matrix, float | None]:
    """Apply steps one after another.

    Args:
        raw: Profiles × dimensions, values of at least 0.
        weight: Users of each profile.
        steps: Names, as `config.parse_scaling` gives them.

    Returns:
        The scaled profiles, and the factor of the step `max`, or None without that step.
    """
    scaled, factor = raw.copy(), None
    for step in steps:
        if step == "max":
            factor = float(1 / (1 + scaled.data.max(initial=0)))
            # Rounding must not make the largest value 1.
            scaled.data = np.minimum(scaled.data * factor, np.nextafter(1, 0))
        else:
            scaled.data = STEPS[step](scaled, weight)
    return scaled, factor


def _none(matrix: sp.csr_matrix, _weight: np.ndarray) -> np.ndarray:
    values: np.ndarray = matrix.data
    return values


def _log1p(matrix: sp.csr_matrix, _weight: np.ndarray) -> np.ndarray:
    """ln(1 + value)."""
    # numpy's log1p rounds differently with AVX-512. scipy's is the same on every x86-64 processor.
    return np.asarray(scipy.special.log1p(matrix.data))


def _loglog(matrix: sp.csr_matrix, _weight: np.ndarray) -> np.ndarray:
    """ln(1 + ln(1 + value))."""
    return np.asarray(scipy.special.log1p(scipy.special.log1p(matrix.data)))


def _idf(matrix: sp.csr_matrix, weight: np.ndarray) -> np.ndarray:
    """`tfidf`, with dimensions of few users weighted as if a twentieth of the users had them.

    Pages that many like count less, and pages that hardly anybody likes do not outweigh the others.
    """
    return _weighted(matrix, weight, _RARE)


def _tfidf(matrix: sp.csr_matrix, weight: np.ndarray) -> np.ndarray:
    """value × (ln((1 + n) / (1 + n_d)) + 1), n users of whom n_d have dimension d: scikit-learn's smooth idf."""
    return _weighted(matrix, weight, 0.0)


def _weighted(matrix: sp.csr_matrix, weight: np.ndarray, least: float) -> np.ndarray:
    """Smooth idf, with at least that share of the users for each dimension."""
    users_of_entry = np.repeat(weight, np.diff(matrix.indptr))
    users = float(weight.sum())
    have = np.maximum(np.bincount(matrix.indices, users_of_entry, matrix.shape[1]), least * users)
    # math.log, as numpy's logarithm rounds differently with AVX-512.
    factor = np.array([math.log((1 + users) / (1 + of_dimension)) + 1 for of_dimension in have.tolist()])
    return np.asarray(matrix.data * factor[matrix.indices])


def _l2(matrix: sp.csr_matrix, _weight: np.ndarray) -> np.ndarray:
    """Every profile to length 1, rounded to 12 decimals, so that equal directions become the same profile."""
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return np.asarray(np.round(matrix.data / np.repeat(length, np.diff(matrix.indptr)), 12))


# All steps but max, which also gives a factor.
STEPS: dict[str, Step] = {"none": _none, "log1p": _log1p, "loglog": _loglog, "idf": _idf, "tfidf": _tfidf, "l2": _l2}
