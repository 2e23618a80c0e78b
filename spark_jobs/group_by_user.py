"""Group a month's raw audience actions by user.

RAW is the month's folder of raw files, OUTPUT the folder to make: `users/*.parquet`, one row a user, and
`rejects/*.parquet`, one row a raw row that breaks a rule, with file, line and reason.
"""

import contextlib
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import click
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from spark_jobs import engines, outputs, storage
from spark_jobs.config import ACTIONS, EngineConfig, GroupedUsersConfig
from spark_jobs.engines.pieces import pack, unpack
from spark_jobs.errors import InputError, TooManyRejects, UnreadableFile
from spark_jobs.options import config_options
from spark_jobs.outputs import checks
from spark_jobs.outputs.fingerprints import files_fingerprint, fingerprint
from spark_jobs.outputs.schemas import Inspection, strictness
from spark_jobs.raw import rules
from spark_jobs.reporting import Reporter, heartbeat, run_as_command
from spark_jobs.resources import Resources, ResourcesConfig
from spark_jobs.users.grouping import GROUPED_USER, USERS, nest_users, split_by_user

Seen = TypeVar("Seen")

STEP = "grouped_users"
CODE_VERSION = "1"  # raise it with every change of what comes out: partitions are then made again

_RAW_BYTES_A_FILE = 16 << 20  # compressed raw bytes whose users make one output file
_MANY_FILES = 256
_ROWS_AT_A_TIME = 1 << 18  # that are split
_ROWS_A_PIECE = 1 << 10  # of what was split
_TEXT_RATIO = 8  # how much larger text is than the same actions compressed
# Of memory, measured: see benchmarks/profiles.
_SPLIT_BYTES = 350 << 20
_ROW_BYTES = 200
_MERGE_RATIO = 20.0


@dataclass
class Intake:
    """What was found in a raw file."""

    file: str
    rows: int = 0
    actions: Counter[str] = field(default_factory=Counter)  # accepted, by their name
    rejects: Counter[str] = field(default_factory=Counter)  # rows, by what is wrong with them
    error: str | None = None  # why it can't be read


class Written(NamedTuple):
    """What a file of users holds."""

    users: int
    pages: int
    actions: int


def step_fingerprint(config: GroupedUsersConfig, raw: str) -> str:
    """The fingerprint of a month's grouped users; `raw` is that of its raw files."""
    return fingerprint(STEP, CODE_VERSION, config.fingerprinted(), [raw])


