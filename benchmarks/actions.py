"""Generated raw actions of a month, in two shapes, and the categories to cluster them by.

    python -m benchmarks.actions FOLDER --shape social --actions 20000000

`social`: the actions a user follow a discrete power law, so that most users act once or twice and a few hundreds of
times; pages follow Zipf's law, and a user comes back to the same few pages. `worst`: users and pages are uniform, so
that hardly anything repeats. One row in a thousand breaks a rule of the contract. The same arguments give the same
actions.

FOLDER gets `month=2024-01/part-*.parquet` of a million rows each, and `categories/*.json`: `c000` and on, of 100 pages
each, and `wide`, the 120 most popular pages.
"""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from spark_jobs.config import ACTIONS

MONTH = "2024-01"
SHAPES = ("social", "worst")
WIDE = "wide"
PAGES_OF_CATEGORY, PAGES_OF_WIDE = 100, 120

_ROWS_A_FILE = 1_000_000
_TAIL = 2.0  # P(a user has n actions) ∝ n^-2: more than half have one
_MOST_ACTIONS = 100_000  # of a user, at most
_BROKEN = 0.001  # share of the rows that break a rule
_SAME_PAGE = 0.3  # the chance that an action goes to a user's first page, else to the second with the same chance, …
_MONTH_START = np.datetime64("2024-01-01", "us").astype(np.int64)
_MONTH_LENGTH = 31 * 86_400 * 1_000_000


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--shape", type=click.Choice(SHAPES), required=True)
@click.option("--actions", type=click.IntRange(1), required=True, help="Rows.")
@click.option("--users", type=click.IntRange(1), help="By default a quarter of the actions.")
@click.option("--pages", type=click.IntRange(1), default=100_000, show_default=True)
@click.option("--categories", type=click.IntRange(0), default=100, show_default=True, help="Category files.")
@click.option("--seed", type=int, default=1, show_default=True)
def main(folder: Path, shape: str, actions: int, users: int | None, pages: int, categories: int, seed: int) -> None:
    generate(folder, shape, actions, users, pages, categories, seed)


