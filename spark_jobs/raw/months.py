"""The months that have a folder, of raw data or of outputs."""

import re

from spark_jobs import storage

# Those from 1970 on that `Month.parse` takes: Dagster can't make partitions of some before, and would not load at all.
_FOLDER = re.compile(r"month=((?!9999-12)(?:19[7-9]\d|[2-9]\d{3})-(?:0[1-9]|1[0-2]))", re.ASCII)


def list_months(folder: str) -> list[str]:
    """The months, in order, of the folders `month=YYYY-MM` directly in a folder; none if it is missing.

    On S3 this is a request for a thousand of them, however many objects they hold.
    """
    path = storage.at(folder)
    if not path.is_dir():
        return []
    found = (_FOLDER.fullmatch(entry.name) for entry in path.iterdir())
    return sorted(match[1] for match in found if match)
