"""Earlier attempts of a run: what one of them finished, and was killed before it was on record, is not made again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

import dagster as dg

from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.records import metadata
from audience_explorer_dagster.records.history import History, Record
from audience_explorer_dagster.store import Store
from spark_jobs import outputs
from spark_jobs.storage import join


@dataclass(frozen=True)
class Attempt:
    """A process of a run, by the name of the output folders that it makes."""

    run_id: str
    folder_name: str


def attempts_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> tuple[Attempt, list[Attempt]]:
    """A run's newest attempt, and those before it, the newest first.

    They are those of the run itself, if it was resumed, and of the runs that it repeats: Dagster's retries and
    re-executions. Each has folders of its own, for one that was given up may still be writing.
    """
    found: list[Attempt] = []
    run_id: str | None = run.run_id
    while run_id is not None:
        record = instance.get_run_record_by_id(run_id)
        if record is None:  # it was deleted
            break
        # It sorts by time, and names the run.
        name = f"{record.create_timestamp:%Y%m%dT%H%M%S}-{run_id[:8]}"
        resumed = instance.count_resume_run_attempts(run_id)
        found += [Attempt(run_id, f"{name}-{number}") for number in range(resumed, 0, -1)]
        found.append(Attempt(run_id, name))
        run_id = record.dagster_run.tags.get("dagster/parent_run_id")
    return found[0], found[1:]


class HistoryWithAttempts(History):
    """The records of an asset, and beyond them what earlier attempts of the run finished and did not record."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        store: Store,
        asset: str,
        partitions: Sequence[Partition],
        earlier: Sequence[Attempt],
    ):
        super().__init__(instance, store, asset, partitions)
        self._earlier = earlier

    def reusable(self, partition: Partition, fingerprint: str) -> Record | None:
        """The newest record with this fingerprint whose output is still there, or else an attempt's finished output."""
        finished = (self._finished(attempt, partition, fingerprint) for attempt in self._earlier)
        return super().reusable(partition, fingerprint) or next(filter(None, finished), None)

    def _finished(self, attempt: Attempt, partition: Partition, fingerprint: str) -> Record | None:
        folder = join(self.store.outputs(self.asset, partition), attempt.folder_name)
        if not outputs.is_whole(folder, self.asset):
            return None
        manifest = outputs.read_manifest(folder, self.asset)
        if manifest["fingerprint"] != fingerprint:
            return None
        return Record(
            partition,
            fingerprint,
            folder,
            tuple(manifest["inputs"]),
            attempt.run_id,
            datetime.fromisoformat(manifest["created_at"]).astimezone(timezone.utc),
            metadata.of_computed(self.asset, folder, self.store, manifest, {}),
        )