def generate(
    folder: Path,
    shape: str,
    actions: int,
    users: int | None = None,
    pages: int = 100_000,
    categories: int = 100,
    seed: int = 1,
) -> None:
    """Write the actions and the category files."""
    random = np.random.default_rng([seed, 0])
    users = users or max(1, actions // 4)
    popular = random.permutation(pages)  # page numbers, the most popular first
    if shape == "social":
        owners = _social_owners(random, actions, users)
        popularity = np.cumsum(1.0 / np.arange(1, pages + 1))
        popularity /= popularity[-1]

    def rows(number: int, start: int, end: int) -> pa.Table:
        random = np.random.default_rng([seed, 1, number])
        if shape == "social":
            user = owners[start:end].astype(np.int64)
            favourite = random.geometric(_SAME_PAGE, end - start)
            page = popular[np.searchsorted(popularity, _uniform_of(user, favourite))]
        else:
            user = random.integers(0, users, end - start)
            page = random.integers(0, pages, end - start)
        since = _MONTH_START + start * (_MONTH_LENGTH // actions)
        return _table(random, user, page, since, (end - start) * (_MONTH_LENGTH // actions))

    _write_files(folder / f"month={MONTH}", actions, rows)
    _write_categories(folder / "categories", popular, categories, random)


def _social_owners(random: np.random.Generator, actions: int, users: int) -> np.ndarray:
    """(actions,) whose each action is, in random order; the power law is cut off where it gives the wanted mean."""
    n = np.arange(1, _MOST_ACTIONS + 1)
    chance = n**-_TAIL
    means = np.cumsum(n * chance) / np.cumsum(chance)
    most = int(np.searchsorted(means, actions / users)) + 1
    if most > _MOST_ACTIONS or actions < users:
        raise click.UsageError(f"{actions:,} actions of {users:,} users: give 1 to {means[-1]:.1f} times as many.")
    cumulative = np.cumsum(chance[:most])
    counts = 1 + np.searchsorted(cumulative / cumulative[-1], random.random(users))
    owners = np.repeat(np.arange(users, dtype=np.int32), counts)
    random.shuffle(owners)
    # The sum of what was drawn is close to the actions wanted, not equal.
    missing = random.integers(0, users, max(0, actions - len(owners)), dtype=np.int32)
    return np.concatenate([owners[:actions], missing])


def _uniform_of(user: np.ndarray, favourite: np.ndarray) -> np.ndarray:
    """A number in [0, 1) that is the same for the same two, and looks random (SplitMix64's finalizer)."""
    x = user.astype(np.uint64) * np.uint64(1 << 20) + favourite.astype(np.uint64)
    x *= np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return np.asarray((x >> np.uint64(11)) * 2.0**-53)


def _table(random: np.random.Generator, user: np.ndarray, page: np.ndarray, since: int, span: int) -> pa.Table:
    rows = len(user)
    # Of every 16 users two are of no known gender, and two are seen with more than one.
    own = np.array([0, 0] + [1, 2] * 7)[user % 16]
    gender = np.where((user % 16 >= 14) & (random.random(rows) < 0.3), random.integers(0, 3, rows), own)
    count = np.minimum(random.geometric(0.8, rows), 5)
    time = since + random.integers(0, max(1, span), rows)
    action = random.choice(len(ACTIONS), rows, p=[0.4, 0.1, 0.4, 0.1])
    rule = np.where(random.random(rows) < _BROKEN, random.integers(0, 5, rows), -1)  # which one a row breaks
    return pa.table(
        {
            "user_id": pc.if_else(rule == 0, None, user_ids(user)),
            "page_id": pc.if_else(rule == 1, "", page_ids(page)),
            "action": _decoded(np.where(rule == 2, len(ACTIONS), action), [*ACTIONS, "share"]),
            "gender": _decoded(gender, [None, "1", "2"]),
            "count": pa.array(
                np.where(rule == 3, 0, count), pa.int64(), mask=(random.random(rows) < 0.8) & (rule != 3)
            ),
            "timestamp": pa.array(np.where(rule == 4, time + 2 * _MONTH_LENGTH, time), pa.timestamp("us", "UTC")),
        }
    )


def _decoded(codes: np.ndarray, names: list[str | None]) -> pa.StringArray:
    return pa.array(names, pa.string()).take(pa.array(codes))


def user_ids(number: np.ndarray) -> pa.StringArray:
    """Ids of `u` and 10 digits, in no order."""
    return _ids("u", number, 10, 6_364_136_223)


def page_ids(number: np.ndarray) -> pa.StringArray:
    """Ids of `p` and 9 digits, in no order."""
    return _ids("p", number, 9, 362_436_069)


def _ids(letter: str, number: np.ndarray, digits: int, factor: int) -> pa.StringArray:
    # A factor that shares no divisor with 10 gives every number an id of its own.
    scattered = number.astype(np.uint64) * np.uint64(factor) % np.uint64(10**digits) + np.uint64(10**digits)
    return pc.binary_replace_slice(pa.array(scattered).cast(pa.string()), 0, 1, letter)


def _write_files(folder: Path, actions: int, rows: Callable[[int, int, int], pa.Table]) -> None:
    folder.mkdir(parents=True, exist_ok=True)

    def write(item: tuple[int, int]) -> None:
        number, start = item
        table = rows(number, start, min(actions, start + _ROWS_A_FILE))
        pq.write_table(table, folder / f"part-{number:05d}.parquet")

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(write, enumerate(range(0, actions, _ROWS_A_FILE))))


def _write_categories(folder: Path, popular: np.ndarray, categories: int, random: np.random.Generator) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write_category(folder / f"{WIDE}.json", categories, popular[:PAGES_OF_WIDE])
    # Each category has some of the popular pages and some of the others, so that all have users enough.
    shuffled = random.permutation(popular[: max(PAGES_OF_CATEGORY, categories * PAGES_OF_CATEGORY)])
    for category in range(categories):
        places = (category * PAGES_OF_CATEGORY + np.arange(min(PAGES_OF_CATEGORY, len(shuffled)))) % len(shuffled)
        _write_category(folder / f"c{category:03d}.json", category, shuffled[places])


def _write_category(file: Path, number: int, pages: np.ndarray) -> None:
    listed = [{"id": page, "name": f"Page {page}"} for page in page_ids(pages).to_pylist()]
    file.write_text(json.dumps({"id": number, "name": file.stem, "private": number % 2 == 1, "facebook": listed}))


if __name__ == "__main__":
    main()