def list_raw_files(folder: str) -> list[storage.StoredFile]:
    """The raw files of a month.

    Raises:
        InputError: There is none, or one is of no known type.
    """
    files = storage.list_files(folder)
    if not files:
        raise InputError(f"There is no raw data in {folder}. Put the month's files there, or pick another month.")
    for file in files:
        rules.check_file_type(file.location)
    return files


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
    """Group; see the command."""
    started = time.monotonic()
    raw, folder = storage.absolute(raw), storage.absolute(output)
    span = rules.Month.parse(month or _month_of(raw))
    files = list_raw_files(raw)
    source = files_fingerprint(files)
    size = sum(file.size for file in files)
    made_from = step_fingerprint(config, source)
    if finished := outputs.start(folder, made_from):
        report.output(folder, finished)
        return
    buckets = _buckets(files)
    rows_at_a_time = max(_ROWS_AT_A_TIME, _ROWS_A_PIECE * buckets)
    report.progress(f"grouping {len(files)} raw files, {size / 1e6:,.1f} MB, with {engine.engine}")
    runs_on = engines.start(engine, resources)
    checked = strictness(engine.strict_schema)

    def split(item: tuple[int, str]) -> Generator[dict[int, bytes], None, Intake]:
        intake = Intake(item[1])
        for rows in _together(_read_raw_file(folder, *item, span, intake), rows_at_a_time):
            actions = checked(rules.ACCEPTED, rows)
            yield {bucket: pack(part) for bucket, part in split_by_user(actions, buckets)}
        return intake

    def merge(bucket: int, parts: Iterator[bytes]) -> Written:
        actions = pa.Table.from_batches([unpack(part) for part in parts])
        return _write_users(folder, bucket, checked(USERS, nest_users(checked(rules.ACCEPTED, actions))))

    grouping = engines.Exchange(
        f"Grouping {raw}",
        list(enumerate(file.location for file in files)),
        [_compressed_size(file) for file in files],
        split,
        merge,
        buckets,
        engines.Demand(_SPLIT_BYTES + _ROW_BYTES * rows_at_a_time, _MERGE_RATIO),
    )
    with heartbeat(report, runs_on.progress):
        done = runs_on.exchange(grouping)

    intake, parts = done.counted, list(done.merged.values())
    users, pages, kept = (sum(of_parts) for of_parts in zip(*parts, strict=True)) if parts else (0, 0, 0)
    rejects = _check_intake(intake, folder, config.max_reject_ratio)
    accepted = sum(file.actions.total() for file in intake)
    if accepted >= 2**63:
        raise InputError(f"The counts of {raw} add up to {accepted:,}, more than 64 bits hold. Mend the files.")
    if kept != accepted:
        raise RuntimeError(f"{accepted} actions were accepted and {kept} written: {runs_on.version} lost some")
    if not parts:
        report.progress("the month has no action: no users are written")
        _write_part(folder, 0, GROUPED_USER.empty_table())
    found = _check_output(folder, intake, config.max_reject_ratio, resources.cores)
    manifest = outputs.finish(
        folder,
        step=STEP,
        code_version=CODE_VERSION,
        config=config.model_dump(mode="json"),
        fingerprint=made_from,
        inputs=[source],
        rows={"users": users, "rejects": sum(rejects.values())},
        summary={
            "users": users,
            "pages": pages,
            "rows": sum(file.rows for file in intake),
            "actions": accepted,
            "rejected": sum(rejects.values()),
            "rejects": dict(rejects.most_common()),
            "raw_files": len(files),
            "bytes_in": size,
            "engine": runs_on.version,
            "seconds": round(time.monotonic() - started, 3),
        },
        checks=found,
    )
    report.progress(f"{users:,} users of {accepted:,} actions, {sum(rejects.values()):,} rows rejected")
    report.output(folder, manifest)


def _buckets(files: list[storage.StoredFile]) -> int:
    """How many files of users there will be; of a huge month fewer and larger ones, or there were too many pieces."""
    size = max(1, math.ceil(sum(map(_compressed_size, files)) / _RAW_BYTES_A_FILE))
    return size if size <= _MANY_FILES else round(math.sqrt(_MANY_FILES * size))


def _compressed_size(file: storage.StoredFile) -> int:
    return file.size if file.name.endswith((".parquet", ".gz")) else file.size // _TEXT_RATIO


def _month_of(raw: str) -> str:
    match = re.search(r"month=(\d{4}-\d{2})/*$", raw)
    if not match:
        raise InputError(f"{raw} is not named month=YYYY-MM; say which month it is with --month.")
    return match[1]


# --- in the engine's tasks -------------------------------------------------------------------------


def _read_raw_file(
    folder: str, number: int, location: str, month: rules.Month, intake: Intake
) -> Iterator[pa.RecordBatch]:
    """Yield a raw file's accepted rows; write its rejects, and count both."""
    rejects: pq.ParquetWriter | None = None
    with contextlib.ExitStack() as files:
        try:
            for checked in rules.read_file(location, month):
                intake.rows += checked.accepted.num_rows + checked.rejected.num_rows
                intake.actions.update(_sum_actions(checked.accepted))
                if checked.rejected.num_rows:
                    if rejects is None:
                        file = files.enter_context(outputs.open_file(folder, f"rejects/part-{number:05d}.parquet"))
                        rejects = files.enter_context(pq.ParquetWriter(file, rules.REJECT))
                    rejects.write_batch(checked.rejected)
                    intake.rejects.update(checked.rejected.column("reason").to_pylist())
                yield checked.accepted
        except UnreadableFile as error:
            # The job names all such files in one go, and not just the first.
            intake.error = str(error)


