"""Outputs: `lifecycle` writes them, `manifest` and `tables` read them, `read_back` and `checks` inspect them."""

from spark_jobs.outputs.lifecycle import Output, writing
from spark_jobs.outputs.manifest import (
    MANIFEST,
    Manifest,
    broken,
    damage_of,
    is_finished,
    is_whole,
    read_json,
    read_manifest,
)

__all__ = [
    "MANIFEST",
    "Manifest",
    "Output",
    "broken",
    "damage_of",
    "is_finished",
    "is_whole",
    "read_json",
    "read_manifest",
    "writing",
]
