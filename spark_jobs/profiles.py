"""Profiles: the distinct vectors that users have, and how many users have each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from spark_jobs.categories import Category
from spark_jobs.config import ACTIONS, Scaling
from spark_jobs.errors import InputError
from spark_jobs.schemas import AT_LEAST_0, AT_LEAST_1, Table

# A user's vector travels as bytes: its non-zero entries, by dimension.
ENTRY = np.dtype([("dimension", "<i4"), ("value", "<f8")])

VECTOR = pa.schema(
    [
        ("category", pa.int32()),  # its place in the list of categories
        ("user_id", pa.string()),
        ("gender", pa.string()),
        ("vector", pa.binary()),
    ]
)
DIMENSION = pa.schema(
    [
        ("dimension_index", pa.int32()),
        ("dimension_id", pa.string()),
        ("dimension_name", pa.string()),
        ("network", pa.string()),
        ("users", pa.int64()),
        ("total", pa.float64()),
    ]
)
PROFILE = pa.schema(
    [
        ("profile_id", pa.int64()),
        ("indices", pa.list_(pa.int32())),
        ("values", pa.list_(pa.float64())),
        ("weight", pa.int64()),
    ]
)
MEMBER = pa.schema([("user_id", pa.string()), ("gender", pa.string()), ("profile_id", pa.int64())])

VECTORS = Table("vectors", VECTOR, filled=("user_id", "gender"), ranges={"category": AT_LEAST_0})
DIMENSIONS = Table(
    "dimensions",
    DIMENSION,
    filled=("dimension_id",),
    ranges=dict.fromkeys(("dimension_index", "users", "total"), AT_LEAST_0),
    key="dimension_index",
)
PROFILES = Table(
    "profiles",
    PROFILE,
    ranges={**dict.fromkeys(("profile_id", "indices", "values"), AT_LEAST_0), "weight": AT_LEAST_1},
    key="profile_id",
)
MEMBERS = Table("members", MEMBER, filled=("user_id", "gender"), ranges={"profile_id": AT_LEAST_0}, key="user_id")


class PageIndex:
    """Which dimensions of which categories a page is: a page may be in many categories, once in each."""

    def __init__(self, categories: Sequence[Category]):
        places: dict[str, list[tuple[int, int]]] = {}
        for number, category in enumerate(categories):
            for dimension, page in enumerate(category.pages):
                places.setdefault(page.id, []).append((number, dimension))
        self.pages = pa.array(list(places), pa.string())
        self.offsets = np.cumsum([0, *map(len, places.values())])
        flat = np.array([place for of_page in places.values() for place in of_page], np.int64).reshape(-1, 2)
        self.category, self.dimension = flat[:, 0], flat[:, 1]


def vectors_of(
    users: pa.RecordBatch, index: PageIndex, action_weights: Sequence[float], min_actions: int
) -> pa.RecordBatch:
    """The vectors of some grouped users in all categories.

    Args:
        users: Rows of GROUPED_USER.
        index: The categories' pages.
        action_weights: The weight of each of ACTIONS.
        min_actions: Users with fewer actions on a category's pages have no vector in it; at 1, an entry will do.

    Returns:
        Rows of VECTOR, one a user and category of which the user has an entry.
    """
    pages = users.column("pages")
    entries = pages.flatten()
    offsets = pages.offsets.to_numpy().astype(np.int64)
    row = np.repeat(np.arange(len(pages)), np.diff(offsets))

    found = pc.index_in(entries.field("page_id"), value_set=index.pages)
    known = found.is_valid().to_numpy(zero_copy_only=False)
    page = found.drop_null().to_numpy().astype(np.int64)
    counts = np.column_stack([entries.field(action).to_numpy()[known] for action in ACTIONS])
    value = counts @ np.asarray(action_weights, np.float64)
    actions = counts.sum(axis=1)

    # A page that is in several categories gives an entry to each.
    times = np.diff(index.offsets)[page]
    entry = np.repeat(np.arange(len(page)), times)
    within = np.arange(len(entry)) - np.repeat(np.cumsum(times) - times, times)
    place = np.repeat(index.offsets[page], times) + within
    category, dimension = index.category[place], index.dimension[place]
    user = row[known][entry]

    order = np.lexsort((dimension, user, category))
    category, user, dimension = category[order], user[order], dimension[order]
    value, actions = value[entry][order], actions[entry][order]
    if not order.size:
        return pa.RecordBatch.from_pylist([], schema=VECTOR)
    changed = (category[1:] != category[:-1]) | (user[1:] != user[:-1])
    starts = np.flatnonzero(np.r_[True, changed])

    enough = np.ones(len(starts), bool) if min_actions == 1 else np.add.reduceat(actions, starts) >= min_actions
    vector = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(order)]))
    kept = enough[vector] & (value != 0)
    packed = np.empty(int(kept.sum()), ENTRY)
    packed["dimension"], packed["value"] = dimension[kept], value[kept]
    lengths = np.bincount(vector[kept], minlength=len(starts))[enough]
    byte_offsets = np.r_[0, np.cumsum(lengths)] * ENTRY.itemsize
    whose = pa.array(user[starts][enough])
    return pa.RecordBatch.from_arrays(
        [
            pa.array(category[starts][enough], pa.int32()),
            users.column("user_id").take(whose),
            users.column("gender").take(whose),
            pa.BinaryArray.from_buffers(
                pa.binary(),
                len(lengths),
                [None, pa.py_buffer(byte_offsets.astype(np.int32)), pa.py_buffer(packed.tobytes())],
            ),
        ],
        schema=VECTOR,
    )


@dataclass(frozen=True)
class ClusteringInputs:
    """What a category's clustering starts from."""

    dimensions: pa.Table  # DIMENSION
    profiles: pa.Table  # PROFILE, by profile_id
    members: pa.Table  # MEMBER, by user_id
    scaling_factor: float | None  # of scaling `max`: scaled = factor × value


