"""What is compared: this project and its peers, each as the command lines of its steps."""

import importlib.util
import json
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dagster_pipes import (
    DAGSTER_PIPES_CONTEXT_ENV_VAR,
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
    PipesDefaultContextLoader,
    PipesDefaultMessageWriter,
    encode_param,
)

from benchmarks.actions import MONTH
from spark_jobs.config import ClusteringInputsConfig, GroupedUsersConfig, KMeansConfig
from spark_jobs.job_configs import GroupByUser, JobConfig, KMeans, MakeClusteringInputs

Command = list[str]

OURS = "ours"
# As the peers do, so that outputs can be compared.
_SCALING = "max"
_FIT_MIN_ACTIONS = 1


class Contender(ABC):
    """The commands of each step, to be run one after another; `memory` is in bytes, for all processes of a command."""

    name: str

    @abstractmethod
    def missing(self) -> str | None:
        """What it needs and is not installed, if anything."""

    @abstractmethod
    def group(self, raw: Path, out: Path, memory: int) -> list[Command]:
        """Raw actions to grouped users."""

    @abstractmethod
    def inputs(self, users: Path, out: Path, categories: Sequence[Path], memory: int) -> list[Command]:
        """Grouped users to `out/CATEGORY` for each category."""

    @abstractmethod
    def kmeans(self, inputs: Path, out: Path, k: int, memory: int) -> list[Command]:
        """A category's inputs to clusters."""

    @abstractmethod
    def month(self, raw: Path, out: Path, categories: Sequence[Path], k: int, memory: int) -> list[Command]:
        """All of it, to `out/users`, `out/inputs/CATEGORY` and `out/kmeans/CATEGORY`."""


class Ours(Contender):
    """This project's jobs, on the local engine; how much memory they may take they find out by themselves."""

    name = OURS

    def missing(self) -> str | None:
        return None

    def group(self, raw: Path, out: Path, memory: int) -> list[Command]:  # noqa: ARG002
        return [_job("group_by_user", raw, out)]

    def inputs(self, users: Path, out: Path, categories: Sequence[Path], memory: int) -> list[Command]:  # noqa: ARG002
        files = _category_options(categories)
        return [_job("make_clustering_inputs", users, out / "{category}", *files, "--scaling", _SCALING)]

    def kmeans(self, inputs: Path, out: Path, k: int, memory: int) -> list[Command]:  # noqa: ARG002
        return [_job("kmeans", inputs, out, "--k", k, "--fit-min-actions", _FIT_MIN_ACTIONS)]

    def month(self, raw: Path, out: Path, categories: Sequence[Path], k: int, memory: int) -> list[Command]:  # noqa: ARG002
        """One launch, as Dagster's local launcher makes it."""
        users = str(out / "users")
        grouping = GroupByUser(raw=str(raw), output=users, month=MONTH, config=GroupedUsersConfig())
        inputs = MakeClusteringInputs(
            grouped=users,
            output=str(out / "inputs" / "{category}"),
            category_files=tuple(map(str, categories)),
            config=ClusteringInputsConfig(scaling=_SCALING),
        )
        jobs = [_launched("users", grouping), _launched("inputs", inputs, needs=["users"])]
        for name in (category.stem for category in categories):
            clusters = KMeans(
                inputs=str(out / "inputs" / name),
                output=str(out / "kmeans" / name),
                config=KMeansConfig(k=k, fit_min_actions=_FIT_MIN_ACTIONS),
            )
            jobs.append(_launched(f"kmeans {name}", clusters, needs=["inputs"]))
        out.mkdir(parents=True, exist_ok=True)
        context, messages = out / "context.json", out / "messages.jsonl"
        unset = ["asset_keys", "code_version_by_asset_key", "provenance_by_asset_key", "partition_key"]
        unset += ["partition_key_range", "partition_time_window"]
        run = {"run_id": "benchmark", "job_name": None, "retry_number": 0, "extras": {"jobs": jobs}}
        context.write_text(json.dumps({**dict.fromkeys(unset), **run}))
        messages.touch()
        pipes = {
            DAGSTER_PIPES_CONTEXT_ENV_VAR: encode_param({PipesDefaultContextLoader.FILE_PATH_KEY: str(context)}),
            DAGSTER_PIPES_MESSAGES_ENV_VAR: encode_param({PipesDefaultMessageWriter.FILE_PATH_KEY: str(messages)}),
        }
        return [["env", *(f"{name}={value}" for name, value in pipes.items()), sys.executable, "-m", "spark_jobs"]]


class OursSingly(Ours):
    """This project's jobs, with one run a category where one could do for all."""

    name = "ours, a run a category"

    def inputs(self, users: Path, out: Path, categories: Sequence[Path], memory: int) -> list[Command]:
        return [command for one in categories for command in super(OursSingly, self).inputs(users, out, [one], memory)]


@dataclass(frozen=True)
class Peer(Contender):
    """A module of `benchmarks.peers`."""

    name: str
    module: str
    needs: tuple[str, ...]  # modules, of which the extra `bench` or `spark` has the package
    kmeans_options: tuple[str, ...] = ()

    def missing(self) -> str | None:
        for need in self.needs:
            if importlib.util.find_spec(need) is None:
                return f"the Python module {need}"
        return "Java" if self.module == "spark_mllib" and shutil.which("java") is None else None

    def group(self, raw: Path, out: Path, memory: int) -> list[Command]:
        return [self._command(memory, out, "group", raw, out, "--month", MONTH)]

    def inputs(self, users: Path, out: Path, categories: Sequence[Path], memory: int) -> list[Command]:
        return [self._command(memory, out, "inputs", users, out, *categories)]

    def kmeans(self, inputs: Path, out: Path, k: int, memory: int) -> list[Command]:
        return [self._command(memory, out, "kmeans", inputs, out, "--k", k, *self.kmeans_options)]

    def month(self, raw: Path, out: Path, categories: Sequence[Path], k: int, memory: int) -> list[Command]:
        return [self._command(memory, out, "month", raw, out, *categories, "--k", k, "--month", MONTH)]

    def _command(self, memory: int, out: Path, *arguments: object) -> Command:
        options = ["--memory", memory, "--scratch", out.with_name(f"{out.name}-scratch")]
        return list(map(str, [sys.executable, "-m", f"benchmarks.peers.{self.module}", *options, *arguments]))


SPARK = Peer("Spark and MLlib", "spark_mllib", ("pyspark.java_gateway",))
DUCKDB = Peer("DuckDB and scikit-learn", "duckdb_sklearn", ("duckdb",))
POLARS = Peer("Polars and scikit-learn", "polars_sklearn", ("polars",))
# Both of them hand the same to scikit-learn, so for k-means alone it is one contender, or two by what it is handed.
SKLEARN_USERS = Peer("scikit-learn, one row a user", "duckdb_sklearn", ("duckdb",), ("--one-row-a-user",))
SKLEARN_PROFILES = Peer("scikit-learn, weighted profiles", "duckdb_sklearn", ("duckdb",), ("--profiles",))


def _job(module: str, *arguments: object) -> Command:
    return [sys.executable, "-m", f"spark_jobs.{module}", *map(str, arguments)]


def _launched(job: str, config: JobConfig, needs: Sequence[str] = ()) -> dict[str, object]:
    return {"id": job, "module": config.module, "config": config.model_dump(mode="json"), "needs": list(needs)}


def _category_options(files: Sequence[Path]) -> list[str]:
    return [option for file in files for option in ("--category", str(file))]
