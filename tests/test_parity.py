"""Both engines write what the contract says, whatever Hypothesis makes up; without Java, the local one does."""

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from spark_jobs.config import (
    ACTIONS,
    DEFAULT_SCALING,
    FIT_MIN_ACTIONS,
    ClusteringInputsConfig,
    KMeansConfig,
    KSelectionConfig,
)
from spark_jobs.errors import InputError
from tests.conftest import Engine
from tests.generated import Month, Population, audiences, months, populations, scalings, spread
from tests.parity import Tweak, assert_clustered_alike, assert_grouped_alike, assert_same_bytes
from tests.reference import User

# The same examples each time. A failing one is not made smaller, for each trial takes a second: its files are kept.
FIXED = settings(
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)

_RATIOS = st.sampled_from([1, 1, 0.2, 0.01])
_BYTES_A_FILE = st.sampled_from([1 << 26, 2000, 500])


@settings(FIXED, max_examples=40)
@given(months(), _RATIOS, _BYTES_A_FILE)
def test_the_local_engine_groups_users_as_the_contract_says(
    local: Engine, tmp_path_factory: pytest.TempPathFactory, month: Month, ratio: float, bytes_a_file: int
) -> None:
    folder = tmp_path_factory.mktemp("month")
    assert_grouped_alike([local], month, folder, max_reject_ratio=ratio, bytes_a_file=bytes_a_file)


@settings(FIXED, max_examples=8)
@given(months())
def test_the_number_of_cores_changes_no_byte(
    local: Engine, tmp_path_factory: pytest.TempPathFactory, month: Month
) -> None:
    folder = tmp_path_factory.mktemp("month")
    raw = month.write(folder)
    for cores in (1, 3):
        output, patch = folder / str(cores), {"users.shuffle._RAW_BYTES_A_FILE": 1000, "engines.local.SMALL": 0}
        local.run("group_by_user", raw, output, "--max-reject-ratio", 1, "--cores", cores, patch=patch)
    assert_same_bytes([folder / str(cores) for cores in (1, 3)])


@pytest.mark.spark
@settings(FIXED, max_examples=8)
@given(months(), _RATIOS, _BYTES_A_FILE)
def test_both_engines_group_the_same_users(
    local: Engine,
    spark: Engine,
    tmp_path_factory: pytest.TempPathFactory,
    month: Month,
    ratio: float,
    bytes_a_file: int,
) -> None:
    folder = tmp_path_factory.mktemp("month")
    assert_grouped_alike([local, spark], month, folder, max_reject_ratio=ratio, bytes_a_file=bytes_a_file)


def cluster(engines: Sequence[Engine], population: Population, folder: Path, tweak: Tweak) -> None:
    grouped, categories = population.write(folder)
    assert_clustered_alike(
        engines,
        population.users,
        [grouped] * len(engines),
        categories,
        folder,
        tweak,
        well_conditioned=population.well_conditioned and max(tweak.inputs.action_weights.values()) <= 1,
    )


TWEAKS = st.builds(
    Tweak,
    st.builds(
        ClusteringInputsConfig,
        scaling=st.one_of(scalings(), st.sampled_from(["max", "none", "log1p", "l2", "tfidf", DEFAULT_SCALING])),
        min_actions=st.sampled_from([1, 1, 2, 3, 5, 2**62]),
        action_weights=st.fixed_dictionaries(dict.fromkeys(ACTIONS, st.sampled_from([1.0, 0.0, 0.1, 0.5, 1e6]))),
    ),
    st.builds(
        KSelectionConfig,
        criterion=st.sampled_from(["prediction", "prediction", "silhouette", "calinski_harabasz", "elbow"]),
        k_max=st.sampled_from([6, 6, 4, 1]),
        min_segment=st.sampled_from([10, 10, 10, 1, 40]),
        min_segment_share=st.sampled_from([0.02, 0.02, 0, 0.2]),
        fit_min_actions=st.sampled_from([FIT_MIN_ACTIONS, FIT_MIN_ACTIONS, 1, 8]),
        n_init=st.integers(1, 2),
        seed=st.sampled_from([0, 2**32 - 1]),
    ),
    st.builds(
        KMeansConfig,
        k=st.sampled_from([None, 1, 2, 4, 100]),
        params=st.sampled_from(["kmeans||,100,0.001", "random,20,0", "k-means++,1,0.5"]),
        n_init=st.integers(1, 3),
        seed=st.sampled_from([0, 1, 2**32 - 1]),
        fit_min_actions=st.sampled_from([FIT_MIN_ACTIONS, FIT_MIN_ACTIONS, 1, 8, 2**62]),
        label=st.sampled_from([None, "x"]),
    ),
)


