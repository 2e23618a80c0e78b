"""Are there segments, and how many? Judged by what one half of the pages says about the other.

People who belong to a segment like several of its pages. So what somebody does on one half of the pages foretells what
they do on the other half. Where everybody merely likes what is popular, it foretells nothing, however loud some people
are, and however often somebody comments on one page. That is what is measured here, on people who were held out:

1. The pages are split into two halves, and the people into two folds, several times.
2. The people of one fold are clustered into k clusters, on all pages.
3. Of each person in the other fold, the first half says how likely each cluster is, and the clusters then say how this
   person's actions spread over the second half; and the other way round.
4. The score of k is how much better that is than page popularity alone: the mean log-likelihood ratio, in nats.

It rises with k as long as a further cluster adds something that holds for other people and other pages, and falls after
that. This is cross-validation over both rows and columns (Owen and Perry 2009; Gabriel's form for k-means: Fu and Perry
2017), with two changes. What is foretold is the mix of somebody's pages and not their amount, and it is compared with
what people who are about as active do (indirect standardisation, as in epidemiology), so activity makes no segments.
And the verdict comes from a test: does a person's first half foretell their own second half better than the first half
of another person who is as active on the second (a permutation test within strata)? Without segments it does not,
whatever the popularity of pages, the activity of people, or their bursts on single pages.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

ENOUGH_PEOPLE = 50  # fewer can't show segments, nor that there are none
ENOUGH_PAGES = 4  # two on each side
ENOUGH_EVIDENCE = 3.5  # standard errors; by a normal distribution 2 in 10,000 structureless audiences have more

_SPLITS, _FEW_PEOPLE_SPLITS, _FEW_PEOPLE = 4, 8, 2000
_STRANGERS = 8  # other people whose pages are tried instead of one's own
_STRATA = 8  # of activity, at most
_PEOPLE_A_STRATUM, _VISITS_A_PAGE = 50, 10  # at least, so that what is expected of a stratum is known well
_PRIOR_PEOPLE = 10.0  # who do as everybody does, added to each cluster and stratum

# Refits k clusters to some of the people, given their profiles (n, d): the cluster of each (n,).
Refit = Callable[[sp.csr_matrix], np.ndarray]


@dataclass(frozen=True)
class Split:
    """Half of the people to learn from, the others to foretell; and the pages in two halves."""

    learn: np.ndarray  # people's places
    foretell: np.ndarray
    halves: tuple["_Half", "_Half"]


def splits(people: sp.csr_matrix, seed: int) -> list[Split]:
    """Several splits of people and pages, the same ones for every k.

    Args:
        people: (n, d) a row a person, values of at least 0.
        seed: Of the random numbers.
    """
    random = np.random.default_rng(seed)
    n = people.shape[0]
    made = []
    for _ in range(_FEW_PEOPLE_SPLITS if n < _FEW_PEOPLE else _SPLITS):
        first = _half_of_pages(people, random)
        halves = (_Half(people, first), _Half(people, ~first))
        order = random.permutation(n)
        for learn, foretell in ((order[: n // 2], order[n // 2 :]), (order[n // 2 :], order[: n // 2])):
            made.append(Split(np.sort(learn), np.sort(foretell), halves))
    return made


def scores(people: sp.csr_matrix, made: Sequence[Split], refit: Refit) -> np.ndarray:
    """(n,) how much better clusters foretell each person's pages than popularity does; nats, the higher, the better.

    Args:
        people: (n, d) a row a person.
        made: Splits of them.
        refit: Clusters those who are learned from.
    """
    total = np.zeros(people.shape[0])
    for split, seen, other in _directions(people, made, refit):
        total[split.foretell] += other.foretold(seen.chances())
    return total / len(made)


def evidence(people: sp.csr_matrix, made: Sequence[Split], refit: Refit, seed: int) -> float:
    """How sure it is that clusters are more than chance, in standard errors: about normal where they are not.

    The score of each person is compared with the one that another person's first half gives, who is in the same
    stratum of activity on the second.

    Args:
        people: (n, d) a row a person.
        made: Splits of them.
        refit: Clusters those who are learned from; nothing of the others may be known to it.
        seed: Of the random numbers.
    """
    random = np.random.default_rng(seed)
    gain = np.zeros(people.shape[0])
    for split, seen, other in _directions(people, made, refit):
        chances = seen.chances()
        own = other.foretold(chances)
        for _ in range(_STRANGERS):
            stranger = _stranger_in(other.stratum, random)
            gain[split.foretell] += (own - other.foretold(chances[stranger])) / _STRANGERS
    return standard_errors(gain)


def standard_errors(values: np.ndarray) -> float:
    """The mean of some values in standard errors; 0 if all are the same."""
    spread = float(values.std())
    return float(values.mean() / spread * np.sqrt(len(values))) if spread > 0 else 0.0


def _half_of_pages(people: sp.csr_matrix, random: np.random.Generator) -> np.ndarray:
    """(d,) which pages are in the first half: one of each pair of about equally popular ones."""
    users = np.bincount(people.indices, minlength=people.shape[1])
    order = np.lexsort((random.random(len(users)), -users))
    first = np.zeros(len(users), bool)
    for_first = random.random((len(users) + 1) // 2) < 0.5
    first[order[0::2]] = for_first
    first[order[1::2]] = ~for_first[: len(users) // 2]
    return first


def _stranger_in(stratum: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(n,) for each person another one of the same stratum (n,); who is alone there stays with themselves."""
    order = np.lexsort((random.random(len(stratum)), stratum))
    starts = np.flatnonzero(np.diff(stratum[order], prepend=-1))
    following = np.arange(1, len(order) + 1)
    following[np.append(starts[1:], len(order)) - 1] = starts  # the last of a stratum gets its first
    stranger = np.empty_like(order)
    stranger[order] = order[following]
    return stranger