def build_inputs(category: Category, vectors: pa.Table, scaling: Scaling) -> ClusteringInputs:
    """Make a category's clustering inputs of its users' vectors.

    Args:
        category: The category.
        vectors: Rows of VECTOR, of this category only, in any order.
        scaling: How the values are scaled; profiles hold scaled values, dimensions unscaled totals.

    Returns:
        The inputs. Profiles are numbered by weight, the heaviest first, ties by their entries.

    Raises:
        InputError: A user is listed twice.
    """
    encoded = vectors["vector"].combine_chunks().dictionary_encode()
    code = encoded.indices.to_numpy().astype(np.int64)
    weight = np.bincount(code, minlength=len(encoded.dictionary)).astype(np.int64)
    raw = _unpack(encoded.dictionary, len(category.pages))
    columns = raw.tocsc()
    dimensions = pa.Table.from_arrays(
        [
            pa.array(range(len(category.pages)), pa.int32()),
            pa.array([page.id for page in category.pages]),
            pa.array([page.name for page in category.pages]),
            pa.array([page.network for page in category.pages]),
            pa.array(np.asarray((columns > 0).T @ weight, np.int64).ravel()),
            pa.array(np.asarray(columns.T @ weight, np.float64).ravel()),
        ],
        schema=DIMENSION,
    )
    scaled, factor = scale(raw, weight, scaling)
    packed = _pack(scaled)
    # Scaling may make different vectors the same (l2 does), so they are told apart again.
    distinct = packed.dictionary_encode()
    merged = distinct.indices.to_numpy().astype(np.int64)
    merged_weight = np.bincount(merged, weights=weight, minlength=len(distinct.dictionary)).astype(np.int64)
    order = np.asarray(
        pc.sort_indices(
            pa.table({"weight": merged_weight, "vector": distinct.dictionary}),
            sort_keys=[("weight", "descending"), ("vector", "ascending")],
        )
    ).astype(np.int64)
    profile_id = np.empty(len(order), np.int64)
    profile_id[order] = np.arange(len(order))

    profiles = to_table(_unpack(distinct.dictionary, len(category.pages))[order], merged_weight[order])
    members = pa.Table.from_arrays(
        [
            vectors["user_id"].combine_chunks(),
            vectors["gender"].combine_chunks(),
            pa.array(profile_id[merged[code]]),
        ],
        schema=MEMBER,
    )
    members = members.take(pc.sort_indices(members["user_id"]))
    ids = members["user_id"].combine_chunks()
    twice = ids[1:].filter(pc.equal(ids[1:], ids[:-1]))
    if len(twice):
        raise InputError(f"User {twice[0]} is listed twice in the grouped users.")
    return ClusteringInputs(dimensions, profiles, members, factor)


