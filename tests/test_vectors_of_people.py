"""Vectors and profiles against what is worked out person by person, and the rules of their tables."""

import random
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from spark_jobs.config import ACTIONS, FIT_MIN_ACTIONS
from spark_jobs.outputs.schemas import Inspection, TableRules
from spark_jobs.users.grouping import CODED_USER
from spark_jobs.vectors import profiles
from spark_jobs.vectors.category_files import Category, Page
from spark_jobs.vectors.profiles import ListedTwice, PageIndex, build_inputs, from_table, to_table, vectors_of

WEIGHTS = (1.0, 0.0, 2.5, 10.0)
PAGES = "abcdefg"
CATEGORIES = [
    Category(name, 0, name, False, tuple(Page(page, page.upper(), "net") for page in listed))
    for name, listed in (("x", "cab"), ("y", "bd"), ("z", "e"), ("nobody", "q"))
]


def people(seed: int, count: int = 30) -> list[dict[str, Any]]:
    """People with few actions on some pages; some did nothing there, some nothing at all."""
    chance = random.Random(seed)
    rows = []
    for number in range(count):
        pages = chance.sample(PAGES, chance.randrange(4))
        counts = [{action: chance.choice((0, 0, 1, 3)) for action in ACTIONS} for _ in pages]
        listed = [{"page_id": page, **did} for page, did in zip(pages, counts, strict=True)]
        rows.append({"user_id": f"u{number:02}", "gender": str(number % 3), "pages": listed})
    return rows


def entries(user: dict[str, Any], category: Category) -> list[dict[str, Any]]:
    return [entry for entry in user["pages"] if entry["page_id"] in {page.id for page in category.pages}]


def did(user: dict[str, Any], category: Category) -> dict[str, int]:
    """How often somebody did each action on a category's pages, and in all."""
    counts = {action: sum(entry[action] for entry in entries(user, category)) for action in ACTIONS}
    return {"actions": sum(counts.values()), **counts}


def values(user: dict[str, Any], category: Category) -> tuple[float, ...]:
    by_page: Counter[str] = Counter()
    for entry in entries(user, category):
        by_page[entry["page_id"]] += sum(w * entry[a] for a, w in zip(ACTIONS, WEIGHTS, strict=True))
    return tuple(by_page[page.id] for page in category.pages)


def vectors(rows: list[dict[str, Any]], min_actions: int = 1, parts: int = 1) -> dict[int, list[pa.RecordBatch]]:
    found = defaultdict(list)
    for part in range(parts):
        batch = pa.RecordBatch.from_pylist(rows[part::parts], schema=CODED_USER)
        for place, made in vectors_of(batch, PageIndex(CATEGORIES), WEIGHTS, min_actions):
            made.validate(full=True)
            found[place].append(made)
    return dict(found)


@pytest.mark.parametrize("min_actions", [1, 2, 5])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_everybody_with_an_entry_on_a_categorys_pages_and_enough_actions_has_a_vector_in_it(
    seed: int, min_actions: int
) -> None:
    rows = people(seed)
    found = vectors(rows, min_actions)
    assert sorted(found) == [0, 1, 2], "of a category without people nothing comes"
    for place, (batch,) in found.items():
        category = CATEGORIES[place]
        there = [
            user
            for user in rows
            if entries(user, category) and (min_actions == 1 or did(user, category)["actions"] >= min_actions)
        ]
        assert batch.column("user_id").to_pylist() == [user["user_id"] for user in there]
        assert batch.column("gender").to_pylist() == [user["gender"] for user in there]
        for name in ("actions", *ACTIONS):
            assert batch.column(name).to_pylist() == [did(user, category)[name] for user in there]
        for packed, user in zip(batch.column("vector").to_pylist(), there, strict=True):
            listed = np.frombuffer(packed, profiles.ENTRY)
            expected = [(place, value) for place, value in enumerate(values(user, category)) if value]
            assert list(zip(listed["dimension"].tolist(), listed["value"].tolist(), strict=True)) == expected


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("seed", [4, 5])
def test_profiles_are_the_distinct_vectors_with_those_who_have_each_however_people_were_cut(
    seed: int, parts: int
) -> None:
    rows = people(seed, 60)
    for place, batches in vectors(rows, parts=parts).items():
        category = CATEGORIES[place]
        made = build_inputs(category, pa.Table.from_batches(batches), "none")
        there = sorted((user for user in rows if entries(user, category)), key=lambda user: str(user["user_id"]))
        matrix, weight, fit_weight = from_table(made.profiles, len(category.pages))
        distinct = [tuple(row) for row in matrix.toarray().tolist()]
        having = Counter(values(user, category) for user in there)
        assert dict(zip(distinct, weight.tolist(), strict=True)) == dict(having)
        assert weight.tolist() == sorted(weight.tolist(), reverse=True), "the heaviest first"
        enough = Counter(values(u, category) for u in there if did(u, category)["actions"] >= FIT_MIN_ACTIONS)
        assert fit_weight.tolist() == [enough[profile] for profile in distinct]
        assert made.profiles["profile_id"].to_pylist() == list(range(len(distinct)))
        assert made.members.to_pylist() == [
            {
                "user_id": user["user_id"],
                "gender": user["gender"],
                "profile_id": distinct.index(values(user, category)),
                **did(user, category),
            }
            for user in there
        ]
        assert made.dimensions.to_pylist() == [
            {
                "dimension_index": number,
                "dimension_id": page.id,
                "dimension_name": page.name,
                "network": "net",
                "users": sum(values(user, category)[number] > 0 for user in there),
                "total": sum(values(user, category)[number] for user in there),
            }
            for number, page in enumerate(category.pages)
        ]
        one = build_inputs(category, pa.Table.from_batches(vectors(rows)[place]), "none")
        assert (one.profiles, one.members, one.dimensions) == (made.profiles, made.members, made.dimensions)


