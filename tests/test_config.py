"""Config: what is not allowed is refused with what is, and a config survives the way through a command line."""

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from spark_jobs.config import (
    ACTIONS,
    ClusteringInputsConfig,
    EngineConfig,
    GroupedUsersConfig,
    KMeansConfig,
    KSelectionConfig,
    parse_params,
)
from spark_jobs.errors import InputError
from spark_jobs.options import config_options, to_arguments
from tests.generated import scalings


@pytest.mark.parametrize("init", ["kmeans||", "k-means||", "k-means++"])
def test_params_that_mean_the_same_are_the_same(init: str) -> None:
    assert KMeansConfig(params=f"{init}, 100,1e-3").params == "kmeans||,100,0.001"


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ("kmeans||,100", "INIT,ITERATIONS,EPSILON"),
        ("kmeans,100,0.1", r"allowed are kmeans\|\|"),
        ("random,0,0.1", "at least 1"),
        ("random,1.5,0.1", "not of the form"),
        ("random,10,-1", "at least 0"),
        ("random,10,nan", "at least 0"),
        ("random,10,inf", "at least 0"),
    ],
)
def test_params_that_make_no_sense_are_refused_with_what_is_allowed(params: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_params(params)


@pytest.mark.parametrize(("given", "canonical"), [("log1p, l2", "log1p,l2"), (" tfidf", "tfidf"), ("max", "max")])
def test_scalings_that_mean_the_same_are_the_same(given: str, canonical: str) -> None:
    assert ClusteringInputsConfig(scaling=given).scaling == canonical


def test_a_label_decides_nothing() -> None:
    assert KMeansConfig(label="a").fingerprinted() == KMeansConfig(label="b").fingerprinted()


def test_weights_that_are_not_given_are_one() -> None:
    assert ClusteringInputsConfig(action_weights={"page_like": 2}).action_weights == {
        **dict.fromkeys(ACTIONS, 1.0),
        "page_like": 2.0,
    }


@pytest.mark.parametrize(
    ("model", "values", "says"),
    [
        (ClusteringInputsConfig, {"action_weights": {"poke": 1}}, "allowed are page_like"),
        (ClusteringInputsConfig, {"action_weights": {"page_like": -1}}, "it must be 0, or from 1e-6"),
        (ClusteringInputsConfig, {"action_weights": {"page_like": 1e308}}, "to 1e6"),
        (ClusteringInputsConfig, {"action_weights": {"page_like": 1e-200}}, "from 1e-6"),
        (ClusteringInputsConfig, {"scaling": "min"}, "'min' is not a step of scaling; allowed are max, none, log1p"),
        (ClusteringInputsConfig, {"min_actions": 0}, "greater than or equal to 1"),
        (KSelectionConfig, {"k_min": 2}, "not permitted"),
        (KSelectionConfig, {"k_max": 0}, "greater than or equal to 1"),
        (KSelectionConfig, {"k_max": 10**9}, "less than or equal to 200"),
        (KSelectionConfig, {"n_init": 10**8}, "less than or equal to 100000"),
        (KMeansConfig, {"n_init": 10**8}, "less than or equal to 100000"),
        (KSelectionConfig, {"min_segment": 0}, "greater than or equal to 1"),
        (KSelectionConfig, {"min_segment_share": 0.51}, "less than or equal to 0.5"),
        (KSelectionConfig, {"fit_min_actions": 0}, "greater than or equal to 1"),
        (KSelectionConfig, {"criterion": "gap"}, "'prediction', 'silhouette', 'calinski_harabasz' or 'elbow'"),
        (KMeansConfig, {"fit_min_actions": 0}, "greater than or equal to 1"),
        (KMeansConfig, {"k": 0}, "greater than or equal to 1"),
        (KMeansConfig, {"seed": 2**32}, "less than"),
        (KMeansConfig, {"label": "a/b"}, "letters, digits"),
        (KMeansConfig, {"n_inits": 3}, "not permitted"),
        (GroupedUsersConfig, {"max_reject_ratio": 2}, "less than or equal to 1"),
        (EngineConfig, {"engine": "duck"}, "'local' or 'spark'"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(model: type, values: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        model(**values)


kmeans_configs = st.builds(
    KMeansConfig,
    k=st.none() | st.integers(1, 99),
    params=st.sampled_from(["random,3,0.5", "kmeans||,7,1e-9"]),
    n_init=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
    fit_min_actions=st.integers(1, 99),
    label=st.none() | st.just("x-1"),
)
selection_configs = st.builds(
    KSelectionConfig,
    criterion=st.sampled_from(["prediction", "silhouette", "calinski_harabasz", "elbow"]),
    k_max=st.integers(1, 200),
    min_segment=st.integers(1, 99),
    min_segment_share=st.floats(0, 0.5),
    fit_min_actions=st.integers(1, 99),
    n_init=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
)
inputs_configs = st.builds(
    ClusteringInputsConfig,
    action_weights=st.dictionaries(st.sampled_from(ACTIONS), st.one_of(st.just(0.0), st.floats(1e-6, 1e6))),
    min_actions=st.integers(1, 9),
    scaling=scalings(),
)


engine_configs = st.builds(
    EngineConfig,
    engine=st.sampled_from(["local", "spark"]),
    spark_master=st.just("local[2]"),
    strict_schema=st.booleans(),
)


@given(st.one_of(kmeans_configs, selection_configs, inputs_configs, engine_configs))
def test_a_config_survives_the_way_through_a_command_line(
    config: KMeansConfig | KSelectionConfig | ClusteringInputsConfig | EngineConfig,
) -> None:
    got = []

    @click.command()
    @config_options(type(config))
    def command(config: object) -> None:
        got.append(config)

    result = CliRunner().invoke(command, to_arguments(config), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert got == [config]


@pytest.mark.parametrize(("setting", "strict"), [(None, False), ("", False), ("0", False), ("1", True)])
def test_strict_schemas_are_a_setting_and_go_with_the_jobs_to_wherever_they_run(
    monkeypatch: pytest.MonkeyPatch, setting: str | None, strict: bool
) -> None:
    monkeypatch.delenv("AUDIENCE_EXPLORER_STRICT_SCHEMA")
    if setting is not None:
        monkeypatch.setenv("AUDIENCE_EXPLORER_STRICT_SCHEMA", setting)
    assert to_arguments(EngineConfig())[-2:] == ["--strict-schema", str(strict)]


def test_the_engine_of_runs_that_name_none_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    from audience_explorer_dagster.run_config import RunConfig

    for setting, engine in (("", "local"), ("spark", "spark")):
        monkeypatch.setenv("AUDIENCE_EXPLORER_ENGINE", setting)
        assert RunConfig().engine_config.engine == engine
    assert RunConfig(engine="spark").engine_config.engine == "spark"
    monkeypatch.setenv("AUDIENCE_EXPLORER_ENGINE", "flink")
    with pytest.raises(InputError, match="AUDIENCE_EXPLORER_ENGINE is 'flink'; it must be one of local, spark"):
        EngineConfig()
    refused = CliRunner().invoke(click.command()(config_options(EngineConfig)(lambda **_: None)))
    assert refused.output.startswith("Error: AUDIENCE_EXPLORER_ENGINE is 'flink'")


def test_a_run_hands_its_engine_config_to_the_jobs_as_it_is() -> None:
    from audience_explorer_dagster.run_config import RunConfig

    given = EngineConfig(engine="spark", spark_master="local[3]", strict_schema=False)
    assert RunConfig(**given.model_dump()).engine_config == given
    assert RunConfig().engine_config.strict_schema
