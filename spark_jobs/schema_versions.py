"""Schema versions of files that outlive a version of this code: newer code reads older files, older code refuses newer.

A file that names no version is of the first.
"""

from collections.abc import Mapping
from typing import Any

from spark_jobs.errors import NewerVersion

FIELD = "schema_version"


def check_schema_version(written: Mapping[str, Any], location: str, known: int) -> None:
    """Check that a file is not of a newer schema version than this code knows.

    Raises:
        NewerVersion: It is, or its version is not a number at all.
    """
    version = written.get(FIELD, 1)
    if not isinstance(version, int) or version > known:
        raise NewerVersion(location, version, known)