def test_a_user_who_is_listed_twice_is_named() -> None:
    rows = people(1)
    listed = next(user for user in rows if entries(user, CATEGORIES[0]))
    batches = vectors([*rows, {**listed, "gender": "9"}])[0]
    with pytest.raises(ListedTwice, match=f"^User '{listed['user_id']}' is listed twice in the grouped users"):
        build_inputs(CATEGORIES[0], pa.Table.from_batches(batches), "none")


def test_pages_know_their_places_in_all_categories() -> None:
    index = PageIndex(CATEGORIES)
    assert index.categories == 4
    places = {
        page: [
            (int(index.category[n]), int(index.dimension[n]))
            for n in range(index.offsets[number], index.offsets[number + 1])
        ]
        for number, page in enumerate(index.pages.to_pylist())
    }
    assert places == {"c": [(0, 0)], "a": [(0, 1)], "b": [(0, 2), (1, 0)], "d": [(1, 1)], "e": [(2, 0)], "q": [(3, 0)]}


# --- sums of 64 bits

MOST = 2**63 - 1


@pytest.mark.parametrize(
    ("runs", "sums"),
    [
        ([[1, 2], [3]], [3, 3]),
        ([[MOST - 1, 1], [0]], [MOST, 0]),
        ([[MOST, 1], [5]], [MOST, 5]),
        ([[MOST, MOST], [MOST], [1, MOST, 0]], [MOST, MOST, MOST]),
        ([[MOST] * 3, [7]], [MOST, 7]),
        ([[MOST] * 4 + [4]], [MOST]),
    ],
)
def test_sums_are_exact_up_to_what_64_bits_hold_and_no_more_than_that(runs: list[list[int]], sums: list[int]) -> None:
    counts = np.array([count for run in runs for count in run], np.int64)
    starts = np.cumsum([0, *map(len, runs)])[:-1]
    assert profiles._sums(counts, starts).tolist() == sums
    width = max(map(len, runs))
    padded = np.array([[*run, *[0] * (width - len(run))] for run in runs], np.int64)
    assert profiles.add_up(padded.T.copy()).tolist() == sums


def test_of_nobody_there_are_no_sums() -> None:
    assert profiles._sums(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []
    assert profiles.add_up([np.zeros(0, np.int64)] * 4).tolist() == []


# --- tables


def broken(rules: TableRules, *rows: dict[str, Any]) -> list[str]:
    found = Inspection(rules)
    list(found.through([pa.RecordBatch.from_pylist(list(rows), schema=rules.schema)]))
    return [rule.removeprefix(f"{rules.name}: ") for rule in found.violations]


DID = dict.fromkeys(("actions", *ACTIONS), 0)
ROWS: list[tuple[TableRules, dict[str, Any], str | None]] = [
    (profiles.VECTORS, {"user_id": "u", "gender": "0", **DID, "vector": b""}, None),
    (
        profiles.DIMENSIONS,
        {"dimension_index": 0, "dimension_id": "p", "dimension_name": "", "network": "", "users": 0, "total": 0.0},
        "dimension_index",
    ),
    (profiles.PROFILES, {"profile_id": 0, "indices": [0], "values": [0.0], "weight": 1, "fit_weight": 0}, "profile_id"),
    (profiles.MEMBERS, {"user_id": "u", "gender": "0", "profile_id": 0, **DID}, "user_id"),
]


@pytest.mark.parametrize(("rules", "row", "key"), ROWS, ids=[rules.name for rules, _, _ in ROWS])
def test_rows_between_steps_keep_the_rules_of_the_contract(
    rules: TableRules, row: dict[str, Any], key: str | None
) -> None:
    assert broken(rules, row) == []
    for name in {"user_id", "gender", "dimension_id"} & row.keys():
        assert broken(rules, {**row, name: ""}) == [f"column {name} must have no empty text (1 is not)"]
    for name, value in row.items():
        if isinstance(value, int | float | list):
            least = 1 if name == "weight" else 0
            wrong: Any = [least - 1] if isinstance(value, list) else least - 1
            assert broken(rules, {**row, name: wrong}) == [f"column {name} must be at least {least} (1 is not)"]
    assert broken(rules, row, row) == ([f"column {key} must rise from row to row (1 is not)"] if key else [])


def test_of_an_empty_array_with_or_without_offsets_as_arrow_has_both_there_are_no_vectors() -> None:
    bare = pa.BinaryArray.from_buffers(pa.binary(), 0, [None, pa.py_buffer(b""), pa.py_buffer(b"")])
    for nobody in (bare, pa.array([], pa.binary())):
        found = profiles._unpack(nobody, 3)
        assert (found.shape, found.nnz) == ((0, 3), 0)


def test_profiles_are_read_back_from_a_part_of_their_table() -> None:
    dense = np.array([[0.0, 2, 0], [1, 0, 3], [0, 0, 0], [4, 5, 6]])
    matrix, weight, _ = from_table(to_table(profiles.sp.csr_matrix(dense), np.arange(1, 5), np.arange(4)), 5)
    np.testing.assert_array_equal(matrix.toarray(), np.hstack([dense, np.zeros((4, 2))]))
    table = to_table(matrix, weight, weight)
    parts = pa.concat_tables([table.slice(0, 1), table.slice(1, 2), table.slice(3)])
    again, weight, fit_weight = from_table(parts, 5)
    np.testing.assert_array_equal(again.toarray(), matrix.toarray())
    assert (weight.tolist(), fit_weight.tolist()) == ([1, 2, 3, 4], [1, 2, 3, 4])
