"""A made-up audience with known segments, for the demo and for tests. It has what makes real audiences hard:

- Most people do a handful of things a month, a few do hundreds (Pareto).
- A few pages of a category are everybody's: liked alike in all segments, they say nothing about a person.
- Now and then a visit is a burst: dozens of comments by one person on one page, within an hour.
- Segments differ in size, and people also visit pages of other segments than their own, at random.
- One category has no segments, only more and less popular pages. Another has too few people to find any.

A person keeps their segment, and how active they are, over the months.
"""

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from spark_jobs import storage
from spark_jobs.config import ACTIONS, FIT_MIN_ACTIONS
from spark_jobs.errors import InputError
from spark_jobs.outputs.tables import read_table, write_table

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
    # No segments: everybody picks from the same pages, the first ones more often.
    "news": {
        "readers": [
            "Evening Headlines",
            "The Daily Courier",
            "Weather Watch",
            "Morning Briefing",
            "World Desk",
            "City Hall Live",
            "The Sunday Read",
            "Traffic & Trains",
            "Fact Check",
            "Election Tracker",
            "Money Matters",
            "Science Weekly",
            "Photo of the Day",
            "Letters to the Editor",
            "Court Reports",
            "Local Sports Results",
            "Obituaries",
            "Crossword Corner",
        ],
    },
    # Two segments, but too few people to find them.
    "beekeeping": {
        _EVERYBODY: ["World Bee Day", "Honey Recipes"],
        "backyard": ["First Hive", "Urban Beekeepers", "Garden for Bees"],
        "commercial": ["Pollination Contracts", "Queen Breeders", "Extractor Exchange"],
    },
}

# Interested people: a share of all users, but for the category that has few however many users there are.
_INTERESTED = {"coffee": 0.3, "running": 0.2, "gaming": 0.35, "travel": 0.25, "news": 0.4}
_FEW = 50
_ACTIVE = 0.75  # the share of the interested who do anything in a month, about
_VISITS, _TAIL, _MOST_VISITS = 2.6, 1.25, 600  # a month: of the least active, Pareto's exponent, at most
_ON_EVERYBODYS, _ON_OTHERS = 0.18, 0.1  # the shares of visits that are not on pages of the own segment
_BURST, _BURST_COMMENTS = 0.01, 20  # the chance that a visit is a burst, and its comments beyond the first ten, about


def planted(category: str) -> int:
    """How many segments a category has; 1 where there is no structure."""
    return len(_segments(category))


def make(root: str, users: int = 50_000, seed: int = SEED) -> None:
    """Write category files, three months of raw actions, and the segments users belong to, under `root`.

    The months differ in format, and have a few rows that break a rule, as real ones do. `truth.parquet` has a row a
    user and category: `user_id`, `category`, `segment`.
    """
    for number, category in enumerate(CATEGORIES):
        _write_category(root, number, category)
    random = np.random.default_rng(seed)
    user_ids = pa.array([f"user-{number:06d}" for number in range(users)])
    genders = pa.array(random.choice(["0", "1", "2"], users, p=[0.2, 0.4, 0.4]))
    interests = [
        _interest(np.random.default_rng([seed, *category.encode()]), category, users) for category in CATEGORIES
    ]
    truth = pa.concat_tables(
        pa.table(
            {
                "user_id": user_ids.take(pa.array(interest.user)),
                "category": [interest.category] * len(interest.user),
                "segment": np.array(_segments(interest.category))[interest.segment],
            }
        )
        for interest in interests
    )
    write_table(root, TRUTH, truth)
    for month in MONTHS:
        parts = [
            _actions(np.random.default_rng([seed, *f"{interest.category}|{month}".encode()]), month, interest)
            for interest in interests
        ]
        actions = pa.concat_tables(parts).sort_by([("timestamp", "ascending"), ("user", "ascending")])
        _write_month(root, month, _as_raw(actions, user_ids, genders))