def _together(batches: Iterator[pa.RecordBatch], least: int) -> Iterator[pa.RecordBatch]:
    """Batches put together to so many rows at least, for each that is split costs a piece for every bucket."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(rows.num_rows for rows in waiting) >= least:
            yield from _one(waiting)
            waiting = []
    yield from _one(waiting)


def _one(batches: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    if len(batches) < 2:
        yield from batches
    else:
        yield from pa.Table.from_batches(batches).unify_dictionaries().combine_chunks().to_batches()


def _sum_actions(accepted: pa.RecordBatch) -> dict[str, int]:
    """How many of each action some accepted rows are."""
    action, count = accepted.column("action").to_numpy(), accepted.column("count").to_numpy()
    return {name: checks.exact_sum(count[action == place]) for place, name in enumerate(ACTIONS)}


def _write_users(folder: str, bucket: int, users: pa.Table) -> Written:
    _write_part(folder, bucket, users)
    pages = users["pages"].combine_chunks().flatten()
    total = sum(checks.exact_sum(pages.field(action).to_numpy()) for action in ACTIONS)
    return Written(users.num_rows, len(pages), total)


def _write_part(folder: str, number: int, users: pa.Table) -> None:
    outputs.write_table(folder, f"users/part-{number:05d}.parquet", users)


# --- what the tasks found --------------------------------------------------------------------------


def _check_intake(intake: list[Intake], folder: str, max_reject_ratio: float) -> Counter[str]:
    unreadable = [file.error for file in intake if file.error is not None]
    if unreadable:
        raise InputError(" ".join(unreadable))
    rejects: Counter[str] = Counter()
    for file in intake:
        rejects.update(file.rejects)
    rows = sum(file.rows for file in intake)
    bad = sum(rejects.values())
    if bad > max_reject_ratio * rows:
        reasons = ", ".join(f"{count:,} × {reason}" for reason, count in rejects.most_common())
        raise TooManyRejects(
            f"{bad:,} of {rows:,} raw rows ({bad / rows:.1%}) break a rule, more than max_reject_ratio"
            f" = {max_reject_ratio}: {reasons}. First: {_first_reject(folder)}. All of them, with file, line and"
            f" reason: {storage.join(folder, 'rejects')}. Mend the files, or allow more with max_reject_ratio."
        )
    return rejects


def _check_output(folder: str, intake: list[Intake], largest_share: float, cores: int) -> dict[str, checks.Check]:
    """Read back what was written, and compare it with what was read."""
    users, rejected = Inspection(USERS), Inspection(rules.REJECTS)
    written: Counter[str] = Counter()
    for actions in _read_back(folder, "users", users, cores, checks.actions_of):
        written.update(actions)
    _read_back(folder, "rejects", rejected, cores, lambda batches: sum(1 for _ in batches))
    accepted: Counter[str] = Counter()
    for file in intake:
        accepted.update(file.actions)
    broken = sum(file.rejects.total() for file in intake)
    return {
        "schema": checks.schema(users, rejected),
        "conservation": checks.conservation_of_actions(accepted, written),
        "rejects": checks.rejects(sum(file.rows for file in intake), broken, rejected.rows, largest_share),
    }


def _read_back(
    folder: str, table: str, inspection: Inspection, cores: int, look: Callable[[Iterator[pa.RecordBatch]], Seen]
) -> list[Seen]:
    """Inspect the files of a table, several at a time, and give back what is seen in each."""

    def inspect(file: UPath) -> tuple[Inspection, Seen]:
        own = Inspection(inspection.table)
        return own, look(outputs.read_back(folder, f"{table}/{file.name}", own))

    with ThreadPoolExecutor(cores) as threads:
        found = list(threads.map(inspect, storage.visible_files(storage.join(folder, table))))
    for own, _ in found:
        inspection.include(own)
    return [seen for _, seen in found]


def _first_reject(folder: str) -> str:
    parts = storage.list_files(storage.join(folder, "rejects"))
    row = outputs.read_table(storage.join(folder, "rejects"), parts[0].name).slice(0, 1).to_pylist()[0]
    return f"{row['file']}, line {row['line']}: {row['reason']}"


if __name__ == "__main__":
    run_as_command(main)
