"""Group a month's raw audience actions by user.

RAW is the month's folder of raw files, OUTPUT the folder to make: `users/*.parquet`, one row a user, and
`rejects/*.parquet`, one row a raw row that breaks a rule, with file, line and reason.
"""

import re
import time
from typing import Any

import click

from spark_jobs import engines, outputs, storage
from spark_jobs.clusters.published import in_words
from spark_jobs.config import EngineConfig, GroupedUsersConfig
from spark_jobs.errors import InputError, TooManyRejects
from spark_jobs.options import config_options
from spark_jobs.outputs.fingerprints import files_fingerprint, fingerprint
from spark_jobs.outputs.tables import read_table
from spark_jobs.raw.folder import check_unchanged, file_states, list_raw_files
from spark_jobs.raw.rules import Month
from spark_jobs.reporting import Reporter, heartbeat, run_as_command
from spark_jobs.resources import Resources, ResourcesConfig
from spark_jobs.users.checks import check_grouped_users
from spark_jobs.users.counts import RawCounts, UserCounts
from spark_jobs.users.grouping import GROUPED_USER
from spark_jobs.users.shuffle import grouping_exchange, write_users

STEP = "grouped_users"
CODE_VERSION = "2"  # raise it with every change of what comes out: partitions are then made again


def step_fingerprint(config: GroupedUsersConfig, month: str, raw: str) -> str:
    """The fingerprint of the grouped users of a month, YYYY-MM; `raw` is that of its raw files."""
    return fingerprint(STEP, CODE_VERSION, {**config.fingerprinted(), "month": month}, [raw])


@click.command(help=__doc__)
@click.argument("raw")
@click.argument("output")
@click.option("--month", help="The month, YYYY-MM; by default taken from RAW's name, month=YYYY-MM.")
@config_options(GroupedUsersConfig)
@config_options(EngineConfig, "engine")
@config_options(ResourcesConfig, "allowed")
def main(
    raw: str,
    output: str,
    month: str | None,
    config: GroupedUsersConfig,
    engine: EngineConfig,
    allowed: ResourcesConfig,
) -> None:
    run(raw, output, month, config, engine, allowed.resolve(), Reporter())


def run(
    raw: str,
    output: str,
    month: str | None,
    config: GroupedUsersConfig,
    engine: EngineConfig,
    resources: Resources,
    report: Reporter,
) -> None:
    """Group a month; see the command."""
    started = time.monotonic()
    raw, folder = storage.absolute(raw), storage.absolute(output)
    of_month = Month.parse(month or _month_of(raw))
    if f"{folder}/".startswith(f"{raw}/"):
        raise InputError(f"{folder} lies in {raw}, where only raw files may be. Name a folder outside of it.")
    before = file_states(raw)  # also before the files' content is made a fingerprint
    with heartbeat(report, lambda: f"taking the digests of {len(before):,} raw files"):
        files = list_raw_files(raw)
    source = files_fingerprint(files)
    with outputs.writing(
        STEP,
        CODE_VERSION,
        folder,
        report,
        config=config,
        inputs=[source],
        fingerprint=step_fingerprint(config, of_month.key, source),
        started=started,
    ) as made:
        if made.finished:
            return
        size = sum(file.size for file in files)
        report.progress(f"grouping {len(files)} raw files, {size / 1e6:,.1f} MB, with {engine.engine}")
        runs_on = engines.start(engine, resources)
        with heartbeat(report, runs_on.progress):
            done = runs_on.exchange(grouping_exchange(raw, files, of_month, folder, engine.strict_schema))
        check_unchanged(raw, before)
        found, users = RawCounts.total(done.counted), UserCounts.total(done.merged.values())
        _refuse_bad_files(found, raw, folder, config.max_reject_ratio)
        if users.actions != found.accepted:
            raise RuntimeError(
                f"{found.accepted} actions were accepted and {users.actions} written: {runs_on.version} lost some"
            )
        if not done.merged:
            report.progress("the month has no action: no users are written")
            write_users(folder, 0, GROUPED_USER.empty_table())
        made.complete(
            rows={"users": users.users, "rejects": found.rejected},
            summary={**_summary(found, users), "raw_files": len(files), "bytes_in": size, "engine": runs_on.version},
            inspect=lambda: check_grouped_users(folder, found, config.max_reject_ratio, resources.cores),
            message=f"{in_words(users.users)} users of {found.accepted:,} actions, {found.rejected:,} rows rejected",
        )


def _summary(found: RawCounts, users: UserCounts) -> dict[str, Any]:
    return {
        "users": users.users,
        "pages": users.pages,
        "rows": found.rows,
        "actions": found.accepted,
        "rejected": found.rejected,
        "rejects": dict(found.rejects.most_common()),
    }


def _month_of(raw: str) -> str:
    match = re.search(r"month=(\d{4}-\d{2})/*$", raw)
    if not match:
        raise InputError(f"{raw} is not named month=YYYY-MM; say which month it is with --month.")
    return match[1]


def _refuse_bad_files(found: RawCounts, raw: str, folder: str, max_reject_ratio: float) -> None:
    """Refuse files that can't be read, have too many rows that break a rule, or counts beyond 64 bits.

    Raises:
        InputError: They are; the message names files and rows.
    """
    if found.unreadable:
        raise InputError(" ".join(found.unreadable))
    if found.rejected > max_reject_ratio * found.rows:
        reasons = ", ".join(f"{count:,} × {reason}" for reason, count in found.rejects.most_common())
        raise TooManyRejects(
            f"{found.rejected:,} of {found.rows:,} raw rows ({found.rejected / found.rows:.1%}) break a rule, more than"
            f" max_reject_ratio = {max_reject_ratio}: {reasons}. First: {_first_reject(folder)}. All of them, with"
            f" file, line and reason: {storage.join(folder, 'rejects')}. Mend the files, or allow more with"
            " max_reject_ratio."
        )
    if found.accepted >= 2**63:
        raise InputError(f"The counts of {raw} add up to {found.accepted:,}, more than 64 bits hold. Mend the files.")


def _first_reject(folder: str) -> str:
    parts = storage.list_files(storage.join(folder, "rejects"))
    row = read_table(storage.join(folder, "rejects"), parts[0].name).slice(0, 1).to_pylist()[0]
    return f"{row['file']}, line {row['line']}: {row['reason']}"


if __name__ == "__main__":
    run_as_command(main)