def check_root(root: str) -> None:
    """Check that `make` would not mix its data with somebody else's.

    Raises:
        InputError: There is other raw data under `root`.
    """
    if storage.at(storage.join(root, "raw")).exists() and not storage.at(storage.join(root, TRUTH)).exists():
        raise InputError(f"{root} holds raw data that is not the demo's. Name another folder with --root.")


def agreement(root: str, category: str, inputs: str, assignments: str) -> float:
    """How well clusters match the segments they came from: the adjusted Rand index (Hubert and Arabie 1985).

    People with fewer than `FIT_MIN_ACTIONS` actions are left out: what they do says too little about them.

    Args:
        root: Where `make` wrote.
        category: The category.
        inputs: The folder of the clustering inputs.
        assignments: The folder of a kmeans output made from them.

    Returns:
        1 for the same partition of the users, about 0 for one made by chance.
    """
    from sklearn.metrics import adjusted_rand_score

    truth = read_table(root, TRUTH)
    truth = truth.filter(pc.equal(truth["category"], category)).select(["user_id", "segment"])
    members = read_table(inputs, "members.parquet")
    members = members.filter(pc.greater_equal(members["actions"], FIT_MIN_ACTIONS)).select(["user_id"])
    clusters = read_table(assignments, "assignments.parquet").select(["user_id", "cluster_id"])
    joined = clusters.join(members, "user_id", join_type="inner").join(truth, "user_id", join_type="inner")
    return float(adjusted_rand_score(joined["segment"].to_pylist(), joined["cluster_id"].to_pylist()))


def _segments(category: str) -> list[str]:
    return [name for name in CATEGORIES[category] if name != _EVERYBODY]


def _page_id(category: str, name: str) -> str:
    return f"{category}-{''.join(c if c.isalnum() else '-' for c in name.lower())}"


def _write_category(root: str, number: int, category: str) -> None:
    pages = [{"id": _page_id(category, name), "name": name} for name in _names(category)]
    content = {"id": number, "name": category.title(), "private": False, "facebook": pages}
    storage.write_text(storage.join(root, "categories", f"{category}.json"), json.dumps(content, indent=1) + "\n")


def _names(category: str) -> list[str]:
    return [name for names in CATEGORIES[category].values() for name in names]


def _page_chances(category: str) -> np.ndarray:
    """The chance of each page at a visit, by segment; (segments, pages), rows add up to 1."""
    groups = CATEGORIES[category]
    group = np.repeat(np.arange(len(groups)), [len(names) for names in groups.values()])
    rank = np.concatenate([np.arange(1, len(names) + 1) for names in groups.values()])
    everybodys = np.array([name == _EVERYBODY for name in groups])
    own = np.flatnonzero(~everybodys)
    if len(own) == 1:
        popularity = rank**-0.8
        return np.asarray(popularity / popularity.sum())[None]
    popularity = np.where(everybodys[group], 1, rank**-0.4)
    popularity /= np.bincount(group, popularity)[group]  # adds up to 1 in each group
    visits = np.full((len(own), len(groups)), _ON_OTHERS / (len(own) - 1))
    visits[:, everybodys] = _ON_EVERYBODYS
    visits[np.arange(len(own)), own] = 1 - _ON_EVERYBODYS - _ON_OTHERS
    return np.asarray(visits[:, group] * popularity)


@dataclass(frozen=True)
class _Interest:
    """Who is interested in a category: n people."""

    category: str
    user: np.ndarray  # (n,) their numbers, in order
    segment: np.ndarray  # (n,) which of the category's segments they belong to
    visits: np.ndarray  # (n,) how many they make in a month, on average


def _interest(random: np.random.Generator, category: str, users: int) -> _Interest:
    share = _INTERESTED.get(category)
    size = _FEW if share is None else random.binomial(users, share)
    user = np.sort(random.choice(users, size, replace=False))
    segments = len(_segments(category))
    sizes = np.linspace(3, 1, segments)  # the largest is three times the smallest
    segment = random.choice(segments, size, p=sizes / sizes.sum())
    visits = np.minimum(_VISITS * (1 + random.pareto(_TAIL, size)), _MOST_VISITS)
    return _Interest(category, user, segment, visits)


