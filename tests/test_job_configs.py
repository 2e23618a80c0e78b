"""What jobs are given: it means the same as JSON, as a command line and as the parameters of `run`."""

import importlib
import inspect
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner
from dagster_pipes import PipesContext
from pydantic import ValidationError

from spark_jobs.__main__ import run
from spark_jobs.config import (
    ClusteringInputsConfig,
    EngineConfig,
    GroupedUsersConfig,
    KMeansConfig,
    KSelectionConfig,
    SegmentsConfig,
)
from spark_jobs.following.edits import Merge, PinK, Rename
from spark_jobs.job_configs import (
    JOBS,
    FollowSegments,
    GroupByUser,
    JobConfig,
    KMeans,
    MakeClusteringInputs,
    MakeReport,
    SelectK,
)
from spark_jobs.resources import ResourcesConfig

HOW: dict[str, Any] = {
    "engine": EngineConfig(engine="spark", spark_master="local[3]", strict_schema=False),
    "resources": ResourcesConfig(memory="2GB", cores=3),
}
CONFIGS = [
    GroupByUser(raw="r w", output="o", month="2024-01", config=GroupedUsersConfig(max_reject_ratio=0.5), **HOW),
    MakeClusteringInputs(
        grouped="g",
        output="{category}",
        category_files=("a.json", "b.json"),
        config=ClusteringInputsConfig(action_weights={"page_like": 2.5}, scaling="max"),
        **HOW,
    ),
    SelectK(inputs="i", output="o", config=KSelectionConfig(criterion="elbow", k_max=3), **HOW),
    KMeans(inputs="i", output="o", config=KMeansConfig(k=3, label="x"), **HOW),
    KMeans(inputs="i", output="o", k_selection="c", config=KMeansConfig(params="random,1,0.5"), **HOW),
    MakeReport(kmeans="c", output="o", k_selection="k", month="2024-01", category="a b", **HOW),
    MakeReport(kmeans="c", output="o", segments="s", month="2024-01", category="a b", **HOW),
    MakeReport(kmeans="c", output="o", inputs="i", grouped="g", month="2024-01", category="a b", **HOW),
    FollowSegments(clusters="c", inputs="i", output="o", month="2024-01", config=SegmentsConfig(seed=3), **HOW),
    FollowSegments(clusters="c", inputs="i", output="o", month="2024-01", previous="p", config=SegmentsConfig(), **HOW),
    FollowSegments(
        clusters="c",
        inputs="i",
        output="o",
        month="2024-01",
        edits=(Rename(segment=3, name="Käse", from_month="2024-01", by="a"), Merge(segments=(1, 2)), PinK(k=4)),
        config=SegmentsConfig(),
        **HOW,
    ),
]


class Listener(SimpleNamespace):
    """A Pipes context that keeps what is reported."""

    def __init__(self, *jobs: dict[str, Any]):
        super().__init__(extras={"jobs": list(jobs)}, log=SimpleNamespace(info=lambda _: None), heard=[])

    def report_custom_message(self, message: dict[str, Any]) -> None:
        self.heard.append(message)


def test_every_job_takes_the_fields_of_its_config() -> None:
    for name, model in JOBS.items():
        parameters = inspect.signature(importlib.import_module(f"spark_jobs.{name}").run).parameters
        assert set(parameters) == {*model.model_fields, "report"}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.module)
def test_a_config_is_the_same_over_json_and_over_a_command_line(
    config: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"spark_jobs.{config.module}")
    signature, given = inspect.signature(module.run), []
    monkeypatch.setattr(module, "run", lambda *args, **named: given.append(signature.bind(*args, **named).arguments))

    job = {"id": "j", "module": config.module, "config": json.loads(config.model_dump_json()), "needs": []}
    assert run(cast(PipesContext, Listener(job))) == 0
    assert CliRunner().invoke(module.main, config.arguments, catch_exceptions=False).exit_code == 0

    assert [{name: value for name, value in values.items() if name != "report"} for values in given] == [
        config.values()
    ] * 2


def test_kmeans_has_a_k_or_a_choice_of_one() -> None:
    with pytest.raises(ValidationError, match="neither a k nor a k_selection"):
        KMeans(inputs="i", output="o", config=KMeansConfig())
    refused = CliRunner().invoke(importlib.import_module("spark_jobs.kmeans").main, ["i", "o"])
    assert refused.exit_code == 2
    assert "Give --k, or with --k-selection an output of select_k." in refused.output


def test_a_job_that_is_not_known_fails_by_name_and_takes_those_with_it_that_need_it(tmp_path: Path) -> None:
    unknown = {"id": "a", "module": "no_such_job", "config": {}, "needs": []}
    known = {"id": "b", "module": "kmeans", "config": {"inputs": str(tmp_path)}, "needs": ["a"]}
    listener = Listener(unknown, known)
    assert run(cast(PipesContext, listener)) == 1
    assert [(message["event"], message["error"]) for message in listener.heard] == [
        ("failed", "there is no job no_such_job"),
        ("failed", "not run, because a failed"),
    ]
