"""What decides whether a step's work is needed: a digest of its code version, config and inputs."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from spark_jobs.storage import StoredFile


def fingerprint(step: str, code_version: str, config: Mapping[str, Any], inputs: Iterable[str]) -> str:
    """The fingerprint of a step's output: 32 hex digits of a SHA-256, so that it fits a Dagster tag.

    Args:
        step: The step's name.
        code_version: The version of its job.
        config: Whatever of its config decides the result (so neither label, engine nor force).
        inputs: The fingerprints of what it reads, in a fixed order.
    """
    return digest_of([step, code_version, dict(config), list(inputs)])


def files_fingerprint(files: Iterable[StoredFile]) -> str:
    """The fingerprint of input files: their names, sizes and digests, wherever they lie."""
    return digest_of(sorted([file.name, file.size, file.digest] for file in files))


def digest_of(value: Any) -> str:
    """32 hex digits that stand for a JSON value."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]
