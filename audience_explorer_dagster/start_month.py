"""The first month that is a partition: the one that is set, or else the first of which there is anything."""

import warnings
from datetime import datetime, timezone

from audience_explorer_dagster import settings
from spark_jobs import storage
from spark_jobs.errors import S3Error
from spark_jobs.raw.months import list_months

WITHOUT_DATA = "2018-01"

# Outputs as well: raw data may be deleted after a while, and the months that were made from it stay partitions.
_FOLDERS = ("raw", "grouped_users")
_MONTHS = 6  # that are partitions at least, so that a month may be asked for, or arrive, before the first one


def start_month(now: datetime | None = None) -> str:
    """The first month that is a partition.

    It is decided once a process, when the project loads: partitions are defined then. On S3 that takes a few requests.
    Where S3 does not answer, more months than necessary are partitions until the project loads again: no harm is done.

    Args:
        now: The time; the current one by default.
    """
    given = settings.read()
    if given.start_month is not None:
        return given.start_month
    root = storage.absolute(given.root)
    try:
        found = [month for folder in _FOLDERS for month in list_months(storage.join(root, folder))[:1]]
    except (OSError, S3Error) as error:
        warnings.warn(f"The first month of {root} is not known, so it is {WITHOUT_DATA}: {error}", stacklevel=2)
        return WITHOUT_DATA
    return min(*found, _months_ago(_MONTHS, now or datetime.now(timezone.utc))) if found else WITHOUT_DATA


def _months_ago(count: int, now: datetime) -> str:
    months = now.year * 12 + now.month - 1 - count
    return f"{months // 12:04}-{months % 12 + 1:02}"