class _Half:
    """What everybody does on one half of the pages."""

    def __init__(self, people: sp.csr_matrix, pages: np.ndarray):
        values = people[:, np.flatnonzero(pages)].tocsr()
        total = np.asarray(values.sum(axis=1)).ravel()
        self.mix = sp.csr_matrix(  # (n, d) each row adds up to 1, or is empty
            (values.data / np.repeat(total, np.diff(values.indptr)), values.indices, values.indptr), shape=values.shape
        )
        squares = np.asarray(self.mix.multiply(self.mix).sum(axis=1)).ravel()
        # How many pages somebody's actions are spread over: that many, were they spread evenly.
        self.pages = np.divide(1, squares, out=np.zeros_like(squares), where=squares > 0)
        self.stratum = self._strata()

    def _strata(self) -> np.ndarray:
        """(n,) the stratum of each person: people whose actions are spread over about as many pages."""
        active = self.pages > 0
        in_use = max(1, len(np.unique(self.mix.indices)))
        most = min(active.sum() / (2 * _PEOPLE_A_STRATUM), self.mix.nnz / (2 * _VISITS_A_PAGE * in_use), _STRATA)
        inner = np.linspace(0, 1, max(1, int(most)) + 1)[1:-1]
        edges = np.unique(np.quantile(self.pages[active], inner)) if active.any() else np.zeros(0)
        stratum: np.ndarray = np.searchsorted(edges, self.pages, side="left")
        return stratum


class _Foretelling:
    """One half of the pages, with what clusters of those who are learned from are like on it."""

    def __init__(self, half: _Half, split: Split, labels: np.ndarray):
        k, strata = int(labels.max()) + 1, int(half.stratum.max()) + 1
        learned, stratum = half.mix[split.learn], half.stratum[split.learn]
        popularity = np.asarray(learned.sum(axis=0)).ravel() + 0.5
        popularity /= popularity.sum()
        of_stratum = _sums(learned, stratum, strata)
        people = of_stratum.sum(axis=1, keepdims=True)
        usual = (of_stratum + _PRIOR_PEOPLE * popularity) / (people + _PRIOR_PEOPLE)  # (strata, d)
        active = (half.pages[split.learn] > 0).astype(float)
        members = sp.csr_matrix((active, (labels, stratum)), shape=(k, strata))
        # What a cluster does on each page, and what its people would as others that are as active: (k, d).
        observed, expected = _sums(learned, labels, k), members @ usual
        self._lift = (observed + _PRIOR_PEOPLE * popularity) / (expected + _PRIOR_PEOPLE * popularity)
        self._norm = usual @ self._lift.T  # (strata, k): the sum of usual × lift over pages
        users = np.bincount(labels, minlength=k) + 0.5
        self._log_share = np.log(users / users.sum())
        self._mix, self._pages = half.mix[split.foretell], half.pages[split.foretell]
        self.stratum = half.stratum[split.foretell]
        self._row = np.repeat(np.arange(len(self._pages)), np.diff(self._mix.indptr))

    def chances(self) -> np.ndarray:
        """(n, k) how likely each cluster is for those to foretell, by what they do on this half."""
        likelihood = self._mix @ np.log(self._lift).T - np.log(self._norm)[self.stratum] * (self._pages > 0)[:, None]
        log = self._log_share + self._pages[:, None] * likelihood
        chances: np.ndarray = np.exp(log - log.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        return chances

    def foretold(self, chances: np.ndarray) -> np.ndarray:
        """(n,) how much better this half is foretold with these chances of the clusters (n, k) than by popularity."""
        chances = chances / self._norm[self.stratum]
        ratio = np.einsum("ek,ek->e", chances[self._row], self._lift.T[self._mix.indices])
        foretold: np.ndarray = np.bincount(self._row, self._mix.data * np.log(ratio), minlength=len(self._pages))
        return foretold


def _directions(
    people: sp.csr_matrix, made: Sequence[Split], refit: Refit
) -> Iterator[tuple[Split, _Foretelling, _Foretelling]]:
    """Each split, both ways: the half that is seen, and the one that is foretold."""
    for split in made:
        labels = refit(people[split.learn])
        first, second = (_Foretelling(half, split, labels) for half in split.halves)
        yield split, first, second
        yield split, second, first


def _sums(rows: sp.csr_matrix, group: np.ndarray, groups: int) -> np.ndarray:
    """(groups, d): the sum of the rows (n, d) of each group (n,)."""
    membership = sp.csr_matrix((np.ones(len(group)), (group, np.arange(len(group)))), shape=(groups, len(group)))
    return np.asarray((membership @ rows).toarray())
