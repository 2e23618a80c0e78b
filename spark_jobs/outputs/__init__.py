"""Output folders: written once, complete or absent. The manifest is written last and makes the folder an output."""

import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import datetime, timezone
from typing import IO, Any

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from spark_jobs import storage
from spark_jobs.errors import InputError, OutputExists
from spark_jobs.outputs.checks import Check
from spark_jobs.outputs.schemas import Inspection

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1

_BATCH = 1 << 18  # rows that are read at a time
_LONGEST_LINE = 64 << 20  # bytes of a line that are read at a time

Manifest = dict[str, Any]


def start(folder: str, fingerprint: str) -> Manifest | None:
    """Make `folder` ready to be written: it holds no finished output, and no rest of an unfinished one.

    Returns:
        None; or the manifest, if the folder holds the finished output of this fingerprint already: a launch that is
        repeated goes on where it ended.

    Raises:
        OutputExists: It holds another finished output, or files that are no output of ours.
    """
    path = storage.at(folder)
    if (path / MANIFEST).exists():
        manifest: Manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if manifest["fingerprint"] == fingerprint:
            return manifest
        raise OutputExists(f"{folder} holds another finished output already. Name another folder.")
    if path.exists() and any(path.iterdir()):
        if not (path / _MARKER).exists():
            raise OutputExists(f"{folder} is not empty. Name a folder that is new or empty.")
        storage.delete_folder(folder)
    storage.write_text(storage.join(folder, _MARKER), "This output is not finished: nothing reads it.\n")
    return None


_MARKER = "_unfinished"


def write_table(folder: str, name: str, table: pa.Table) -> None:
    """Write one table of an output as Parquet. The same table gives the same bytes."""
    with open_file(folder, name) as file:
        pq.write_table(table, file, compression="zstd")


def open_file(folder: str, name: str) -> AbstractContextManager[IO[bytes]]:
    """Open a file of an output for writing, with the folders above it made; see `storage.new_file`."""
    return storage.new_file(storage.join(folder, name))


def finish(
    folder: str,
    *,
    step: str,
    code_version: str,
    config: dict[str, Any],
    fingerprint: str,
    inputs: list[str],
    rows: dict[str, int],
    summary: dict[str, Any],
    checks: Mapping[str, Check] | None = None,
) -> Manifest:
    """Write the manifest, which makes the folder an output, and return it.

    Args:
        folder: The output folder, all of whose files are written.
        step: The step it is an output of.
        code_version: The version of the job that wrote it.
        config: The config it was made with.
        fingerprint: What it was made from (see `fingerprints`).
        inputs: The fingerprints of what it was made from.
        rows: Rows by table.
        summary: What people want to see of it: counts, scores, seconds.
        checks: What the job found when it read back what it had written.
    """
    root = storage.at(folder)
    files: dict[str, int] = {}
    for name, file in sorted(storage.list_below(folder).items()):
        if storage.is_draft(root / name):
            (root / name).unlink()
        elif name != _MARKER:
            files[name] = file.size
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "step": step,
        "code_version": code_version,
        "fingerprint": fingerprint,
        "inputs": inputs,
        "config": config,
        "rows": rows,
        "files": [{"path": name, "bytes": size} for name, size in files.items()],
        "summary": {**summary, "bytes_out": sum(files.values())},
        "checks": {name: asdict(check) for name, check in (checks or {}).items()},
        "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    storage.write_text(storage.join(folder, MANIFEST), json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    (root / _MARKER).unlink()
    return manifest


def is_finished(folder: str) -> bool:
    """Whether the folder holds a finished output."""
    return bool(storage.at(storage.join(folder, MANIFEST)).exists())


def read_manifest(folder: str, step: str) -> Manifest:
    """The manifest of a finished output of `step`.

    Raises:
        InputError: The folder holds no finished output, or another step's.
    """
    path = storage.at(storage.join(folder, MANIFEST))
    try:
        manifest: Manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{folder} holds no finished output: it has no {MANIFEST}. Make it with {step} first."
        ) from None
    if manifest["step"] != step:
        raise InputError(f"{folder} is an output of {manifest['step']}; one of {step} is needed.")
    return manifest


def broken(folder: str, location: str, why: object) -> InputError:
    """The error for a finished output of which a file is gone or can't be read."""
    manifest = storage.join(folder, MANIFEST)
    return InputError(f"{location} can't be read: {why}. Delete {manifest}, and the next run makes the output again.")


