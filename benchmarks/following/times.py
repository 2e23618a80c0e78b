"""Measure the processor's seconds and the memory of saying what segments are, following them, and reporting on them.

    python -m benchmarks.following.times
    python -m benchmarks.following.times --users 20000 --raw ""

Of two months of one category with 5M users each, 80 % of whom stay; and of two months of real data with 13 categories
(../shared/data/ansible), with a k that is given, for choosing it is another step. Each line is a process of its own, so
its memory is what the step takes. Seconds are the CPU's, for others say little on a machine that is busy. A page of
tables, times.md, is written here.
"""

import contextlib
import importlib
import io
import json
import multiprocessing
import platform
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

from benchmarks.actions import user_ids
from spark_jobs import outputs
from spark_jobs.config import ACTIONS, FIT_MIN_ACTIONS, ClusteringInputsConfig, parse_scaling
from spark_jobs.reporting import Reporter
from spark_jobs.vectors.profiles import DIMENSION, MEMBER, to_table
from spark_jobs.vectors.scaling import scale

_MONTHS = ("2024-01", "2024-02")
_STAYING = 0.8
_SEGMENTS, _PAGES = 12, 120
_PROFILES = 100_000  # distinct ones, at most
_PROFILED = "what each segment is (a part of kmeans; memory of all of it)"
_AT_A_TIME = 1 << 18  # users whose rows are written at a time

Row = dict[str, Any]


