"""The project on made-up data, with a launcher that runs the real jobs in this process and counts its launches."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import dagster as dg
from dagster._core.event_api import PartitionKeyFilter
from dagster_pipes import PipesContext

from audience_explorer_dagster.assets import MONTH_OP, SEGMENTS_OP, WHOLE_MONTH_JOB
from audience_explorer_dagster.categories.known import sync_categories
from audience_explorer_dagster.definitions import definitions
from audience_explorer_dagster.launchers import Job, Launcher, Report, pipes_context
from audience_explorer_dagster.planning import GROUPED_USERS
from audience_explorer_dagster.records.asset_checks import specs
from audience_explorer_dagster.run_config import MonthRunConfig
from audience_explorer_dagster.running.pipeline import Outcome, run_pipeline
from audience_explorer_dagster.store import Store
from spark_jobs.__main__ import run

LAUNCHES: list[list[str]] = []


class InProcessLauncher(Launcher):
    """Runs the jobs in this process, all of them before the first report is handed over."""

    def launch(self, context: dg.OpExecutionContext, jobs: Sequence[Job]) -> Iterator[Report]:
        LAUNCHES.append([job.id for job in jobs])
        messages: list[dict[str, Any]] = []
        pipes = SimpleNamespace(
            extras=pipes_context(context, jobs)["extras"],
            log=context.log,
            report_custom_message=lambda message: messages.append(json.loads(json.dumps(message))),
        )
        run(cast(PipesContext, pipes))
        yield from (Report(**message) for message in messages)


class Project:
    """A root with two months and three categories, and an instance that has not seen them."""

    months = ("2024-01", "2024-02")
    categories = ("coffee", "games", "tea")

    def __init__(self, root: Path, instance: dg.DagsterInstance):
        self.root = root
        self.instance = instance
        self.store = Store(root=str(root))
        self.definitions = definitions(str(root), InProcessLauncher())
        for month in self.months:
            self.write_raw(month)
        for category in self.categories:
            self.write_category(category, f"{category}-1", f"{category}-2")
        sync_categories(instance, self.store)
        LAUNCHES.clear()

    def write_raw(self, month: str, users: int = 12) -> None:
        folder = self.root / "raw" / f"month={month}"
        folder.mkdir(parents=True, exist_ok=True)
        rows = [
            {"user_id": f"u{n}", "page_id": f"{c}-{1 + (n + place) % 2}", "action": "page_like", "count": 1 + n % 3}
            for n in range(users)
            for place, c in enumerate(self.categories)
        ]
        (folder / "actions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def write_category(self, name: str, *pages: str) -> None:
        file = self.root / "categories" / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"id": 1, "facebook": [{"id": page, "name": page} for page in pages]}))

    def pipeline(
        self,
        months: Sequence[str] = months,
        categories: Sequence[str] = categories,
        **config: Any,
    ) -> dict[str, Outcome]:
        """Run the pipeline; the outcomes by asset and partition."""
        LAUNCHES.clear()
        outcomes = run_pipeline(
            self.definitions,
            self.instance,
            months,
            categories,
            MonthRunConfig(**config),
            lambda _: None,
        )
        return {f"{outcome.asset} {outcome.partition}": outcome for outcome in outcomes}

    def run(
        self, assets: Sequence[str], start: str, end: str, config: dict[str, Any] | None = None
    ) -> dg.ExecuteInProcessResult:
        """Materialize assets over a range of partitions, as the UI and the dagster CLI do."""
        LAUNCHES.clear()
        op = GROUPED_USERS if GROUPED_USERS in assets else SEGMENTS_OP
        return self.definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey(asset) for asset in assets],
            tags={"dagster/asset_partition_range_start": start, "dagster/asset_partition_range_end": end},
            run_config={"ops": {op: {"config": config or {}}}},
            raise_on_error=False,
        )

    def run_month(self, month: str, tags: dict[str, str] | None = None, **config: Any) -> dg.ExecuteInProcessResult:
        """Run the job of a whole month, as the sensor, the schedule and a backfill do."""
        LAUNCHES.clear()
        return self.definitions.resolve_job_def(WHOLE_MONTH_JOB).execute_in_process(
            instance=self.instance,
            tags={"dagster/partition": month, **(tags or {})},
            run_config={"ops": {MONTH_OP: {"config": config}}},
            raise_on_error=False,
        )

    def checks(self, asset: str, partition: str) -> dict[str, dg.AssetCheckEvaluation]:
        """The newest evaluation of each check of a partition of an asset."""
        found = {}
        of_partition = PartitionKeyFilter(key=partition)
        for spec in specs(asset):
            (execution,) = self.instance.event_log_storage.get_asset_check_execution_history(
                spec.key, limit=1, partition_filter=of_partition
            )
            assert execution.event is not None
            assert execution.event.dagster_event is not None
            found[spec.name] = execution.event.dagster_event.asset_check_evaluation_data
        return found

    def records(self, asset: str, partition: str) -> list[dict[str, Any]]:
        """The metadata of an asset's records of a partition, the newest first."""
        wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[partition])
        found = self.instance.fetch_materializations(wanted, limit=100).records
        return [
            {name: value.value for name, value in record.asset_materialization.metadata.items()}
            for record in found
            if record.asset_materialization is not None
        ]

    def delete(self, folder: str | None) -> None:
        assert folder is not None
        assert Path(folder).is_relative_to(self.root)
        shutil.rmtree(folder)


def why(result: dg.ExecuteInProcessResult) -> str:
    """What a failed run says of its failure."""
    failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    assert failures
    error = failures[0].error
    assert error is not None
    return f"{error.message} {error.cause.message if error.cause else ''}"