@settings(FIXED, max_examples=30)
@given(populations(), TWEAKS)
def test_the_local_engine_clusters_as_the_contract_says(
    local: Engine, tmp_path_factory: pytest.TempPathFactory, population: Population, tweak: Tweak
) -> None:
    cluster([local], population, tmp_path_factory.mktemp("population"), tweak)


@settings(FIXED, max_examples=7)
@given(audiences(), TWEAKS)
def test_the_local_engine_finds_segments_as_the_contract_says(
    local: Engine, tmp_path_factory: pytest.TempPathFactory, population: Population, tweak: Tweak
) -> None:
    cluster([local], population, tmp_path_factory.mktemp("audience"), tweak)


@pytest.mark.spark
@settings(FIXED, max_examples=8)
@given(st.one_of(populations(), audiences()), TWEAKS)
def test_both_engines_cluster_alike(
    local: Engine, spark: Engine, tmp_path_factory: pytest.TempPathFactory, population: Population, tweak: Tweak
) -> None:
    cluster([local, spark], population, tmp_path_factory.mktemp("population"), tweak)


# --- at the edges of floats and of 64 bits ---------------------------------------------------------


def inputs_of(engine: Engine, population: Population, folder: Path, **config: Any) -> Path:
    """The clustering inputs of a population's one category, which are those of the reference."""
    grouped, categories = population.write(folder)
    tweak = Tweak(ClusteringInputsConfig(**config), KSelectionConfig(), KMeansConfig(k=2, n_init=1))
    assert_clustered_alike([engine], population.users, [grouped], categories, folder, tweak, well_conditioned=False)
    return folder / engine.name / "x" / "inputs"


def on_page(**counts: int) -> User:
    return User("0", {"p": {**dict.fromkeys(ACTIONS, 0), **counts}})


def test_inputs_are_the_same_bytes_however_users_are_spread_over_files(local: Engine, tmp_path: Path) -> None:
    random, weights = Random(0), dict(zip(ACTIONS, (0.1, 0.2, 0.3, 0.7), strict=True))
    counts = [{action: random.randint(0, 1000) for action in ACTIONS} for _ in range(60)]
    # Everyone has a twin, who did the same, and shares the profile.
    users = {f"{twin}{number}": on_page(**of_user) for twin in "ab" for number, of_user in enumerate(counts)}
    one, other = (
        inputs_of(local, spread(users, parts, ["p"]), tmp_path / str(parts), scaling="max", action_weights=weights)
        for parts in (1, 5)
    )
    assert_same_bytes([one, other])
    assert pq.read_table(one / "profiles.parquet")["weight"].to_pylist() == [2] * 60


@pytest.mark.parametrize("count", [2**50, 2**52 + 1, 2**53, 2**63 - 1])
def test_scaling_max_stays_below_1_for_the_largest_counts(local: Engine, tmp_path: Path, count: int) -> None:
    users = {"a": on_page(page_like=count), "b": on_page(page_like=1)}
    inputs = inputs_of(local, spread(users, 1, ["p"]), tmp_path, scaling="max")
    values = pq.read_table(inputs / "profiles.parquet")["values"]
    assert max(value for of_profile in values.to_pylist() for value in of_profile) < 1


def test_min_actions_counts_beyond_64_bits(local: Engine, tmp_path: Path) -> None:
    users = {"a": on_page(page_like=2**62, page_comment=2**62), "b": on_page(page_like=1)}
    inputs = inputs_of(local, spread(users, 1, ["p"]), tmp_path, min_actions=2)
    members = pq.read_table(inputs / "members.parquet")
    assert (members["user_id"].to_pylist(), members["actions"].to_pylist()) == (["a"], [2**63 - 1])


def test_scaling_l2_works_for_the_smallest_weights(local: Engine, tmp_path: Path) -> None:
    weights = dict.fromkeys(ACTIONS, 1e-6)
    inputs = inputs_of(
        local, spread({"a": on_page(page_like=3)}, 1, ["p"]), tmp_path, scaling="l2", action_weights=weights
    )
    assert pq.read_table(inputs / "profiles.parquet")["values"].to_pylist() == [[1.0]]


@pytest.mark.parametrize("users", ["aaa", "abc"])
def test_counts_beyond_64_bits_are_told_by_both_engines(tmp_path: Path, engine: Engine, users: str) -> None:
    row = {"page_id": "p", "action": "page_like", "count": 2**62}
    (tmp_path / "month=2024-01").mkdir()
    text = "".join(json.dumps({"user_id": user, **row}) + "\n" for user in users)
    (tmp_path / "month=2024-01" / "a.jsonl").write_text(text)
    with pytest.raises(InputError, match="add up to 13,835,058,055,282,163,712, more than 64 bits hold"):
        engine.run("group_by_user", tmp_path / "month=2024-01", tmp_path / "out", "--strict-schema", "false")
