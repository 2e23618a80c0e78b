"""Are there segments, and how many? Judged by what one half of the pages says about the other.

People who belong to a segment like several of its pages. So what somebody does on one half of the pages predicts what
they do on the other half. Where everybody merely likes what is popular, it predicts nothing, however loud some people
are, and however often somebody comments on one page. That is what is measured here, on people who were held out:

1. The pages are split into two halves, and the people into two folds, several times.
2. The people of one fold are clustered into k clusters, on all pages.
3. Of each person in the other fold, the first half says how likely each cluster is, and the clusters then say how this
   person's actions spread over the second half; and the other way round.
4. The score of k is how much better that is than page popularity alone: the mean log-likelihood ratio, in nats.

It rises with k as long as a further cluster adds something that holds for other people and other pages, and falls after
that. This is cross-validation over both rows and columns (Owen and Perry 2009; Gabriel's form for k-means: Fu and Perry
2017), with two changes. What is predicted is the mix of somebody's pages and not their amount, and it is compared with
what people who are about as active do (indirect standardisation, as in epidemiology), so activity makes no segments.
And the verdict comes from a test: does a person's first half predict their own second half better than the first half
of another person who is as active on the second (a permutation test within strata)? Without segments it does not,
whatever the popularity of pages, the activity of people, or their bursts on single pages.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
import scipy.special

from spark_jobs.clusters import clustering
from spark_jobs.clusters.scores import choose_k, score
from spark_jobs.config import KMeansConfig, KMeansParams, KSelectionConfig, parse_params
from spark_jobs.vectors.clustering_inputs import enough_to_learn

Verdict = Literal["segments", "none", "too_few"]

FALSE_ALARMS = 0.01  # the share of audiences without segments that are said to have some, at most
ENOUGH_PEOPLE = 50  # fewer can't show segments, nor that there are none
ENOUGH_PAGES = 4  # two on each side
ENOUGH_EVIDENCE = 3.5  # standard errors; by a normal distribution 2 in 10,000 structureless audiences have more

_SPLITS, _FEW_PEOPLE_SPLITS, _FEW_PEOPLE = 4, 8, 2000
_STRANGERS = 8  # other people whose pages are tried instead of one's own
_STRATA = 8  # of activity, at most
_PEOPLE_A_STRATUM, _VISITS_A_PAGE = 50, 10  # at least, so that what is expected of a stratum is known well
_PRIOR_PEOPLE = 10.0  # who do as everybody does, added to each cluster and stratum

_AS_GOOD_ERRORS, _AS_GOOD_SHARE = 2.0, 0.01  # a smaller k is taken if it is that near to the best
_SURE_INITS = 3  # of each clustering that the evidence is from

_PARAMS = KMeansParams("kmeans||", 100, 0.001)
_REFIT_MAX_ITER, _REFIT_TOL = 50, 0.01

# Refits k clusters to some of the people, given their profiles (n, d): the cluster of each (n,).
Refit = Callable[[sp.csr_matrix], np.ndarray]


@dataclass(frozen=True)
class Selection:
    """Whether there are segments, how many, and why."""

    verdict: Verdict
    k: int
    why: str
    tried: list[dict[str, Any]]  # a row a k: its scores, and the people of its smallest segment
    evidence: float | None  # that there are any, in standard errors; None if that could not be asked


def select(
    profiles: sp.csr_matrix,
    fit_weight: np.ndarray,
    weight: np.ndarray,
    users: int,
    config: KSelectionConfig,
    progress: Callable[[dict[str, Any]], None] = lambda _row: None,
    cores: int = 1,
) -> Selection:
    """Say whether there are segments among some people, and how many.

    Args:
        profiles: (n, d) distinct vectors.
        fit_weight: (n,) people with each, to learn from.
        weight: (n,) people with each, active or not; by them the size of segments is known.
        users: How many people there are, of whom those may be a sample.
        config: Of the selection.
        progress: Called with the row of each k as soon as it was tried.
        cores: How many inits run at a time; the result does not depend on it.
    """
    audience = _Audience(profiles, fit_weight, weight, users)
    people, smallest = audience.people, max(config.min_segment, math.ceil(config.min_segment_share * users))
    if people.shape[0] < ENOUGH_PEOPLE:
        why = (
            f"Too few people to tell: {people.shape[0]:,} have {config.fit_min_actions} actions or more on these pages,"
            f" and {ENOUGH_PEOPLE} are needed."
        )
        return Selection("too_few", 1, why, [], None)
    made = splits(people, config.seed)
    tried, predicted = _try(audience, made, config, progress, cores)
    k, sure, why = _judge(audience, made, tried, predicted, smallest, config, cores)
    return Selection("segments", k, why, tried, sure) if k > 1 else Selection("none", 1, why, tried, sure)


def _judge(
    audience: "_Audience",
    made: Sequence["Split"],
    tried: Sequence[dict[str, Any]],
    predicted: Sequence[np.ndarray],
    smallest: int,
    config: KSelectionConfig,
    cores: int,
) -> tuple[int, float | None, str]:
    """How many segments there are, 1 for none; the evidence, if it was measured; and why."""
    in_use = len(np.unique(audience.points.indices))
    if in_use < ENOUGH_PAGES:
        why = f"people are on {in_use} pages, and it takes {ENOUGH_PAGES} to see what is liked together."
        return 1, None, f"No segments: {why}"
    large_enough = [row for row in tried if row["k"] > 1 and row["smallest_segment"] >= smallest]
    k, best = _choose(audience, large_enough, predicted, smallest, config.criterion, cores)
    if not k:
        return 1, None, f"No segments: with any number of them, one has fewer than {smallest:,} people."
    sure = round(evidence(audience.people, made, _refit_anew(best, config.seed), config.seed), 6)
    if sure < ENOUGH_EVIDENCE:
        why = (
            "what people do on half of the pages says nothing about what they do on the other half, beyond what is"
            f" popular (evidence {sure:.1f} standard errors; {ENOUGH_EVIDENCE} are needed)."
        )
        return 1, sure, f"No segments: {why}"
    if predicted[best - 1].mean() <= predicted[0].mean():
        why = "popularity alone predicts what people do on half of the pages as well as clusters do."
        return 1, sure, f"No segments: {why}"
    chosen_by = (
        "they predict best what people do on half of the pages from what they do on the other half"
        if config.criterion == "prediction"
        else f"by {config.criterion}"
    )
    why = (
        f"{k} segments: {chosen_by} (evidence that there are any {sure:.1f} standard errors; {ENOUGH_EVIDENCE} are"
        f" needed, which fewer than {FALSE_ALARMS:.0%} of audiences without segments reach)."
    )
    return k, sure, why


class _Audience:
    """Those to learn from, and everybody; see `select`."""

    def __init__(self, profiles: sp.csr_matrix, fit_weight: np.ndarray, weight: np.ndarray, users: int):
        learned = np.flatnonzero(fit_weight)
        self.profiles, self.weight, self.users = profiles, weight, users
        self.points, self.times = profiles[learned], fit_weight[learned]
        self.people = self.points[np.repeat(np.arange(len(learned)), self.times)]  # a row a person

    def smallest_segment(self, model: clustering.Model, k: int) -> int:
        """About how many of all people are in the smallest of k clusters, once everybody is placed."""
        placed = clustering.place(model, self.profiles, self.weight)
        return round(int(placed.users[-1]) * self.users / int(self.weight.sum())) if placed.k == k else 0


def _try(
    audience: _Audience,
    made: Sequence["Split"],
    config: KSelectionConfig,
    progress: Callable[[dict[str, Any]], None],
    cores: int,
) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """A row for each k from 1, and (n,) how well each person is predicted with it."""
    tried, predicted = [], []
    points, times, people = audience.points, audience.times, audience.people
    for k in range(1, config.k_max + 1):
        if k > 1 and not enough_to_learn(people.shape[0], len(times), k):
            break
        model = clustering.fit(points, times, k, _PARAMS, config.n_init, config.seed, cores=cores, searches=1)
        predicted.append(prediction_scores(people, made, _refit_from(model.centers)))
        row = {
            "k": k,
            **score(points, times, model),
            "prediction": round(float(predicted[-1].mean()), 9),
            "smallest_segment": audience.smallest_segment(model, k),
        }
        tried.append(row)
        progress(row)
    return tried, predicted


def _choose(
    audience: _Audience,
    large_enough: Sequence[dict[str, Any]],
    predicted: Sequence[np.ndarray],
    smallest: int,
    criterion: str,
    cores: int,
) -> tuple[int | None, int]:
    """The k by the criterion, and the one that predicts best; None if with every k a segment is too small.

    The clusters that k-means makes by default of the chosen k are checked as well.
    """
    rows, by_default = list(large_enough), KMeansConfig()
    while rows:
        best = _smallest_as_good([row["k"] for row in rows], predicted)
        k = best if criterion == "prediction" else choose_k(rows, criterion)
        row = next(row for row in rows if row["k"] == k)
        params, n_init, seed = parse_params(by_default.params), by_default.n_init, by_default.seed
        model = clustering.fit(audience.points, audience.times, k, params, n_init, seed, cores=cores)
        row["smallest_segment"] = audience.smallest_segment(model, k)
        if row["smallest_segment"] >= smallest:
            return k, best
        rows.remove(row)
    return None, 1


def _smallest_as_good(ks: Sequence[int], predicted: Sequence[np.ndarray]) -> int:
    """The smallest of some k that predicts about as well as the best of them.

    Args:
        ks: In order.
        predicted: (n,) the score of each person, for every k from 1.
    """
    mean = {k: float(predicted[k - 1].mean()) for k in ks}
    best = max(ks, key=lambda k: mean[k])
    return next(
        k
        for k in ks
        if k == best
        or mean[best] - mean[k] < _AS_GOOD_SHARE * mean[best]
        or standard_errors(predicted[best - 1] - predicted[k - 1]) < _AS_GOOD_ERRORS
    )


def _refit_from(centers: np.ndarray) -> Refit:
    """Clusters near those of all people, so that it is these that are judged, and not others with the same k."""
    return lambda rows: clustering.lloyd(rows, np.ones(rows.shape[0]), centers, _REFIT_MAX_ITER, _REFIT_TOL).labels


def _refit_anew(k: int, seed: int) -> Refit:
    return lambda rows: clustering.fit(rows, np.ones(rows.shape[0]), k, _PARAMS, _SURE_INITS, seed, searches=0).labels


@dataclass(frozen=True)
class Split:
    """Half of the people to learn from, the others to predict; and the pages in two halves."""

    held_out: np.ndarray  # places of people
    learned: sp.csr_matrix  # those who are learned from, on all pages
    halves: tuple["_HalfOfSplit", "_HalfOfSplit"]


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
        folds = np.sort(order[: n // 2]), np.sort(order[n // 2 :])
        for learn, held_out in (folds, folds[::-1]):
            first_half, second_half = (_HalfOfSplit(half, learn, held_out) for half in halves)
            made.append(Split(held_out, people[learn], (first_half, second_half)))
    return made


def prediction_scores(people: sp.csr_matrix, made: Sequence[Split], refit: Refit) -> np.ndarray:
    """(n,) how much better clusters predict each person's pages than popularity does; nats, the higher, the better.

    Args:
        people: (n, d) a row a person.
        made: Splits of them.
        refit: Clusters those who are learned from.
    """
    total = np.zeros(people.shape[0])
    for split, seen, other in _directions(made, refit):
        total[split.held_out] += other.predict(seen.chances())
    return total / len(made)


def evidence(people: sp.csr_matrix, made: Sequence[Split], refit: Refit, seed: int) -> float:
    """How sure it is that clusters are more than chance, in standard errors: about normal where they are not.

    The score of each person is compared with the one that another person's first half gives, who is in the same
    stratum of activity on the second.

    Args:
        people: (n, d) a row a person.
        made: Splits of them.
        refit: Clusters those who are learned from; it must know nothing of the others.
        seed: Of the random numbers.
    """
    random = np.random.default_rng(seed)
    gain = np.zeros(people.shape[0])
    for split, seen, other in _directions(made, refit):
        chances = seen.chances()
        own = other.predict(chances)
        for _ in range(_STRANGERS):
            stranger = _stranger_in(other.half.stratum, random)
            gain[split.held_out] += (own - other.predict(chances[stranger])) / _STRANGERS
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
        values.eliminate_zeros()  # as l2 leaves of a count that is tiny beside the user's others
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


class _HalfOfSplit:
    """One half of the pages: what those who are learned from usually do there, and those held out."""

    def __init__(self, half: _Half, learn: np.ndarray, held_out: np.ndarray):
        self.learned, self.learned_stratum = half.mix[learn], half.stratum[learn]
        self.strata = int(half.stratum.max()) + 1
        self.active = (half.pages[learn] > 0).astype(float)
        popularity = np.asarray(self.learned.sum(axis=0)).ravel() + 0.5
        self.popularity = popularity / popularity.sum()
        of_stratum = _sums(self.learned, self.learned_stratum, self.strata)
        people = of_stratum.sum(axis=1, keepdims=True)
        self.usual = (of_stratum + _PRIOR_PEOPLE * self.popularity) / (people + _PRIOR_PEOPLE)  # (strata, d)
        self.mix, self.pages, self.stratum = half.mix[held_out], half.pages[held_out], half.stratum[held_out]
        self.row = np.repeat(np.arange(len(self.pages)), np.diff(self.mix.indptr))


class _Predictor:
    """One half of the pages, with what clusters of those who are learned from are like on it."""

    def __init__(self, half: _HalfOfSplit, labels: np.ndarray):
        k = int(labels.max()) + 1
        self.half = half
        members = sp.csr_matrix((half.active, (labels, half.learned_stratum)), shape=(k, half.strata))
        # What a cluster does on each page, and what its people would as others that are as active: (k, d).
        observed, expected = _sums(half.learned, labels, k), members @ half.usual
        prior = _PRIOR_PEOPLE * half.popularity
        self._lift = (observed + prior) / (expected + prior)
        # (strata, k): the sum of usual × lift over pages; 1 where the half has no page
        self._norm = half.usual @ self._lift.T if half.usual.shape[1] else np.ones((half.strata, k))
        users = np.bincount(labels, minlength=k) + 0.5
        self._log_share = _log(users / users.sum())

    def chances(self) -> np.ndarray:
        """(n, k) how likely each cluster is for those held out, by what they do on this half."""
        likelihood = (
            self.half.mix @ _log(self._lift).T - _log(self._norm)[self.half.stratum] * (self.half.pages > 0)[:, None]
        )
        log = self._log_share + self.half.pages[:, None] * likelihood
        chances: np.ndarray = scipy.special.exp2((log - log.max(axis=1, keepdims=True)) / math.log(2))
        chances /= chances.sum(axis=1, keepdims=True)
        return chances

    def predict(self, chances: np.ndarray) -> np.ndarray:
        """(n,) how much better this half is predicted with these chances of the clusters (n, k) than by popularity."""
        chances = chances / self._norm[self.half.stratum]
        ratio = np.einsum("ek,ek->e", chances[self.half.row], self._lift.T[self.half.mix.indices])
        predicted: np.ndarray = np.bincount(
            self.half.row, self.half.mix.data * _log(ratio), minlength=len(self.half.pages)
        )
        return predicted


def _directions(made: Sequence[Split], refit: Refit) -> Iterator[tuple[Split, _Predictor, _Predictor]]:
    """Each split, both ways: the half that is seen, and the one that is predicted."""
    for split in made:
        labels = refit(split.learned)
        first, second = (_Predictor(half, labels) for half in split.halves)
        yield split, first, second
        yield split, second, first


def _sums(rows: sp.csr_matrix, group: np.ndarray, groups: int) -> np.ndarray:
    """(groups, d): the sum of the rows (n, d) of each group (n,)."""
    membership = sp.csr_matrix((np.ones(len(group)), (group, np.arange(len(group)))), shape=(groups, len(group)))
    return np.asarray((membership @ rows).toarray())


def _log(values: np.ndarray) -> np.ndarray:
    """The natural logarithm; numpy's own rounds differently on processors with AVX-512."""
    return np.asarray(scipy.special.xlogy(1.0, values))
