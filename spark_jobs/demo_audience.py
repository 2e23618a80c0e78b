"""A made-up audience with known segments, for the demo and for tests.

Every user of a category belongs to one of its segments. Most of what they do is on the segment's pages, some on pages
that everybody visits, some on another segment's: so segments overlap, as real ones do.
"""

import csv
import gzip
import io
import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from spark_jobs import outputs, storage
from spark_jobs.config import ACTIONS
from spark_jobs.errors import InputError

MONTHS = ("2024-01", "2024-02", "2024-03")
SEED = 7
TRUTH = "truth.parquet"

_EVERYBODY = "everybody"
CATEGORIES: dict[str, dict[str, list[str]]] = {
    "coffee": {
        _EVERYBODY: ["International Coffee Day", "Coffee Memes Daily"],
        "home espresso": ["Home Espresso Club", "Grinder Reviews", "Latte Art Lessons", "Machine Restorers"],
        "filter and origin": ["Pour-Over Society", "Single Origin Weekly", "Light Roast Letters", "Kenya AA Growers"],
        "coffeehouse chains": [
            "Harbor Coffeehouse",
            "Pumpkin Latte Season",
            "Drive-Thru Coffee Deals",
            "Iced & Blended",
        ],
        "office and instant": ["Office Kitchen", "Instant Coffee Hacks", "Capsule Offers", "Three Cups Before Nine"],
    },
    "running": {
        _EVERYBODY: ["World Running Day", "Shoe Finder"],
        "marathon": ["Marathon Majors", "Negative Split", "Long Run Sunday", "Carbon Plate Lab"],
        "trail and ultra": ["Trail Atlas", "Hundred Mile Club", "Mountain Goats", "Vest & Poles"],
        "parkrun": ["Saturday 5K", "Couch to 5K", "Buggy Runners", "Finish Line Coffee"],
    },
    "gaming": {
        _EVERYBODY: ["Game of the Year", "Patch Notes"],
        "shooters": ["Aim Trainer", "Battle Royale News", "Loadout Lab", "Ranked Grind", "Esports Live"],
        "cozy": ["Farm Sim Almanac", "Cozy Corner", "Island Designers", "Pixel Gardens", "Cat Café Tycoon"],
        "strategy": ["Grand Strategy Forum", "One More Turn", "Build Orders", "Hex & Counter", "City Planners"],
        "retro": ["Cartridge Collectors", "CRT Appreciation", "Speedrun Archive", "Arcade Cabinets", "8-Bit Music"],
        "mobile": ["Match Three Tips", "Daily Streaks", "Gacha Watch", "Pocket Puzzles", "Idle Empires"],
    },
    "travel": {
        _EVERYBODY: ["Airport Stories", "Cheap Flights Radar"],
        "backpackers": ["Hostel World Notes", "Night Bus Diaries", "Visa Run", "Street Food Map"],
        "families": ["Kids Fly Free", "Theme Park Planner", "All-Inclusive Deals", "Holiday Homes"],
        "city breaks": ["48 Hours In", "Museum Late Nights", "Rooftop Bars", "Boutique Hotels"],
        "outdoors": ["National Parks", "Van Life", "Hut to Hut", "Kayak Camping"],
    },
}


def make(root: str, users: int = 50_000, seed: int = SEED) -> None:
    """Write category files, three months of raw actions, and the segments users belong to, under `root`.

    The months differ in format, and hold a few rows that break a rule, as real ones do. `truth.parquet` has a row a
    user and category: `user_id`, `category`, `segment`.
    """
    random = np.random.default_rng(seed)
    for number, (category, segments) in enumerate(CATEGORIES.items()):
        _write_category(root, number, category, segments)
    user_ids = np.array([f"user-{number:06d}" for number in range(users)])
    genders = random.choice(["0", "1", "2"], users, p=[0.2, 0.4, 0.4])
    truth = []
    interests: list[tuple[str, np.ndarray, np.ndarray]] = []
    for category, segments in CATEGORIES.items():
        interested = np.flatnonzero(random.random(users) < 0.4)
        # Segments differ in size, the largest about three times the smallest.
        share = np.linspace(3, 1, len(segments) - 1)
        segment = random.choice(len(segments) - 1, len(interested), p=share / share.sum())
        interests.append((category, interested, segment))
        names = np.array([name for name in segments if name != _EVERYBODY])
        truth.append(
            pa.table(
                {"user_id": user_ids[interested], "category": [category] * len(interested), "segment": names[segment]}
            )
        )
    outputs.write_table(root, TRUTH, pa.concat_tables(truth))
    for month in MONTHS:
        parts = [
            _actions(random, month, user_ids, genders, category, interested, segment)
            for category, interested, segment in interests
        ]
        _write_month(root, month, pa.concat_tables(parts))


