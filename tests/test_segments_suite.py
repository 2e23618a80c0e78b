"""The suite of segments: its nulls keep what they should, its peers and its yardstick find what is plain to see."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from click.testing import CliRunner
from sklearn.metrics import adjusted_rand_score

from benchmarks.segments import cases, nulls, peers, real, report, vectors
from benchmarks.segments.designs import DESIGNS, draw


def blobs(k: int = 3, n: int = 240, d: int = 8) -> np.ndarray:
    """(n, d): `k` round groups, far apart."""
    random = np.random.default_rng(0)
    return 20 * np.eye(k, d)[np.arange(n) % k] + random.normal(size=(n, d))


def audience(name: str, seed: int = 0) -> sp.csr_matrix:
    return draw(next(design for design in DESIGNS if design.name == name), seed).counts


def together(counts: sp.csr_matrix) -> np.ndarray:
    """(d, d): how many users visit both pages."""
    present = (counts > 0).astype(float)
    return np.asarray((present.T @ present).toarray())


# --- nulls


@pytest.mark.parametrize("name", ["4 segments, Pareto, bursts", "none, few people"])
def test_shuffling_keeps_each_users_counts_and_each_pages_users(name: str) -> None:
    counts = audience(name)
    shuffled = nulls.shuffled(counts, 1)
    for user in range(counts.shape[0]):
        assert sorted(counts[[user]].data) == sorted(shuffled[[user]].data)
    np.testing.assert_array_equal(np.diff(counts.tocsc().indptr), np.diff(shuffled.tocsc().indptr))
    assert shuffled.has_canonical_format
    assert (counts != shuffled).nnz > 0


def test_shuffling_parts_pages_that_were_liked_together() -> None:
    random = np.random.default_rng(0)
    counts = (random.random((600, 20)) < 0.15).astype(float)
    counts[:, 1] = counts[:, 0] = random.random(600) < 0.2
    counts = sp.csr_matrix(counts[counts.any(axis=1)])
    users = np.diff(counts.tocsc().indptr)
    assert together(counts)[0, 1] == users[0]
    found = np.mean([together(nulls.shuffled(counts, seed))[0, 1] for seed in range(20)])
    assert found == pytest.approx(users[0] * users[1] / counts.shape[0], rel=0.4)


def test_shuffling_leaves_as_much_together_as_chance_does() -> None:
    """A shuffled audience of 4 segments is as one that is shuffled a thousand times."""
    counts = audience("4 segments")
    before, after, long = (
        (together(each) ** 2).sum()
        for each in (counts, nulls.shuffled(counts, 0), nulls.shuffled(counts, 1, rounds=1000))
    )
    assert after == pytest.approx(long, rel=0.01)
    assert before > 1.1 * after


def test_shuffles_are_repeatable_and_differ_by_seed() -> None:
    counts = audience("none, few people")
    assert (nulls.shuffled(counts, 3) != nulls.shuffled(counts, 3)).nnz == 0
    assert (nulls.shuffled(counts, 3) != nulls.shuffled(counts, 4)).nnz > 0


# --- peers


@pytest.mark.parametrize("peer", peers.PEERS, ids=lambda peer: peer.name)
def test_peers_find_three_blobs(peer: peers.Peer) -> None:
    assert peer.choose(blobs(), 6, 0) == 3


@pytest.mark.parametrize("choose", [peers.prediction_strength, peers.gap])
def test_peers_that_can_say_one_do(choose) -> None:  # type: ignore[no-untyped-def]
    assert choose(np.random.default_rng(0).random((200, 2)), 4, 0) == 1


@pytest.mark.parametrize("peer", peers.PEERS, ids=lambda peer: peer.name)
@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_peers_do_with_few_users(peer: peers.Peer, n: int) -> None:
    counts = sp.csr_matrix(9 * np.eye(max(n, 1), 7)[:n])
    assert 1 <= peer.k(counts, 4, 0) <= max(n, 1)


# --- the yardstick


@pytest.mark.parametrize("name", ["4 segments", "3 segments, Pareto, few people", "tiny segments, Pareto"])
def test_em_recovers_a_planted_mixture(name: str) -> None:
    drawn = draw(next(design for design in DESIGNS if design.name == name), 0)
    busy = vectors.busy(drawn.counts)
    mixture = peers.multinomial_mixture(drawn.counts, drawn.k, 0)
    assert adjusted_rand_score(drawn.segment[busy], mixture.labels[busy]) > 0.95
    np.testing.assert_allclose(mixture.pages.sum(axis=1), 1)


def test_em_is_as_likely_as_from_the_truth() -> None:
    """Where bursts make other mixtures likelier than the true one, EM finds one of them."""
    drawn = draw(next(design for design in DESIGNS if design.name == "4 segments, Pareto, bursts"), 0)
    from_truth = peers._EM(drawn.counts, 1.0).run(np.eye(drawn.k)[drawn.segment])
    assert peers.multinomial_mixture(drawn.counts, drawn.k, 0).log_likelihood >= from_truth.log_likelihood - 1


# --- what is written


def test_distinctive_pages_are_those_of_the_segment() -> None:
    drawn = draw(next(design for design in DESIGNS if design.name == "4 segments"), 0)
    pages = [str(page) for page in range(drawn.counts.shape[1])]
    for segment, found in enumerate(real.distinctive(drawn.counts, drawn.segment, pages, top=8)):
        assert {int(page) for page in found} == set(range(20 + 8 * segment, 28 + 8 * segment))


def test_real_months_are_read(lastfm: Path) -> None:
    month = real.lastfm("2011-05", lastfm.parent)
    assert month.counts.shape == (1876, 1530)
    assert month.counts.max() == 352_698
    assert "Madonna" in month.pages


@pytest.fixture(scope="module")
def lastfm() -> Path:
    if not (real.DATA / "lastfm").exists():
        pytest.skip(f"{real.DATA} is not there")
    return real.DATA / "lastfm"


def test_the_page_has_a_table_of_each_part() -> None:
    wanted = [cases.Case("design", "3 segments, Pareto, few people", 0), cases.Case("design", "none, few people", 0)]
    rows = [cases.run(case) for case in wanted]
    page = report.page({"rows": rows, "seconds": 1.0, "seeds": 1})
    assert "| 3 segments, Pareto, few people | 3 |" in page
    assert "| none, few people | 1 |" in page
    assert "| exact k, structured designs | ≥ 85 % |" in page


def test_command_line_lists_its_options() -> None:
    from benchmarks.segments.__main__ import main

    shown = CliRunner().invoke(main, ["--help"])
    assert "--quick" in shown.output
