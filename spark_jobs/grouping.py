"""Nesting: the aggregated actions of some users become one row a user, in the contract's order."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs.config import ACTIONS
from spark_jobs.schemas import AT_LEAST_0, Table

UNKNOWN_GENDER = "0"

PAGE = pa.struct([("page_id", pa.string()), *((action, pa.int64()) for action in ACTIONS)])
GROUPED_USER = pa.schema([("user_id", pa.string()), ("gender", pa.string()), ("pages", pa.list_(PAGE))])
SUMMED = pa.schema(
    [
        ("bucket", pa.int32()),
        ("user_id", pa.string()),
        ("page_id", pa.string()),
        ("gender", pa.string()),
        *((action, pa.int64()) for action in ACTIONS),
    ]
)

SUMS = Table(
    "summed actions",
    SUMMED,
    filled=("user_id", "page_id", "gender"),
    ranges={"bucket": AT_LEAST_0, **dict.fromkeys(ACTIONS, AT_LEAST_0)},
)
USERS = Table(
    "grouped users",
    GROUPED_USER,
    filled=("user_id", "gender", "pages.page_id"),
    ranges={f"pages.{action}": AT_LEAST_0 for action in ACTIONS},
    key="user_id",
)


def nest_users(actions: pa.Table) -> pa.Table:
    """Make one row a user of the actions of those users.

    Args:
        actions: Any number of rows of `user_id`, `gender`, `page_id` and the counts `page_like`, `page_comment`,
            `post_like`, `post_comment`, in any order; a user's rows are all here.

    Returns:
        Rows of GROUPED_USER by `user_id`, each user's pages by `page_id` (both in the order of their UTF-8 bytes).
        The gender is the known one with the most actions, ties to the smallest; `0` where none is known.
    """
    if actions.num_rows == 0:
        return GROUPED_USER.empty_table()
    user, user_ids = _ranked(actions["user_id"])
    page, page_ids = _ranked(actions["page_id"])
    counts = np.column_stack([actions[action].to_numpy() for action in ACTIONS])  # rows × actions

    entry = user * len(page_ids) + page  # a user's entry on a page
    order = np.argsort(entry, kind="stable")
    starts = _run_starts(entry[order])
    counts_of_entry = np.add.reduceat(counts[order], starts, axis=0)
    entries = entry[order][starts]
    offsets = np.searchsorted(entries // len(page_ids), np.arange(len(user_ids) + 1))
    pages = pa.StructArray.from_arrays(
        [page_ids.take(pa.array(entries % len(page_ids)))]
        + [pa.array(np.ascontiguousarray(counts_of_entry[:, place])) for place in range(len(ACTIONS))],
        fields=list(PAGE),
    )
    genders = _most_frequent_known_gender(user, len(user_ids), actions["gender"], counts.sum(axis=1))
    return pa.Table.from_arrays(
        [user_ids, genders, pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pages)], schema=GROUPED_USER
    )


def _most_frequent_known_gender(
    user: np.ndarray, users: int, gender: pa.ChunkedArray, count: np.ndarray
) -> pa.StringArray:
    code, names = _ranked(gender)
    unknown = pc.equal(names, UNKNOWN_GENDER).to_numpy(zero_copy_only=False)
    known = ~unknown[code]
    key = user[known] * len(names) + code[known]
    order = np.argsort(key, kind="stable")
    result = np.full(users, -1)
    if order.size:
        starts = _run_starts(key[order])
        total = np.add.reduceat(count[known][order], starts)
        keys = key[order][starts]
        whose, which = keys // len(names), keys % len(names)
        best_first = np.lexsort((which, -total, whose))
        first_of_user = best_first[_run_starts(whose[best_first])]
        result[whose[first_of_user]] = which[first_of_user]
    chosen = names.take(pa.array(result, mask=result < 0))
    return chosen.fill_null(UNKNOWN_GENDER)


def _ranked(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.StringArray]:
    """Each value's rank among the distinct ones (int64), and the distinct ones in order."""
    encoded = column.combine_chunks().dictionary_encode()
    order = pc.array_sort_indices(encoded.dictionary)
    rank = np.empty(len(order), np.int64)
    rank[order.to_numpy()] = np.arange(len(order))
    return rank[encoded.indices.to_numpy()], encoded.dictionary.take(order)


def _run_starts(sorted_values: np.ndarray) -> np.ndarray:
    """Where each run of equal values starts."""
    return np.flatnonzero(np.r_[True, sorted_values[1:] != sorted_values[:-1]])