def check_root(root: str) -> None:
    """Check that `make` would mix its data with nobody's.

    Raises:
        InputError: There is other raw data under `root`.
    """
    if storage.at(storage.join(root, "raw")).exists() and not storage.at(storage.join(root, TRUTH)).exists():
        raise InputError(f"{root} holds raw data that is not the demo's. Name another folder with --root.")


def agreement(root: str, category: str, assignments: str) -> float:
    """How well clusters match the segments they came from: the adjusted Rand index (Hubert and Arabie 1985).

    Args:
        root: Where `make` wrote.
        category: The category.
        assignments: The folder of a kmeans output.

    Returns:
        1 for the same partition of the users, about 0 for one made by chance.
    """
    from sklearn.metrics import adjusted_rand_score

    truth = outputs.read_table(root, TRUTH)
    truth = truth.filter(pa.compute.equal(truth["category"], category))
    joined = outputs.read_table(assignments, "assignments.parquet").join(truth, "user_id", join_type="inner")
    return float(adjusted_rand_score(joined["segment"].to_pylist(), joined["cluster_id"].to_pylist()))


def _page_id(category: str, name: str) -> str:
    return f"{category}-{''.join(c if c.isalnum() else '-' for c in name.lower())}"


def _write_category(root: str, number: int, category: str, segments: dict[str, list[str]]) -> None:
    pages = [{"id": _page_id(category, name), "name": name} for names in segments.values() for name in names]
    content = {"id": number, "name": category.title(), "private": False, "facebook": pages}
    storage.write_text(storage.join(root, "categories", f"{category}.json"), json.dumps(content, indent=1) + "\n")


def _actions(
    random: np.random.Generator,
    month: str,
    user_ids: np.ndarray,
    genders: np.ndarray,
    category: str,
    interested: np.ndarray,
    segment: np.ndarray,
) -> pa.Table:
    """A month's actions of those interested in a category: seven in ten of them are active."""
    segments = CATEGORIES[category]
    everybody = np.array([_page_id(category, name) for name in segments[_EVERYBODY]])
    of_segment = [np.array([_page_id(category, p) for p in names]) for s, names in segments.items() if s != _EVERYBODY]
    active = random.random(len(interested)) < 0.7
    user, home = interested[active], segment[active]
    second = (home + random.integers(1, len(of_segment), len(user))) % len(of_segment)
    actions_of_user = 3 + random.poisson(5, len(user))
    user, home, second = (np.repeat(column, actions_of_user) for column in (user, home, second))
    kind = random.random(len(user))
    # Of twenty actions thirteen are on the own segment's pages, three on everybody's, four on those of a second one.
    where = np.where(kind < 0.8, home, second)
    pick = random.random(len(user))
    page = np.empty(len(user), object)
    for number, pages in enumerate(of_segment):
        here = where == number
        page[here] = pages[(pick[here] * len(pages)).astype(int)]
    common = kind < 0.15
    page[common] = everybody[(pick[common] * len(everybody)).astype(int)]
    moment_of_month = random.integers(0, 28 * 86400, len(user))
    moment = np.datetime64(f"{month}-01T00:00:00") + moment_of_month.astype("timedelta64[s]")
    return pa.table(
        {
            "user_id": user_ids[user],
            "gender": genders[user],
            "page_id": pa.array(page, pa.string()),
            "action": np.array(ACTIONS)[random.choice(4, len(user), p=[0.2, 0.1, 0.5, 0.2])],
            "timestamp": np.char.add(moment.astype(str), "Z"),
        }
    )


def _write_month(root: str, month: str, actions: pa.Table) -> None:
    folder = storage.join(root, "raw", f"month={month}")
    if month == MONTHS[0]:
        with outputs.open_file(folder, "actions.parquet") as file:
            pq.write_table(actions, file, compression="zstd")
    else:
        half = actions.num_rows // 2
        _write_json_lines(folder, actions.slice(0, half))
        _write_csv(folder, actions.slice(half))


def _write_json_lines(folder: str, actions: pa.Table) -> None:
    lines = [json.dumps(row) for row in actions.to_pylist()]
    lines[100] = lines[100][:40]  # cut off in mid-line
    lines[200] = json.dumps({**json.loads(lines[200]), "action": "page_poke"})
    with outputs.open_file(folder, "actions.jsonl.gz") as file, gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as text:
        text.write(("\n".join(lines) + "\n").encode())


def _write_csv(folder: str, actions: pa.Table) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(actions.column_names)
    rows: Sequence[Sequence[str]] = list(zip(*(column.to_pylist() for column in actions.columns), strict=True))
    writer.writerows(rows)
    writer.writerow(["", *rows[0][1:]])  # nobody did this
    with outputs.open_file(folder, "actions.csv") as file:
        file.write(text.getvalue().encode())
