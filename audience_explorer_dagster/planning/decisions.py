"""What is decided of a target: to reuse an output, to compute one, or that neither is possible, and why."""

from dataclasses import dataclass

from audience_explorer_dagster.planning.targets import Target
from audience_explorer_dagster.records.history import Record
from spark_jobs.job_configs import JobConfig


@dataclass(frozen=True)
class Source:
    """What a step reads: a target's output, which is there, or which a job of the plan makes before."""

    target: Target
    fingerprint: str
    folder: str | None  # None: it is on record, and gone


@dataclass(frozen=True)
class Reuse:
    """An output that is there is what was asked for."""

    record: Record

    @property
    def fingerprint(self) -> str:
        """That of the output."""
        return self.record.fingerprint

    @property
    def folder(self) -> str:
        """Where the output is."""
        return self.record.folder


@dataclass(frozen=True)
class Compute:
    """A job makes the output."""

    fingerprint: str
    folder: str
    why: str  # it can't be reused, such as `k 12 → 13`
    sources: tuple[Source, ...]  # the outputs that the job reads
    config: JobConfig


@dataclass(frozen=True)
class Impossible:
    """There is no output, and none can be made."""

    why: str


Decision = Reuse | Compute | Impossible
