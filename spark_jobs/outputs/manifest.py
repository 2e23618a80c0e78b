"""The manifest of an output: it is written last, and makes the folder an output."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from json import JSONDecodeError
from typing import TYPE_CHECKING, Any

from spark_jobs import storage
from spark_jobs.errors import DamagedOutput, InputError, NewerVersion, as_clause
from spark_jobs.json_texts import parse_json
from spark_jobs.schema_versions import check_schema_version

if TYPE_CHECKING:
    from spark_jobs.outputs.checks import CheckResult

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1

Manifest = dict[str, Any]


def is_finished(folder: str) -> bool:
    """Whether the folder has a manifest; whether its output is whole is not checked: see `is_whole`."""
    return bool(storage.at(storage.join(folder, MANIFEST)).exists())


def is_whole(folder: str, step: str) -> bool:
    """Whether the folder holds a finished output of `step` and all of its files.

    Raises:
        NewerVersion: A newer version wrote its manifest.
    """
    try:
        read_manifest(folder, step)
    except NewerVersion:
        raise
    except InputError:
        return False
    return True


def damage_of(folder: str, step: str) -> str:
    """What is wrong with an output that was finished; empty if nothing is, or if it is not there at all."""
    try:
        read_manifest(folder, step)
    except DamagedOutput as error:
        return error.what
    except InputError:
        pass
    return ""


def read_manifest(folder: str, step: str, sizes: Mapping[str, int] | None = None) -> Manifest:
    """The manifest of a finished output of `step`, all of whose files are there.

    Args:
        folder: The folder of the output.
        step: The step.
        sizes: Bytes by file in the folder, where it was listed already.

    Raises:
        DamagedOutput: Its manifest can't be read, or a file is gone or has another size than the manifest says.
        NewerVersion: A newer version wrote its manifest.
        InputError: The folder holds no finished output, or another step's.
    """
    if sizes is None:
        sizes = {name: file.size for name, file in storage.list_below(folder).items()}
    if MANIFEST not in sizes:
        raise InputError(f"{folder} holds no finished output: it has no {MANIFEST}. Make it with {step} first.")
    location = storage.join(folder, MANIFEST)
    try:
        manifest = _parse(storage.read_bytes(location), location)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedOutput(f"{location} is not a whole manifest: {_in_words(error)}", folder) from None
    if manifest["step"] != step:
        raise InputError(f"{folder} is an output of {manifest['step']}; one of {step} is needed.")
    for file in manifest["files"]:
        if sizes.get(file["path"]) != file["bytes"]:
            raise DamagedOutput(
                f"{folder}: its file {file['path']} is gone, or has another size than its manifest says", folder
            )
    return manifest


def _parse(text: bytes, location: str) -> Manifest:
    """A manifest, with the parts that readers count on.

    Raises:
        NewerVersion: A newer version wrote it.
        ValueError, KeyError, TypeError, AttributeError: It is not a whole one.
    """
    manifest: Manifest = parse_json(text)
    check_schema_version(manifest, location, SCHEMA_VERSION)
    parts = {"step": str, "fingerprint": str, "files": list, "summary": dict}
    wrong = [name for name, kind in parts.items() if not isinstance(manifest[name], kind)]
    if wrong or not all(map(_is_named, manifest["files"])):
        raise ValueError(f"its {wrong[0] if wrong else 'files'} can't be understood")
    return manifest


def _is_named(file: Mapping[str, Any]) -> bool:
    return file.keys() >= {"path", "bytes"} and isinstance(file["path"], str) and isinstance(file["bytes"], int)


def _in_words(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return "it is empty, or cut off" if isinstance(error, JSONDecodeError) else as_clause(error)


def read_json(folder: str, name: str) -> Any:
    """The value of a JSON file of a finished output.

    Raises:
        InputError: It can't be read.
    """
    location = storage.join(folder, name)
    try:
        return parse_json(storage.read_bytes(location))
    except (OSError, ValueError) as error:
        raise broken(folder, location, error) from error


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
