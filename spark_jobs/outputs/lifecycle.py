"""The life of an output folder: started, written, inspected, finished. It is complete or absent, and written once."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from spark_jobs import storage
from spark_jobs.config import StepConfig
from spark_jobs.errors import DamagedOutput, InputError, NewerVersion, OutputExists
from spark_jobs.outputs.claims import MARKER, claimed
from spark_jobs.outputs.manifest import Manifest, new_manifest, read_manifest

if TYPE_CHECKING:
    import pyarrow as pa

    from spark_jobs.outputs.checks import CheckResult
    from spark_jobs.reporting import Reporter


@dataclass(frozen=True)
class _Content:
    """What `Output.complete` is given."""

    rows: Mapping[str, int]
    summary: Mapping[str, Any]
    inspect: Callable[[], "Mapping[str, CheckResult]"]
    message: str


class Output:
    """An output folder in the body of `writing`."""

    def __init__(self, folder: str, finished: bool):
        self.folder = folder
        self.finished = finished  # it was made before: there is nothing to do
        self._content: _Content | None = None

    def write_table(self, name: str, table: "pa.Table") -> None:
        """Write a Parquet table. The same table gives the same bytes."""
        from spark_jobs.outputs.tables import write_table

        write_table(self.folder, name, table)

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON value, indented for people."""
        storage.write_text(storage.join(self.folder, name), json.dumps(value, indent=1) + "\n")

    def open_file(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open a file for writing, with the folders above it made; see `storage.new_file`."""
        return storage.new_file(storage.join(self.folder, name))

    def complete(
        self,
        *,
        rows: Mapping[str, int],
        summary: Mapping[str, Any],
        inspect: "Callable[[], Mapping[str, CheckResult]]" = dict,
        message: str = "",
    ) -> None:
        """Say what was written, once everything is.

        Args:
            rows: Rows by table.
            summary: What people want to know of it: counts, scores. `bytes_out` and `seconds` are added.
            inspect: Reads back what was written, and checks it.
            message: Reported when the output is finished.
        """
        self._content = _Content(rows, summary, inspect, message)

    @property
    def content(self) -> _Content:
        assert self._content is not None, f"{self.folder} was written, but not completed"
        return self._content


@contextmanager
def writing(
    step: str,
    code_version: str,
    folder: str,
    report: "Reporter",
    *,
    config: StepConfig,
    inputs: list[str],
    fingerprint: str,
    started: float | None = None,
) -> Iterator[Output]:
    """Make an output: the body writes it and calls its `complete`; then it is inspected, finished and reported.

    If the folder holds the finished output of the same fingerprint, that is reported, and the body finds
    `Output.finished`: a repeated launch goes on where it ended. If the body raises, the folder stays unfinished, and
    the next one who writes there clears it. While another job makes the same output there, this waits for its end.

    Args:
        step: The step that it is an output of.
        code_version: The version of the step's job.
        folder: The folder to make.
        report: Where it is reported.
        config: The config it is made with.
        inputs: The fingerprints of what it is made from.
        fingerprint: Its own (see `fingerprints`).
        started: When the job started, by `time.monotonic`; by default now.

    Raises:
        OutputExists: The folder holds another finished output, or other files, or another job makes another one there.
    """
    started = time.monotonic() if started is None else started
    with claimed(folder, fingerprint, report) as claim:
        if claim is None:
            report.output(folder, _finished(folder, step, fingerprint))
            yield Output(folder, finished=True)
            return
        output = Output(folder, finished=False)
        yield output
        content = output.content
        checks = content.inspect()
        manifest = new_manifest(
            step=step,
            code_version=code_version,
            fingerprint=fingerprint,
            inputs=inputs,
            config=config.model_dump(mode="json"),
            rows=dict(content.rows),
            files=_files_of(folder),
            summary={**content.summary, "seconds": round(time.monotonic() - started, 3)},
            checks=checks,
        )
        claim.finish(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    if content.message:
        report.progress(content.message)
    report.output(folder, manifest)


def _finished(folder: str, step: str, fingerprint: str) -> Manifest:
    """The manifest of the output that a folder holds already, if it is the one that is to be made."""
    try:
        manifest = read_manifest(folder, step)
    except DamagedOutput as error:
        raise OutputExists(f"{error.what}. Delete {folder}, or name another folder.") from None
    except NewerVersion:
        raise
    except InputError as error:
        raise OutputExists(f"{error} Name another folder.") from None
    if manifest["fingerprint"] != fingerprint:
        raise OutputExists(f"{folder} holds another finished output already. Name another folder.")
    return manifest


def _files_of(folder: str) -> dict[str, int]:
    """The bytes of each file of an output; drafts that killed tasks left are deleted."""
    root = storage.at(folder)
    files: dict[str, int] = {}
    for name, file in sorted(storage.list_below(folder).items()):
        if storage.is_draft(root / name):
            (root / name).unlink()
        elif name != MARKER:
            files[name] = file.size
    return files
