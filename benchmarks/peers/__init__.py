"""The same work done with other tools, each written as a good practitioner of it would.

Each peer is a module with the same command line:

    python -m benchmarks.peers.duckdb_sklearn group RAW OUT
    python -m benchmarks.peers.duckdb_sklearn inputs USERS OUT CATEGORY_FILE…
    python -m benchmarks.peers.duckdb_sklearn kmeans INPUTS OUT --k 12
    python -m benchmarks.peers.duckdb_sklearn month RAW OUT CATEGORY_FILE… --k 12

They write the contract's outputs: `group` OUT/users/*.parquet and OUT/rejects/*.parquet; `inputs`
OUT/CATEGORY/{dimensions,profiles,members}.parquet, scaled by `max`; `kmeans` data.json, meta-data.json,
assignments.parquet and centers.parquet; `month` all of it below OUT/users, OUT/inputs and OUT/kmeans. RAW holds
Parquet files only. What is not asked of them: fingerprints, manifests, S3, reading back what was written.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import click

from spark_jobs.raw.rules import BAD_ACTION, BAD_COUNT, NO_PAGE, NO_USER, OTHER_MONTH
from spark_jobs.vectors.category_files import Category, read_category

__all__ = ["BAD_ACTION", "BAD_COUNT", "NO_PAGE", "NO_USER", "OTHER_MONTH", "Category", "Peer", "command_line", "part"]

COMPRESSION: Literal["zstd"] = "zstd"  # of all that is written, as in ours
CATEGORY_FILE = "category.json"  # beside a category's inputs, for k-means needs to know whether it is private

_seconds: dict[str, float] = {}


class Peer(Protocol):
    """What a peer does."""

    def group(self, raw: Path, out: Path, month: str) -> None:
        """Raw actions to grouped users and rejects."""

    def inputs(self, users: Path, out: Path, categories: Sequence[Category]) -> None:
        """Grouped users to the clustering inputs of all categories."""

    def kmeans(self, inputs: Path, out: Path, k: int, n_init: int, seed: int, one_row_a_user: bool) -> None:
        """A category's inputs to clusters."""


@contextmanager
def part(name: str) -> Iterator[None]:
    """Note how long a part of the work takes; the parts are printed at the end, as a line of JSON."""
    started = time.monotonic()
    yield
    _seconds[name] = _seconds.get(name, 0) + time.monotonic() - started


def command_line(make: Callable[[Path, int | None], Peer], n_init: int, one_row_a_user: bool = False) -> click.Group:
    """The commands of a peer, which is made of a scratch folder and of how many bytes of memory it may take.

    Args:
        make: Makes the peer.
        n_init: Inits of its k-means, by default.
        one_row_a_user: Whether its k-means is over one row a user by default, and not over the weighted profiles.
    """

    @click.group(help=__doc__)
    @click.option("--memory", type=int, help="Bytes that the process may take; by default what the tool takes.")
    @click.option("--scratch", type=click.Path(path_type=Path), default="scratch", help="For what does not fit.")
    @click.pass_context
    def main(context: click.Context, memory: int | None, scratch: Path) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        context.obj = make(scratch, memory)

    @main.result_callback()
    def end(*_: object, **__: object) -> None:
        click.echo(json.dumps({"parts": {name: round(seconds, 3) for name, seconds in _seconds.items()}}))

    month_option = click.option("--month", default="2024-01", show_default=True)
    k_options = [
        click.option("--k", type=int, required=True),
        click.option("--n-init", type=int, default=n_init, show_default=True),
        click.option("--seed", type=int, default=0, show_default=True),
        click.option("--one-row-a-user/--profiles", default=one_row_a_user, help="What k-means is over."),
    ]

    def with_k(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(k_options):
            command = option(command)
        return command

    place = click.Path(path_type=Path)

    @main.command()
    @click.argument("raw", type=place)
    @click.argument("out", type=place)
    @month_option
    @click.pass_obj
    def group(peer: Peer, raw: Path, out: Path, month: str) -> None:
        with part("group"):
            peer.group(raw, _new(out), month)

    @main.command()
    @click.argument("users", type=place)
    @click.argument("out", type=place)
    @click.argument("category_files", nargs=-1, required=True)
    @click.pass_obj
    def inputs(peer: Peer, users: Path, out: Path, category_files: tuple[str, ...]) -> None:
        with part("inputs"):
            _make_inputs(peer, users, out, category_files)

    @main.command()
    @click.argument("inputs", type=place)
    @click.argument("out", type=place)
    @with_k
    @click.pass_obj
    def kmeans(peer: Peer, /, inputs: Path, out: Path, **options: Any) -> None:
        peer.kmeans(inputs, _new(out), **options)

    @main.command()
    @click.argument("raw", type=place)
    @click.argument("out", type=place)
    @click.argument("category_files", nargs=-1, required=True)
    @month_option
    @with_k
    @click.pass_obj
    def month(peer: Peer, /, raw: Path, out: Path, category_files: tuple[str, ...], month: str, **options: Any) -> None:
        with part("group"):
            peer.group(raw, _new(out / "users"), month)
        with part("inputs"):
            names = _make_inputs(peer, out / "users", out / "inputs", category_files)
        for name in names:
            peer.kmeans(out / "inputs" / name, _new(out / "kmeans" / name), **options)

    return main


def _make_inputs(peer: Peer, users: Path, out: Path, category_files: Sequence[str]) -> list[str]:
    categories = [read_category(file) for file in category_files]
    for category, file in zip(categories, category_files, strict=True):
        shutil.copy(file, _new(out / category.name) / CATEGORY_FILE)
    peer.inputs(users, out, categories)
    return [category.name for category in categories]


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
