"""The deployment's own parameters: one file, which is the default of every run, however it is started."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from audience_explorer_dagster import deployment
from audience_explorer_dagster.run_config import MonthRunConfig, SegmentsRunConfig
from spark_jobs.errors import InputError

FILE = """
categories: [tea]
resources: {cores: 1}
clustering_inputs: {action_weights: {page_like: 2}}
kmeans: {k: 3, params: "random,9,0.1"}
"""

# The defaults are set when the project is loaded, so that is done in a process of its own.
ASK = """
import json, dagster as dg
from audience_explorer_dagster.assets import segments, whole_month
from audience_explorer_dagster.run_config import MonthRunConfig, SegmentsRunConfig

def resolved(**given):
    return dg.validate_run_config(whole_month, {"ops": {"month": {"config": given}}})["ops"]["month"]["config"]

print(json.dumps({
    "month": MonthRunConfig().model_dump(),
    "with a label": MonthRunConfig(kmeans={"label": "x"}).kmeans.model_dump(),
    "k chosen": MonthRunConfig(kmeans={"k": None}).kmeans.model_dump(),
    "segments": SegmentsRunConfig().model_dump(),
    "backfill": dg.validate_run_config(whole_month)["ops"]["month"]["config"],
    "launchpad": resolved(kmeans={"k": 5}),
}))
"""


def test_every_run_has_the_deployments_parameters_and_what_is_given_wins(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(FILE)
    environment = {**os.environ, "AUDIENCE_EXPLORER_RUN_CONFIG": str(file)}
    asked = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr
    said = json.loads(asked.stdout)
    for who in ("month", "segments", "backfill"):
        assert (said[who]["kmeans"]["k"], said[who]["kmeans"]["params"]) == (3, "random,9,0.1"), who
        assert said[who]["clustering_inputs"]["action_weights"]["page_like"] == 2, who
        assert said[who]["resources"]["cores"] == 1, who
    assert said["month"]["categories"] == said["backfill"]["categories"] == ["tea"]
    assert (said["with a label"]["k"], said["with a label"]["label"]) == (3, "x")
    assert (said["k chosen"]["k"], said["k chosen"]["params"]) == (None, "random,9,0.1")
    assert (said["launchpad"]["kmeans"]["k"], said["launchpad"]["kmeans"]["params"]) == (5, "random,9,0.1")


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"kmean": {"k": 3}}, "kmean: there is no such parameter"),
        ({"kmeans": {"k": -1}}, "kmeans.k: Input should be greater than"),
        ({"kmeans": {"kk": 3}}, "kmeans.kk: Extra inputs are not permitted"),
        ({"kmeans": 3}, "kmeans: Input should be a valid dictionary"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_and_changes_nothing(own: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=f"AUDIENCE_EXPLORER_RUN_CONFIG: .*{says}"):
        deployment.set_defaults((SegmentsRunConfig, MonthRunConfig), own)
    assert MonthRunConfig().kmeans.k is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kmeans: {k: 3}\nkmeans: {label: x}\n", "the key 'kmeans' is there twice"),
        ("kmeans: {k: 3, k: 4}", "the key 'k' is there twice"),
        ("[" * 1_000, "it is nested deeper than 100 levels"),
        ("kmeans: !!python/name:os.system", "could not determine a constructor"),
        ("kmeans: [", "expected the node content"),
        ("- kmeans", "holds no mapping"),
    ],
)
def test_a_file_that_cannot_be_understood_is_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, says: str
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    monkeypatch.setenv("AUDIENCE_EXPLORER_RUN_CONFIG", str(file))
    with pytest.raises(InputError, match=rf"^AUDIENCE_EXPLORER_RUN_CONFIG: {file} .*{says}") as refused:
        deployment.read_own_config()
    assert "\n" not in str(refused.value)