def scale(raw: sp.csr_matrix, weight: np.ndarray, scaling: Scaling) -> tuple[sp.csr_matrix, float | None]:
    """Scale profiles; zeros stay zeros.

    Args:
        raw: Profiles × dimensions, values of at least 0.
        weight: Users of each profile.
        scaling: `max`: all values by the factor 1 / (1 + largest value), so that they lie in [0, 1);
            `none`: as they are; `log1p`: ln(1 + value); `l2`: every profile to length 1, rounded to 12 decimals;
            `tfidf`: value × (ln((1 + n) / (1 + n_d)) + 1), n users of whom n_d have dimension d, as scikit-learn's
            smooth idf.

    Returns:
        The scaled profiles, and the factor of `max`, else None.
    """
    scaled = raw.copy()
    if scaling == "max":
        factor = float(1 / (1 + raw.data.max(initial=0)))
        scaled.data *= factor
        return scaled, factor
    if scaling == "log1p":
        scaled.data = np.log1p(raw.data)
    elif scaling == "l2":
        length = np.sqrt(np.asarray(raw.multiply(raw).sum(axis=1)).ravel())
        scaled.data = np.round(raw.data / np.repeat(length, np.diff(raw.indptr)), 12)
    elif scaling == "tfidf":
        have = np.bincount(raw.indices, weights=np.repeat(weight, np.diff(raw.indptr)), minlength=raw.shape[1])
        scaled.data *= (np.log((1 + weight.sum()) / (1 + have)) + 1)[raw.indices]
    return scaled, None


def to_table(matrix: sp.csr_matrix, weight: np.ndarray) -> pa.Table:
    """Profiles × dimensions and the users of each, as rows of PROFILE."""
    offsets = pa.array(matrix.indptr, pa.int32())
    return pa.Table.from_arrays(
        [
            pa.array(np.arange(matrix.shape[0])),
            pa.ListArray.from_arrays(offsets, pa.array(matrix.indices, pa.int32())),
            pa.ListArray.from_arrays(offsets, pa.array(matrix.data, pa.float64())),
            pa.array(weight, pa.int64()),
        ],
        schema=PROFILE,
    )


def from_table(profiles: pa.Table, dimensions: int) -> tuple[sp.csr_matrix, np.ndarray]:
    """The inverse of `to_table`: profiles × dimensions (float64), and the users of each (int64)."""
    indices, values = profiles["indices"].combine_chunks(), profiles["values"].combine_chunks()
    shape = (profiles.num_rows, dimensions)
    parts = (values.flatten().to_numpy(), indices.flatten().to_numpy(), indices.offsets.to_numpy())
    return sp.csr_matrix(parts, shape=shape), profiles["weight"].to_numpy()


def _unpack(vectors: pa.BinaryArray, dimensions: int) -> sp.csr_matrix:
    _, offsets, data = vectors.buffers()
    ends = np.frombuffer(offsets, np.int32)[vectors.offset : vectors.offset + len(vectors) + 1].astype(np.int64)
    entries = np.frombuffer(data or b"", ENTRY)[: ends[-1] // ENTRY.itemsize] if len(vectors) else np.empty(0, ENTRY)
    indptr = ends // ENTRY.itemsize if len(vectors) else np.zeros(1, np.int64)
    return sp.csr_matrix(
        (entries["value"].astype(np.float64), entries["dimension"].astype(np.int32), indptr),
        shape=(len(vectors), dimensions),
    )


def _pack(matrix: sp.csr_matrix) -> pa.BinaryArray:
    entries = np.empty(matrix.nnz, ENTRY)
    entries["dimension"], entries["value"] = matrix.indices, matrix.data
    offsets = (matrix.indptr.astype(np.int64) * ENTRY.itemsize).astype(np.int32)
    return pa.BinaryArray.from_buffers(
        pa.binary(), matrix.shape[0], [None, pa.py_buffer(offsets), pa.py_buffer(entries.tobytes())]
    )