@click.command(help=__doc__)
@click.option("--users", type=click.IntRange(1000), default=5_000_000, show_default=True)
@click.option("--raw", default="../shared/data/ansible", show_default=True, help="Real data; empty for none.")
@click.option("--months", default="2018-11,2018-12", show_default=True, help="Of it, separated by commas.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("build/following-times"), show_default=True)
@click.option("--page", type=click.Path(path_type=Path), help="[default: times.md here]")
def main(users: int, raw: str, months: str, folder: Path, page: Path | None) -> None:
    rows = _large(folder / f"users-{users}", users)
    if raw:
        rows += _real(folder / "real", Path(raw).absolute(), months.split(","))
    page = page or Path(__file__).with_name("times.md")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(tables(rows))
    click.echo(page)


def measured(what: str, step: str, job: Callable[..., float | None], *arguments: Any) -> Row:
    """Run a function in a process of its own; the seconds are the CPU's, or those that it returns."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        seconds, peak = pool.submit(_measure, job, arguments).result()
    row = {"what": what, "step": step, "cpu_seconds": round(seconds, 1), "peak_mb": round(peak / 1e6)}
    click.echo(json.dumps(row))
    return row


def _measure(job: Callable[..., float | None], arguments: Iterable[Any]) -> tuple[float, int]:
    before = time.process_time()
    of_part = job(*arguments)
    seconds = time.process_time() - before if of_part is None else of_part
    # Not ru_maxrss, which a process has from the one that started it.
    return seconds, _kilobytes(Path("/proc/self/status"), "VmHWM")


def run(job: str, *arguments: object) -> None:
    """Run a job in this process, as from a terminal."""
    command = importlib.import_module(f"spark_jobs.{job}").main
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        command([str(argument) for argument in arguments], standalone_mode=False)


# --- the steps


def cluster(inputs: Path, output: Path, k: int) -> float:
    """Run kmeans; returns the CPU seconds in which it said what each segment is."""
    kmeans = importlib.import_module("spark_jobs.kmeans")
    whole, seconds = kmeans.profile_segments, 0.0

    def timed(*arguments: Any) -> Any:
        nonlocal seconds
        before = time.process_time()
        found = whole(*arguments)
        seconds = time.process_time() - before
        return found

    kmeans.profile_segments = timed
    try:
        run("kmeans", inputs, output, "--k", k, "--n-init", 1)
    finally:
        kmeans.profile_segments = whole
    return seconds


def follow(clusters: Path, inputs: Path, output: Path, month: str, previous: Path | None) -> None:
    before = () if previous is None else ("--previous", previous)
    run("follow_segments", clusters, inputs, output, "--month", month, *before)


def report(clusters: Path, output: Path, month: str, category: str, segments: Path) -> None:
    run("make_report", clusters, output, "--month", month, "--category", category, "--segments", segments)


# --- a large category


def _large(folder: Path, users: int) -> list[Row]:
    shutil.rmtree(folder / "made", ignore_errors=True)
    rows, before = [], None
    for number, month in enumerate(_MONTHS):
        inputs = folder / "inputs" / month
        clusters, segments, page = (folder / "made" / step / month for step in ("clusters", "segments", "report"))
        if not (inputs / "manifest.json").exists():
            write_inputs(inputs, users, round(users * (1 - _STAYING)) * number, number)
        what = f"{users:,} users, month {number + 1}"
        rows += [
            measured(what, _PROFILED, cluster, inputs, clusters, _SEGMENTS),
            measured(what, "follow", follow, clusters, inputs, segments, month, before),
            measured(what, "report", report, clusters, page, month, "large", segments),
        ]
        before = segments
    return rows


def write_inputs(folder: Path, users: int, first: int, seed: int) -> None:
    """Write the clustering inputs of users from number `first` on, each in a segment that is the user's for ever."""
    random = np.random.default_rng(seed)
    profiles, actions = _profiles(random, min(_PROFILES, users // 10))
    number = np.arange(first, first + users)
    profile = number % _SEGMENTS + _SEGMENTS * random.integers(0, len(actions) // _SEGMENTS, users)
    weight = np.bincount(profile, minlength=len(actions))
    there = np.flatnonzero(weight)
    profile = np.searchsorted(there, profile)
    profiles, actions, weight = profiles[there], actions[there], weight[there]
    config, enough = ClusteringInputsConfig(), actions >= FIT_MIN_ACTIONS
    scaled, factor = scale(profiles, weight, parse_scaling(config.scaling))
    with outputs.writing(
        "clustering_inputs", "generated", str(folder), Reporter(), config=config, inputs=[], fingerprint=str(folder)
    ) as made:
        if made.finished:
            return
        made.write_table("dimensions.parquet", _dimensions(profiles, weight))
        made.write_table("profiles.parquet", to_table(scaled, weight, np.where(enough, weight, 0)))
        _write_members(made, number, profile, actions)
        summary = {
            "category": {"id": 1, "name": "large", "private": False},
            "users": users,
            "fit_users": int(weight[enough].sum()),
            "fit_min_actions": FIT_MIN_ACTIONS,
            "profiles": len(weight),
            "entries": int(scaled.nnz),
            "actions": dict.fromkeys(ACTIONS, 0) | {ACTIONS[0]: int((weight * actions).sum())},
            "scaling_factor": factor,
        }
        made.complete(rows={"members": users}, summary=summary)


def _profiles(random: np.random.Generator, count: int) -> tuple[sp.csr_matrix, np.ndarray]:
    """(count, _PAGES) actions, and how many in each, (count,): a third of them on the pages of the row's segment."""
    own = _PAGES // _SEGMENTS // 2
    likes = np.full((_SEGMENTS, _PAGES), 0.7 / _PAGES)
    for segment in range(_SEGMENTS):
        likes[segment, segment * own :][:own] += 0.3 / own
    actions = np.minimum(1 + random.poisson(3 * (1 + random.pareto(1.5, count))), 300)
    counts = random.multinomial(actions, likes[np.arange(count) % _SEGMENTS])
    return sp.csr_matrix(counts.astype(float)), actions


def _dimensions(profiles: sp.csr_matrix, weight: np.ndarray) -> pa.Table:
    names = [f"page {page}" for page in range(_PAGES)]
    users, total = (np.asarray(matrix.T @ weight).ravel() for matrix in (profiles > 0, profiles))
    columns = [range(_PAGES), names, names, ["facebook"] * _PAGES, users, total]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, DIMENSION, strict=True)]
    return pa.Table.from_arrays(arrays, schema=DIMENSION)


def _write_members(made: outputs.Output, number: np.ndarray, profile: np.ndarray, actions: np.ndarray) -> None:
    order = np.argsort(number.astype(np.uint64) * np.uint64(6_364_136_223) % np.uint64(10**10))  # as `user_ids` does
    with made.open_file("members.parquet") as file, pq.ParquetWriter(file, MEMBER, compression="zstd") as writer:
        for start in range(0, len(order), _AT_A_TIME):
            rows = order[start : start + _AT_A_TIME]
            gender = pa.array(["0", "1", "2"]).take(pa.array(number[rows] % 3))
            did, none = pa.array(actions[profile[rows]]), pa.array(np.zeros(len(rows), np.int64))
            of_each = [did, *[none] * (len(ACTIONS) - 1)]
            columns = [user_ids(number[rows]), gender, pa.array(profile[rows]), did, *of_each]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=MEMBER))


