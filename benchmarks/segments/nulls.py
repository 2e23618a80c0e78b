"""Real months shuffled so that no segments are left: nulls with the activity, popularity and bursts of real audiences.

Who visits what is drawn anew among all ways in which every user visits as many pages as before, and every page has as
many users. How often a user visits each of them is then that user's own counts in random order. So who likes one page
says nothing any more about which others they like, beyond how popular these are.
"""

import numpy as np
import scipy.sparse as sp

ROUNDS = 100  # a user trades once a round; pages of Last.fm are mixed after 20


def shuffled(counts: sp.csr_matrix, seed: int, rounds: int = ROUNDS) -> sp.csr_matrix:
    """Shuffle `counts` (n, d), keeping each user's multiset of counts and each page's number of users."""
    random = np.random.default_rng(seed)
    counts = sp.csr_matrix(counts)
    counts.eliminate_zeros()
    user, page = counts.nonzero()
    for _ in range(rounds):
        page = _trade(user, page, counts.shape[0], random)
    order = np.lexsort((random.random(len(user)), user))
    return sp.csr_matrix((counts.data[order], (user, page)), shape=counts.shape)


def _trade(user: np.ndarray, page: np.ndarray, n: int, random: np.random.Generator) -> np.ndarray:
    """One round of global curveball trades: the (nnz,) pages of the entries, whose users stay as they are.

    All users are paired at random. Of a pair, pages that both visit stay; those that only one visits are pooled and
    dealt again, to each as many as before (Strona et al. 2014; all pairs at once: Carstens, Berger and Strona 2018).
    """
    place = random.permutation(n)[user]  # users 2i and 2i + 1 are a pair; with n odd, the last one waits
    pair = place // 2
    order = np.lexsort((page, pair))
    same = (pair[order][1:] == pair[order][:-1]) & (page[order][1:] == page[order][:-1])
    shared = np.zeros(len(page), bool)
    shared[order[1:][same]] = shared[order[:-1][same]] = True
    alone = np.flatnonzero(~shared)
    by_pair = alone[np.argsort(pair[alone], kind="stable")]
    dealt = alone[np.lexsort((random.random(len(alone)), pair[alone]))]
    traded = page.copy()
    traded[by_pair] = page[dealt]
    return traded
