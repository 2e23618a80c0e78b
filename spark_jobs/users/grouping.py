"""Grouping: a month's accepted actions are split by user, and those of some users become one row a user."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs.config import ACTIONS
from spark_jobs.outputs.schemas import AT_LEAST_0, TableRules
from spark_jobs.raw.rules import ACTION, CODED_TEXT
from spark_jobs.sorting import run_starts, sort_with_order
from spark_jobs.texts import bucket_of, rank

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
    key, order = sort_with_order(bucket_of(actions.column("user_id"), buckets) * len(page_ids) + page)
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
    page_bits, action_bits = len(page_ids).bit_length(), len(ACTIONS).bit_length()
    key, order = sort_with_order((user << page_bits | page) << action_bits | actions["action"].to_numpy())
    count = count[order]
    starts = run_starts(key)
    sums = np.add.reduceat(count, starts)
    entry, action = key[starts] >> action_bits, key[starts] & ((1 << action_bits) - 1)
    starts = run_starts(entry)
    number = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(entry)))
    counts = np.zeros((len(ACTIONS), len(starts)), np.int64)
    counts[action, number] = sums
    whose, where = entry[starts] >> page_bits, entry[starts] & ((1 << page_bits) - 1)
    offsets = np.append(run_starts(whose), len(whose))
    pages = pa.StructArray.from_arrays(
        [page_ids.take(pa.array(where)), *(pa.array(of_action) for of_action in counts)], fields=list(PAGE)
    )
    user = key >> (page_bits + action_bits)
    genders = _most_frequent_known_gender(user, run_starts(user), *_gender_of(actions["gender"], order), count)
    return pa.Table.from_arrays(
        [user_ids, genders, pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pages)], schema=GROUPED_USER
    )


def _gender_of(genders: pa.ChunkedArray, order: np.ndarray) -> tuple[np.ndarray, pa.StringArray]:
    """The rows' genders in this order, as places in their names, -1 where it is not known; and the names."""
    code, names = _rank_coded(genders)
    known = np.where(pc.equal(names, UNKNOWN_GENDER).to_numpy(zero_copy_only=False), -1, np.arange(len(names)))
    return known[code[order]], names


def _most_frequent_known_gender(
    user: np.ndarray, starts: np.ndarray, gender: np.ndarray, names: pa.StringArray, count: np.ndarray
) -> pa.StringArray:
    """Each user's gender.

    Args:
        user: The user of each row, in order.
        starts: Where each user's rows start.
        gender: The gender of each row as its place in `names`; -1 where it is not known.
        names: The genders.
        count: How many actions each row is.
    """
    result = np.maximum.reduceat(gender, starts)
    # Most users have one; only those of several are to be compared.
    least = np.minimum.reduceat(np.where(gender < 0, len(names), gender), starts)
    several = np.flatnonzero((least < result)[user] & (gender >= 0))
    if several.size:
        key, order = sort_with_order(user[several] * len(names) + gender[several])
        runs = run_starts(key)
        total = np.add.reduceat(count[several][order], runs)
        whose, which = np.divmod(key[runs], len(names))
        best_first = np.lexsort((which, -total, whose))
        first_of_user = best_first[run_starts(whose[best_first])]
        result[whose[first_of_user]] = which[first_of_user]
    return names.take(pa.array(result, mask=result < 0)).fill_null(UNKNOWN_GENDER)


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
