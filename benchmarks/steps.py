"""Time and peak memory of each job on generated raw actions, on both engines.

    python -m benchmarks.steps --actions 1000000 --actions 20000000

Every job is a process of its own, as from a terminal; its memory is the sum of the resident sets of the process and all
that it started, sampled ten times a second. Prints a Markdown table.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from spark_jobs.config import ACTIONS

MONTH = "2024-01"
CATEGORIES = 10
PAGES_OF_CATEGORY = 100
_CHUNK = 1_000_000


@dataclass(frozen=True)
class Measured:
    """What a process took."""

    seconds: float
    peak_bytes: int


@click.command(help=__doc__)
@click.option(
    "--actions", "sizes", multiple=True, type=int, default=[1_000_000], show_default=True, help="Raw actions."
)
@click.option("--engine", "engines", multiple=True, default=["sail", "spark"], show_default=True)
def main(sizes: tuple[int, ...], engines: tuple[str, ...]) -> None:
    click.echo(f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.platform()}\n")
    click.echo("| actions | job | engine | seconds | peak memory, GB |\n|--:|---|---|--:|--:|")
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="audience-explorer-bench-") as place:
            folder = Path(place)
            _make_actions(folder / f"month={MONTH}", size)
            for category in range(CATEGORIES):
                _write_category(folder / "categories" / f"c{category}.json", category)
            for engine in engines:
                _measure_engine(folder, size, engine)


def _measure_engine(folder: Path, size: int, engine: str) -> None:
    place = folder / engine
    files = [option for file in sorted((folder / "categories").iterdir()) for option in ("--category", str(file))]
    inputs, one = place / "inputs", place / "inputs" / "c0"
    jobs: list[list[object]] = [
        ["group_by_user", folder / f"month={MONTH}", place / "users", "--engine", engine],
        ["make_clustering_inputs", place / "users", inputs / "{category}", *files, "--engine", engine],
    ]
    if engine == "sail":  # the others are the same on every engine
        jobs += [["select_k", one, place / "k"], ["kmeans", one, place / "kmeans", "--k", 12]]
    for job in jobs:
        measured = _measure([sys.executable, "-m", f"spark_jobs.{job[0]}", *map(str, job[1:])])
        on = engine if "--engine" in job else "scikit-learn"
        click.echo(f"| {size:,} | {job[0]} | {on} | {measured.seconds:.1f} | {measured.peak_bytes / 1e9:.2f} |")


def _measure(command: list[str]) -> Measured:
    """Run a command, and measure it and all that it starts."""
    start = time.monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        peak, ended = [0], threading.Event()
        sampler = threading.Thread(target=_sample, args=(psutil.Process(process.pid), peak, ended))
        sampler.start()
        code = process.wait()
        seconds = time.monotonic() - start
        ended.set()
        sampler.join()
        if code:
            said.seek(0)
            raise click.ClickException(f"{' '.join(command)} exited with {code}:\n{said.read().decode()[-3000:]}")
    return Measured(seconds, peak[0])


def _sample(process: psutil.Process, peak: list[int], ended: threading.Event) -> None:
    while not ended.wait(0.1):
        total = 0
        try:
            for one in [process, *process.children(recursive=True)]:
                try:
                    total += one.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
        except psutil.NoSuchProcess:
            return
        peak[0] = max(peak[0], total)


def _make_actions(folder: Path, size: int, seed: int = 1) -> None:
    """Heavy-tailed users and pages: most users act once or twice, and a few pages have most of the actions."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    users, pages = max(1, size // 4), 20_000
    for number, start in enumerate(range(0, size, _CHUNK)):
        rows = min(_CHUNK, size - start)
        user = (users * random.power(0.5, rows)).astype(np.int64)
        page = np.minimum(random.zipf(1.3, rows) - 1, pages - 1)
        table = pa.table(
            {
                "user_id": pa.array(np.char.add("user-", user.astype(str))),
                "page_id": pa.array(np.char.add("page-", page.astype(str))),
                "action": pa.array(np.array(ACTIONS)[random.integers(0, 4, rows)]),
                "gender": pa.array(np.array(["0", "1", "2"])[user % 3]),
            }
        )
        pq.write_table(table, folder / f"part-{number:05d}.parquet")


def _write_category(file: Path, number: int) -> None:
    """Each category has every tenth of the most popular pages, so that all have users enough."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pages = [f"page-{number + CATEGORIES * rank}" for rank in range(PAGES_OF_CATEGORY)]
    file.write_text(json.dumps({"id": number, "facebook": [{"id": page, "name": page} for page in pages]}))


if __name__ == "__main__":
    main()