# --- real months of many categories


def _real(folder: Path, raw: Path, months: list[str]) -> list[Row]:
    """All categories in one process, as a launch of Dagster's does them."""
    shutil.rmtree(folder, ignore_errors=True)
    names = sorted(file.stem for file in (raw / "categories").glob("*.json"))
    rows, before = [], None
    for month in months:
        made = {step: folder / step / month for step in ("users", "inputs", "clusters", "segments", "report")}
        run("group_by_user", raw / "raw" / f"month={month}", made["users"])
        categories = [text for name in names for text in ("--category", raw / "categories" / f"{name}.json")]
        run("make_clustering_inputs", made["users"], made["inputs"] / "{category}", *categories)
        what = f"{len(names)} categories, {month}"
        rows += [
            measured(what, _PROFILED, _cluster_all, made, names),
            measured(what, "follow", _follow_all, made, names, month, before),
            measured(what, "report", _report_all, made, names, month),
        ]
        before = made["segments"]
    return rows


def _cluster_all(made: dict[str, Path], names: list[str]) -> float:
    return sum(cluster(made["inputs"] / name, made["clusters"] / name, 4) for name in names)


def _follow_all(made: dict[str, Path], names: list[str], month: str, before: Path | None) -> None:
    for name in names:
        previous = None if before is None else before / name
        follow(made["clusters"] / name, made["inputs"] / name, made["segments"] / name, month, previous)


def _report_all(made: dict[str, Path], names: list[str], month: str) -> None:
    for name in names:
        report(made["clusters"] / name, made["report"] / name, month, name, made["segments"] / name)


# --- the page


def tables(rows: list[Row]) -> str:
    """What was measured, as Markdown."""
    memory = _kilobytes(Path("/proc/meminfo"), "MemTotal")
    lines = [
        "# The time of following segments",
        "",
        f"`python -m benchmarks.following.times` on {multiprocessing.cpu_count()} cores, {memory / 2**30:.0f} GiB,"
        f" {platform.platform()}, Python {platform.python_version()}, pyarrow {pa.__version__}. CPU seconds; the"
        " machine was busy. Peak memory is of a process that did this and nothing else, with its libraries. Aims: 30 s"
        " for a month of 13 categories, 60 s for one of a category with 5M users (of 100,000 profiles).",
        "",
        "| what | step | CPU seconds | peak memory, MB |",
        "|---|---|--:|--:|",
    ]
    lines += [f"| {row['what']} | {row['step']} | {row['cpu_seconds']:.1f} | {row['peak_mb']} |" for row in rows]
    for what in dict.fromkeys(row["what"] for row in rows):
        total = sum(row["cpu_seconds"] for row in rows if row["what"] == what)
        lines.append(f"| {what} | **all three** | {total:.1f} | |")
    return "\n".join(lines) + "\n"


def _kilobytes(file: Path, name: str) -> int:
    """A number of kilobytes that the kernel gives, in bytes."""
    return 1024 * int(file.read_text().split(f"{name}:")[1].split()[0])


if __name__ == "__main__":
    main()