def read_table(folder: str, name: str, columns: list[str] | None = None) -> pa.Table:
    """One Parquet table of an output.

    Raises:
        InputError: It is gone, or can't be read.
    """
    location = storage.join(folder, name)
    try:
        with storage.at(location).open("rb") as file:
            return pq.ParquetFile(file).read(columns)
    except (OSError, pa.ArrowException) as error:
        raise broken(folder, location, error) from error


def read_batches(folder: str, name: str, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """A Parquet table, or some of its columns, batch by batch and in its order: it never is in memory as a whole."""
    with storage.at(storage.join(folder, name)).open("rb") as file:
        yield from pq.ParquetFile(file).iter_batches(batch_size=_BATCH, columns=columns)


def of_equal_size(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches as `read_batches` gives them, wherever they were cut."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        rest = batch
        while rest.num_rows:
            waiting.append(rest.slice(0, _BATCH - sum(part.num_rows for part in waiting)))
            rest = rest.slice(waiting[-1].num_rows)
            if sum(part.num_rows for part in waiting) == _BATCH:
                yield _as_one(waiting)
                waiting = []
    if waiting:
        yield _as_one(waiting)


def _as_one(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]


def read_back(folder: str, name: str, inspection: Inspection) -> Iterator[pa.RecordBatch]:
    """The batches of a Parquet table as it was written; what is wrong with it is for the inspection to tell."""
    try:
        with storage.at(storage.join(folder, name)).open("rb") as file:
            parquet = pq.ParquetFile(file)
            # A table of no rows has no batch, but columns that can be wrong.
            none = pa.RecordBatch.from_pylist([], schema=parquet.schema_arrow)
            yield from inspection.through(itertools.chain([none], parquet.iter_batches(batch_size=_BATCH)))
    except (OSError, OverflowError, pa.ArrowException) as error:  # a line may be longer than Arrow can take
        inspection.add(f"{name} can't be read back: {error}")


def read_back_json(folder: str, name: str, inspection: Inspection, *, lines: bool) -> Iterator[pa.RecordBatch]:
    """The same of JSON, one value or one a line: a batch of one row each. There may be more fields than the table's."""
    try:
        with storage.at(storage.join(folder, name)).open("rb") as file:
            for text in file if lines else [file.read()]:
                yield from _parse(text, inspection)
    except (OSError, OverflowError, pa.ArrowException) as error:  # a line may be longer than Arrow can take
        inspection.add(f"{name} can't be read back: {error}")


def read_back_lists(folder: str, name: str, inspection: Inspection) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The same of JSON lines whose last field is a list of texts, with their numbers; a long line comes in parts."""
    last = None
    try:
        with storage.at(storage.join(folder, name)).open("rb") as file:
            for number, text in _cut_lines(io.BufferedReader(file)):
                for batch in _parse(text, inspection):
                    yield number, batch
                inspection.rows -= number == last
                last = number
    except (OSError, OverflowError, pa.ArrowException) as error:
        inspection.add(f"{name} can't be read back: {error}")


def _parse(text: bytes, inspection: Inspection) -> Iterator[pa.RecordBatch]:
    schema = inspection.table.schema
    options = pyarrow.json.ParseOptions(
        explicit_schema=schema, newlines_in_values=True, unexpected_field_behavior="ignore"
    )
    read = pyarrow.json.ReadOptions(use_threads=False, block_size=len(text) + 1)
    rows = pyarrow.json.read_json(pa.BufferReader(text), read, options)
    return inspection.through(rows.select(schema.names).combine_chunks().to_batches())


def _cut_lines(file: io.BufferedReader) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers; one longer than `_LONGEST_LINE` as several, with a part of the texts each."""
    number, rest = 0, b""
    while read := file.readline(_LONGEST_LINE):
        text, goes_on = rest + read, len(read) == _LONGEST_LINE and not read.endswith(b"\n")
        cut = text.rfind(b'", "') if goes_on else -1  # within a text a quote has a backslash before it
        if cut >= 0:
            yield number, text[: cut + 1] + b"]}"
            rest = text[: text.index(b"[") + 1] + text[cut + 3 :]
        elif goes_on:
            rest = text
        else:
            yield number, text
            number, rest = number + 1, b""
    if rest:
        yield number, rest