def _actions(random: np.random.Generator, month: str, interest: _Interest) -> pa.Table:
    """A month's actions on a category's pages: `user` (their number), `page_id`, `action`, `timestamp`."""
    active = random.random(len(interest.user)) < _ACTIVE
    visits = np.where(active, random.poisson(interest.visits), 0)
    visitor = np.repeat(np.arange(len(visits)), visits)
    chances = _page_chances(interest.category).cumsum(axis=1)
    page = (random.random(len(visitor))[:, None] > chances[interest.segment[visitor], :-1]).sum(axis=1)
    moment = random.integers(0, 28 * 86400, len(visitor))  # seconds into the month
    action = random.choice(len(ACTIONS), len(visitor), p=[0.2, 0.1, 0.5, 0.2])

    burst = random.random(len(visitor)) < _BURST
    comments = np.where(burst, 10 + random.geometric(1 / _BURST_COMMENTS, len(visitor)), 1)
    visit = np.repeat(np.arange(len(visitor)), comments)
    moment = moment[visit] + np.where(burst[visit], random.integers(0, 3600, len(visit)), 0)
    action = np.where(burst[visit], ACTIONS.index("post_comment"), action[visit])
    page_ids = pa.array([_page_id(interest.category, name) for name in _names(interest.category)])
    return pa.table(
        {
            "user": interest.user[visitor[visit]],
            "page_id": page_ids.take(pa.array(page[visit])),
            "action": pa.array(ACTIONS).take(pa.array(action)),
            "timestamp": np.datetime64(f"{month}-01T00:00:00", "s") + moment.astype("timedelta64[s]"),
        }
    )


def _as_raw(actions: pa.Table, user_ids: pa.Array, genders: pa.Array) -> pa.Table:
    return pa.table(
        {
            "user_id": user_ids.take(actions["user"]),
            "gender": genders.take(actions["user"]),
            "page_id": actions["page_id"],
            "action": actions["action"],
            "timestamp": pc.strftime(actions["timestamp"], format="%Y-%m-%dT%H:%M:%SZ"),
        }
    )


def _write_month(root: str, month: str, actions: pa.Table) -> None:
    folder = storage.join(root, "raw", f"month={month}")
    if month == MONTHS[0]:
        with storage.new_file(storage.join(folder, "actions.parquet")) as file:
            pq.write_table(actions, file, compression="zstd")
    else:
        half = actions.num_rows // 2
        _write_json_lines(folder, actions.slice(0, half))
        _write_csv(folder, actions.slice(half))


def _write_json_lines(folder: str, actions: pa.Table) -> None:
    names = actions.column_names
    around = [f'{{"{names[0]}": "', *(f'", "{name}": "' for name in names[1:]), '"}']
    lines = _lines(actions, around)
    lines[100] = lines[100][:40]  # cut off in mid-line
    lines[200] = json.dumps({**json.loads(lines[200]), "action": "page_poke"})
    text = "\n".join(lines) + "\n"
    with (
        storage.new_file(storage.join(folder, "actions.jsonl.gz")) as file,
        # Neither its time nor its name, which is a draft's: the same actions are the same bytes.
        gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=1, mtime=0) as compressed,
    ):
        compressed.write(text.encode())


def _write_csv(folder: str, actions: pa.Table) -> None:
    lines = _lines(actions, ["", *[","] * (actions.num_columns - 1), ""])
    nobody = lines[0][lines[0].index(",") :]  # who did this is missing
    text = "\n".join([",".join(actions.column_names), *lines, nobody]) + "\n"
    with storage.new_file(storage.join(folder, "actions.csv")) as file:
        file.write(text.encode())


def _lines(actions: pa.Table, around: Sequence[str]) -> list[str]:
    """A line a row: its values, none of which needs quotes or escapes, with text before, between and after them."""
    parts = [part for text, column in zip(around, actions.columns, strict=False) for part in (pa.scalar(text), column)]
    lines: list[str] = pc.binary_join_element_wise(*parts, pa.scalar(around[-1]), pa.scalar("")).to_pylist()
    return lines
