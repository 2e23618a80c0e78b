"""What killed processes left below a root, and what no record points at: nobody reads it, and nobody will."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

import dagster as dg

from audience_explorer_dagster.launchers.launch_store import LaunchStore, LaunchTags
from audience_explorer_dagster.launchers.states import started
from audience_explorer_dagster.records.history import History
from audience_explorer_dagster.records.unneeded import ASSETS, Unneeded, find_unneeded
from audience_explorer_dagster.records.unneeded import delete as delete_output
from audience_explorer_dagster.store import Store
from spark_jobs import outputs, storage
from spark_jobs.errors import InputError
from spark_jobs.outputs.claims import has_writer

Kind = Literal["output not on record", "unfinished output", "temporary file", "unfinished upload", "launch"]

_DRAFT = re.compile(r"\..+\.[0-9a-f]{32}")  # as `storage.new_file` names them


@dataclass(frozen=True)
class Garbage:
    """Something that nobody reads.

    Attributes:
        kind: What it is.
        location: Its folder or file.
        bytes: How large it is; None if that is not known, as of an upload.
        modified: When it was last written to.
        what: The output, the launch's folder, or an upload's id; None for a file.
    """

    kind: Kind
    location: str
    bytes: int | None
    modified: datetime
    what: Unneeded | LaunchTags | str | None = None


def find_garbage(
    instance: dg.DagsterInstance, store: Store, launches: LaunchStore | None, before: datetime
) -> list[Garbage]:
    """All garbage of a root that was last written to before a time.

    Kept are outputs on record, current ones, ones that a job is writing, and all that is not an output: raw data,
    category files, edits.

    Args:
        instance: Where the records are.
        store: The root.
        launches: Where launches keep messages and logs; None if there are none.
        before: The time.

    Raises:
        InputError: There are outputs, and no record of any: these are not the root's records.
    """
    found = list(_outputs(instance, store, before))
    gone = tuple(f"{garbage.location}/" for garbage in found)
    found += [garbage for garbage in _drafts(store, before) if not garbage.location.startswith(gone)]
    found += _uploads(store, before)
    if launches is not None:
        found += _launches(instance, launches, before)
    return found


def delete_garbage(garbage: Garbage, launches: LaunchStore | None) -> None:
    """Delete it, unless a job took it up meanwhile."""
    if isinstance(garbage.what, Unneeded):
        if not has_writer(garbage.location):
            delete_output(garbage.what)
    elif isinstance(garbage.what, LaunchTags):
        assert launches is not None
        launches.folder(garbage.what).delete()
    elif garbage.what is not None:
        from spark_jobs.storage import s3

        s3.abort_upload(garbage.location, garbage.what)
    else:
        storage.at(garbage.location).unlink(missing_ok=True)


def _outputs(instance: dg.DagsterInstance, store: Store, before: datetime) -> Iterator[Garbage]:
    for output in find_unneeded(instance, store, before):
        if output.why == "superseded" or has_writer(output.folder):
            continue
        if output.why == "not on record" and _is_missed(instance, store, output):
            continue
        kind: Kind = "unfinished output" if output.why == "unfinished" else "output not on record"
        yield Garbage(kind, output.folder, output.bytes, output.modified, output)


def _is_missed(instance: dg.DagsterInstance, store: Store, output: Unneeded) -> bool:
    """Whether an output is what a record names whose own output is gone: `adopt` puts it in that one's place."""
    try:
        fingerprint = outputs.read_manifest(output.folder, output.asset)["fingerprint"]
    except InputError:
        return False
    history = History(instance, store, output.asset, [output.partition])
    named = any(record.fingerprint == fingerprint for record in history.all(output.partition))
    return named and history.reusable(output.partition, fingerprint) is None


def _drafts(store: Store, before: datetime) -> Iterator[Garbage]:
    """What killed writers left of files in outputs, and of the small files beside them."""
    for below in (*map(store.all_outputs, ASSETS), store.all_edits):
        for path, file in storage.list_below(below).items():
            modified = datetime.fromtimestamp(file.modified, timezone.utc)
            if _DRAFT.fullmatch(path.rpartition("/")[2]) and modified < before:
                yield Garbage("temporary file", storage.join(below, path), file.size, modified)


def _uploads(store: Store, before: datetime) -> list[Garbage]:
    """What killed writers left of large objects on S3, which no listing shows and which costs like an object."""
    if not storage.absolute(store.root).startswith(("s3://", "s3a://")):
        return []
    from spark_jobs.storage import s3

    return [
        Garbage("unfinished upload", location, None, begun, upload)
        for asset in ASSETS
        for location, upload, begun in s3.unfinished_uploads(store.all_outputs(asset))
        if begun < before
    ]


def _launches(instance: dg.DagsterInstance, launches: LaunchStore, before: datetime) -> Iterator[Garbage]:
    """The messages and logs of launches whose run is over. A launch that somebody waits for has a young lease."""
    for tags in launches.list():
        begun = started(tags)
        if begun is None or begun >= before:
            continue
        folder = launches.folder(tags)
        files = storage.list_below(folder.location).values()
        modified = max((datetime.fromtimestamp(file.modified, timezone.utc) for file in files), default=begun)
        run = instance.get_run_by_id(tags.run)
        if modified < before and (run is None or run.is_finished):
            yield Garbage("launch", folder.location, sum(file.size for file in files), modified, tags)
