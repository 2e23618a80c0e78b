"""Grouping: a month's accepted actions are split by user, and those of some users become one row a user."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs.config import ACTIONS
from spark_jobs.outputs.schemas import AT_LEAST_0, TableRules
from spark_jobs.raw.rules import ACTION, CODED_TEXT
from spark_jobs.texts import bucket_of, rank, run_starts

UNKNOWN_GENDER = "0"

PAGE = pa.struct([("page_id", pa.string()), *((action, pa.int64()) for action in ACTIONS)])
GROUPED_USER = pa.schema([("user_id", pa.string()), ("gender", pa.string()), ("pages", pa.list_(PAGE))])
# The same as it is read: texts that are there often as codes and a dictionary.
CODED_USER = pa.schema(
    [
        ("user_id", pa.string()),
        ("gender", CODED_TEXT),
        ("pages", pa.list_(pa.struct([pa.field("page_id", CODED_TEXT), *list(PAGE)[1:]]))),
    ]
)

USERS = TableRules(
    "grouped users",
    GROUPED_USER,
    non_empty=("user_id", "gender", "pages.page_id"),
    ranges={f"pages.{action}": AT_LEAST_0 for action in ACTIONS},
    key="user_id",
)


CODED_USERS = replace(USERS, schema=CODED_USER)


def split_by_user(actions: pa.RecordBatch, buckets: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Split actions (ACTION) into buckets by user, the same user into the same one in every batch and on every machine.

    Yields:
        The numbers of buckets that have rows, and these, with dictionaries of just what is in them.
    """
    page, page_ids = _used(actions.column("page_id"))
    # By page within a bucket, so that its dictionary is a slice of one for all.
    key = bucket_of(actions.column("user_id"), buckets) * len(page_ids) + page
    order = np.argsort(key)
    key = key[order]
    starts = run_starts(key)
    code = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(key)))
    pages = page_ids.take(pa.array(key[starts] % max(1, len(page_ids))))
    rows = actions.take(pa.array(order))

    edges = np.arange(buckets + 1) * len(page_ids)
    first_row, first_page = np.searchsorted(key, edges), np.searchsorted(key[starts], edges)
    for bucket in np.flatnonzero(np.diff(first_row)).tolist():
        start, end = first_row[bucket], first_row[bucket + 1]
        part = rows.slice(start, end - start)
        own = pages[first_page[bucket] : first_page[bucket + 1]]
        coded = pa.DictionaryArray.from_arrays(pa.array(code[start:end] - first_page[bucket], pa.int32()), own)
        yield bucket, part.set_column(1, ACTION.field("page_id"), coded)


def nest_users(actions: pa.Table) -> pa.Table:
    """Make one row a user of the actions of those users.

    Args:
        actions: Any number of rows of ACTION, in any order; a user's rows are all here.

    Returns:
        Rows of GROUPED_USER by `user_id`, each user's pages by `page_id` (both in the order of their UTF-8 bytes).
        The gender is the known one with the most actions, ties to the smallest; `0` where none is known.
    """
    if actions.num_rows == 0:
        return GROUPED_USER.empty_table()
    user, user_ids = rank(pa.concat_arrays(actions["user_id"].chunks))
    page, page_ids = _rank_coded(actions["page_id"])
    count = actions["count"].to_numpy()

    # A user's entry on a page, and the action in it.
    key = (user * len(page_ids) + page) * len(ACTIONS) + actions["action"].to_numpy()
    order = np.argsort(key)
    key = key[order]
    starts = run_starts(key)
    sums = np.add.reduceat(count[order], starts)
    entry, action = np.divmod(key[starts], len(ACTIONS))
    starts = run_starts(entry)
    number = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(entry)]))
    counts = np.zeros((len(ACTIONS), len(starts)), np.int64)
    counts[action, number] = sums
    whose, where = np.divmod(entry[starts], len(page_ids))
    offsets = np.searchsorted(whose, np.arange(len(user_ids) + 1))
    pages = pa.StructArray.from_arrays(
        [page_ids.take(pa.array(where)), *(pa.array(of_action) for of_action in counts)], fields=list(PAGE)
    )
    genders = _most_frequent_known_gender(user, len(user_ids), actions["gender"], count)
    return pa.Table.from_arrays(
        [user_ids, genders, pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pages)], schema=GROUPED_USER
    )


def _most_frequent_known_gender(
    user: np.ndarray, users: int, gender: pa.ChunkedArray, count: np.ndarray
) -> pa.StringArray:
    code, names = _rank_coded(gender)
    known = np.flatnonzero(pc.not_equal(names, UNKNOWN_GENDER).to_numpy(zero_copy_only=False)[code])
    key = user[known] * len(names) + code[known]
    result = np.full(users, -1)
    if key.size:
        order = np.argsort(key)
        starts = run_starts(key[order])
        total = np.add.reduceat(count[known[order]], starts)
        whose, which = np.divmod(key[order][starts], len(names))
        # Most users have one; only those of several are to be compared.
        single = np.bincount(whose, minlength=users)[whose] == 1
        result[whose[single]] = which[single]
        whose, which, total = whose[~single], which[~single], total[~single]
        best_first = np.lexsort((which, -total, whose))
        first_of_user = best_first[run_starts(whose[best_first])]
        result[whose[first_of_user]] = which[first_of_user]
    chosen = names.take(pa.array(result, mask=result < 0))
    return chosen.fill_null(UNKNOWN_GENDER)


def _used(column: pa.DictionaryArray) -> tuple[np.ndarray, pa.StringArray]:
    """A column's codes (int64), and its dictionary without what no row has."""
    code = column.indices.to_numpy().astype(np.int64)
    used = np.flatnonzero(np.bincount(code, minlength=len(column.dictionary)))
    if len(used) == len(column.dictionary):
        return code, column.dictionary
    new = np.empty(len(column.dictionary), np.int64)
    new[used] = np.arange(len(used))
    return new[code], column.dictionary.take(pa.array(used))


def _rank_coded(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.StringArray]:
    """The same as `rank` of a column whose chunks have dictionaries of their own."""
    chunks = [_used(chunk) for chunk in column.chunks]
    of_value, distinct = rank(pa.concat_arrays([values for _, values in chunks]))
    first = np.cumsum([0, *(len(values) for _, values in chunks)])
    codes = [of_value[code + start] for (code, _), start in zip(chunks, first, strict=False)]
    return np.concatenate(codes), distinct
