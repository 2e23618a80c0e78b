"""The manifest of an output: it is written last, and makes the folder an output."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from spark_jobs import storage
from spark_jobs.errors import InputError, as_clause

if TYPE_CHECKING:
    from spark_jobs.outputs.checks import CheckResult

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1

Manifest = dict[str, Any]


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
    """The error for a finished output one of whose files is gone or can't be read."""
    manifest = storage.join(folder, MANIFEST)
    return InputError(
        f"{location} can't be read: {as_clause(why)}. Delete {manifest}, and the next run makes the output again."
    )


def new_manifest(
    *,
    step: str,
    code_version: str,
    fingerprint: str,
    inputs: list[str],
    config: dict[str, Any],
    rows: dict[str, int],
    files: Mapping[str, int],
    summary: dict[str, Any],
    checks: Mapping[str, "CheckResult"],
) -> Manifest:
    """The manifest of an output that is complete now.

    Args:
        step: The step that made it.
        code_version: The version of the step's job.
        fingerprint: What it was made from (see `fingerprints`).
        inputs: The fingerprints of what it was made from.
        config: The config it was made with.
        rows: Rows by table.
        files: Bytes by file.
        summary: What people want to know of it: counts, scores, seconds.
        checks: What the job found when it read back what it had written.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "step": step,
        "code_version": code_version,
        "fingerprint": fingerprint,
        "inputs": inputs,
        "config": config,
        "rows": rows,
        "files": [{"path": name, "bytes": size} for name, size in files.items()],
        "summary": {**summary, "bytes_out": sum(files.values())},
        "checks": {name: asdict(result) for name, result in checks.items()},
        "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
