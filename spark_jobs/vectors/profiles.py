"""Profiles: the distinct vectors that users have, and how many users have each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from spark_jobs.config import ACTIONS, FIT_MIN_ACTIONS, parse_scaling
from spark_jobs.errors import InputError
from spark_jobs.outputs.schemas import AT_LEAST_0, AT_LEAST_1, TableRules
from spark_jobs.raw.rules import CODED_TEXT
from spark_jobs.sorting import run_starts, sort_with_order
from spark_jobs.texts import rank
from spark_jobs.vectors.category_files import Category
from spark_jobs.vectors.scaling import scale

# A user's vector is passed on as bytes: its non-zero entries, by dimension.
ENTRY = np.dtype([("dimension", "<i4"), ("value", "<f8")])

VECTOR = pa.schema(
    [
        ("user_id", pa.string()),
        ("gender", CODED_TEXT),
        ("actions", pa.int64()),
        *((action, pa.int64()) for action in ACTIONS),
        ("vector", pa.dictionary(pa.int32(), pa.binary())),
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
        ("weight", pa.int64()),  # users who have it
        ("fit_weight", pa.int64()),  # those of them with at least FIT_MIN_ACTIONS actions
    ]
)
MEMBER = pa.schema(
    [
        ("user_id", pa.string()),
        ("gender", pa.string()),
        ("profile_id", pa.int64()),
        ("actions", pa.int64()),  # on the category's pages
        *((action, pa.int64()) for action in ACTIONS),  # how many of them are of each kind
    ]
)

VECTORS = TableRules(
    "vectors", VECTOR, non_empty=("user_id", "gender"), ranges=dict.fromkeys(("actions", *ACTIONS), AT_LEAST_0)
)
DIMENSIONS = TableRules(
    "dimensions",
    DIMENSION,
    non_empty=("dimension_id",),
    ranges=dict.fromkeys(("dimension_index", "users", "total"), AT_LEAST_0),
    key="dimension_index",
)
PROFILES = TableRules(
    "profiles",
    PROFILE,
    ranges={**dict.fromkeys(("profile_id", "indices", "values", "fit_weight"), AT_LEAST_0), "weight": AT_LEAST_1},
    key="profile_id",
)
MEMBERS = TableRules(
    "members",
    MEMBER,
    non_empty=("user_id", "gender"),
    ranges=dict.fromkeys(("profile_id", "actions", *ACTIONS), AT_LEAST_0),
    key="user_id",
)


class ListedTwice(InputError):
    """A user has two rows in grouped users, which other programs may have made."""


_LARGEST = 2**63 - 1  # that 64 bits hold


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
        self.categories = len(categories)


def vectors_of(
    users: pa.RecordBatch, index: PageIndex, action_weights: Sequence[float], min_actions: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The vectors of some grouped users in all categories.

    Args:
        users: Rows of CODED_USER.
        index: The categories' pages.
        action_weights: The weight of each of ACTIONS.
        min_actions: Users with fewer actions on a category's pages have no vector in it; at 1, an entry is enough.

    Yields:
        The places of categories in which users have an entry, and rows of VECTOR, one for each of these users.
    """
    row, page, value, counts = _entries_on_pages(users, index, action_weights)

    # A page that is in several categories gives an entry to each.
    times = np.diff(index.offsets)[page]
    entry = np.repeat(np.arange(len(page)), times)
    within = np.arange(len(entry)) - np.repeat(np.cumsum(times) - times, times)
    place_of_page = np.repeat(index.offsets[page], times) + within

    # In order by category, user and dimension.
    width = int(index.dimension.max()) + 1
    key = (index.category[place_of_page] * len(users) + row[entry]) * width + index.dimension[place_of_page]
    key, order = sort_with_order(key)
    entry = entry[order]
    vector, dimension = np.divmod(key, width)
    starts = run_starts(vector)
    category, user = np.divmod(vector[starts], max(1, len(users)))
    number = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(key)))  # each entry's vector
    kept = value[entry] != 0
    did = np.stack([_sums(count[entry], starts) for count in counts])
    of_vector = add_up(did)
    if min_actions > 1:
        enough = of_vector >= min_actions
        category, user, kept = category[enough], user[enough], kept & enough[number]
        of_vector, did = of_vector[enough], did[:, enough]
        number = np.cumsum(enough)[number] - 1

    packed = np.empty(int(kept.sum()), ENTRY)
    packed["dimension"], packed["value"] = dimension[kept], value[entry][kept]
    length = np.bincount(number[kept], minlength=len(category))
    vectors = _to_binary(packed, np.append(0, np.cumsum(length)))
    whose = users.select(["user_id", "gender"]).take(pa.array(user))
    for name, column in zip(("actions", *ACTIONS), (of_vector, *did), strict=True):
        whose = whose.append_column(VECTOR.field(name), pa.array(column))
    first = np.searchsorted(category, np.arange(index.categories + 1))
    for place in np.flatnonzero(np.diff(first)).tolist():
        start, rows = first[place], first[place + 1] - first[place]
        of_category = whose.slice(start, rows)
        yield place, of_category.append_column(VECTOR.field("vector"), vectors.slice(start, rows).dictionary_encode())


def _entries_on_pages(
    users: pa.RecordBatch, index: PageIndex, action_weights: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
    """The n entries of users on pages of any category.

    Returns:
        Whose each is (row), which page, and the value, all (n,); and of each of ACTIONS how often it was done (n,).
    """
    pages = users.column("pages")
    entries = pages.flatten()
    offsets = pages.offsets.to_numpy().astype(np.int64)
    row = np.repeat(np.arange(len(pages)), np.diff(offsets))
    page_ids = entries.field("page_id")
    found = pc.fill_null(pc.index_in(page_ids.dictionary, value_set=index.pages), -1)
    page = found.to_numpy().astype(np.int64)[page_ids.indices.to_numpy()]
    known = np.flatnonzero(page >= 0)
    value, counts = np.zeros(len(known)), []
    # Action by action: the rounding of a product of matrices depends on how many rows it has.
    for action, weight in zip(ACTIONS, action_weights, strict=True):
        count = entries.field(action).to_numpy()[known]
        value += weight * count
        counts.append(count)
    return row[known], page[known], value, counts


def add_up(counts: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """The sums (n,) of some counts (m, n), all int64 and at least 0; at most 2^63 - 1."""
    sums = np.zeros(len(counts[0]), np.uint64)
    for count in counts:
        # The sum of two counts below 2^63 fits into 64 bits without a sign. What is beyond 2^63 - 1 is cut to it.
        sums += count.view(np.uint64)
        np.minimum(sums, _LARGEST, out=sums)
    return sums.view(np.int64)


def _sums(counts: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The sums (int64) of runs of counts (int64, at least 0) that start at `starts`; at most 2^63 - 1."""
    if not len(starts):
        return np.zeros(0, np.int64)
    sums = np.add.reduceat(counts, starts)
    if int(counts.max()) > _LARGEST // len(counts):
        # Sums beyond 63 bits wrap around: those below 2^64 become negative, larger ones are found as floats.
        as_floats = np.add.reduceat(counts.astype(np.float64), starts)
        sums[(sums < 0) | (as_floats > 1.5 * 2.0**63)] = _LARGEST
    return sums


@dataclass(frozen=True)
class ClusteringInputs:
    """What a category's clustering starts from."""

    dimensions: pa.Table  # DIMENSION
    profiles: pa.Table  # PROFILE, by profile_id
    members: pa.Table  # MEMBER, by user_id
    scaling_factor: float | None  # of the scaling's step `max`: what it multiplied all values by


def build_inputs(category: Category, vectors: pa.Table, scaling: str) -> ClusteringInputs:
    """Make a category's clustering inputs of its users' vectors.

    Args:
        category: The category.
        vectors: Rows of VECTOR, of this category only, in any order.
        scaling: The steps by which the values are scaled; profiles hold scaled values, dimensions unscaled totals.

    Returns:
        The inputs. Profiles are numbered by weight, the heaviest first, ties by their entries.

    Raises:
        ListedTwice: A user is.
    """
    code, distinct_vectors = _distinct(vectors["vector"])
    weight = np.bincount(code, minlength=len(distinct_vectors)).astype(np.int64)
    raw = _unpack(distinct_vectors, len(category.pages))
    scaled, factor = scale(raw, weight, parse_scaling(scaling))
    # Scaling may make different vectors equal (l2 does), so the distinct ones are found again.
    distinct = _pack(scaled).dictionary_encode()
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
    members = _members(vectors, profile_id[merged[code]])
    enough = members["actions"].to_numpy() >= FIT_MIN_ACTIONS
    fit_weight = np.bincount(members["profile_id"].to_numpy()[enough], minlength=len(order))
    profiles = to_table(_unpack(distinct.dictionary, len(category.pages))[order], merged_weight[order], fit_weight)
    return ClusteringInputs(_dimensions(category, raw, weight), profiles, members, factor)


def _dimensions(category: Category, raw: sp.csr_matrix, weight: np.ndarray) -> pa.Table:
    """Rows of DIMENSION: a category's pages, with their users and totals in profiles (n, d) that `weight` (n,) have."""
    columns = raw.tocsc()
    return pa.Table.from_arrays(
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


def _members(vectors: pa.Table, profile: np.ndarray) -> pa.Table:
    """Rows of MEMBER, by user_id: the users of vectors, whose profiles are `profile` (n,)."""
    place, user_ids = rank(pa.concat_arrays(vectors["user_id"].chunks))
    if len(user_ids) < vectors.num_rows:
        twice = int(np.flatnonzero(np.bincount(place) > 1)[0])
        raise ListedTwice(f"User {user_ids[twice].as_py()!r} is listed twice in the grouped users.")
    by_user = np.empty(len(place), np.int64)
    by_user[place] = np.arange(len(place))
    gender = vectors["gender"].unify_dictionaries().combine_chunks().take(pa.array(by_user)).cast(pa.string())
    counts = [vectors[name].to_numpy()[by_user] for name in ("actions", *ACTIONS)]
    return pa.Table.from_arrays([user_ids, gender, *map(pa.array, (profile[by_user], *counts))], schema=MEMBER)


def _distinct(vectors: pa.ChunkedArray) -> tuple[np.ndarray, pa.BinaryArray]:
    """Each vector's place (int64) among the distinct ones, and these in the order in which they come."""
    values = [chunk.dictionary for chunk in vectors.chunks]
    encoded = pa.concat_arrays(values).dictionary_encode()
    place = encoded.indices.to_numpy().astype(np.int64)
    first = np.cumsum([0, *map(len, values)])
    codes = [place[chunk.indices.to_numpy() + start] for chunk, start in zip(vectors.chunks, first, strict=False)]
    return np.concatenate(codes), encoded.dictionary


def to_table(matrix: sp.csr_matrix, weight: np.ndarray, fit_weight: np.ndarray) -> pa.Table:
    """Profiles × dimensions, the users of each, and those of them to learn from, as rows of PROFILE."""
    offsets = pa.array(matrix.indptr, pa.int32())
    return pa.Table.from_arrays(
        [
            pa.array(np.arange(matrix.shape[0])),
            pa.ListArray.from_arrays(offsets, pa.array(matrix.indices, pa.int32())),
            pa.ListArray.from_arrays(offsets, pa.array(matrix.data, pa.float64())),
            pa.array(weight, pa.int64()),
            pa.array(fit_weight, pa.int64()),
        ],
        schema=PROFILE,
    )


def from_table(profiles: pa.Table, dimensions: int) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """The inverse of `to_table`: profiles × dimensions (float64), weights and fit weights (int64)."""
    indices, values = profiles["indices"].combine_chunks(), profiles["values"].combine_chunks()
    shape = (profiles.num_rows, dimensions)
    parts = (values.flatten().to_numpy(), indices.flatten().to_numpy(), indices.offsets.to_numpy())
    matrix = sp.csr_matrix(parts, shape=shape)
    return matrix, profiles["weight"].to_numpy(), profiles["fit_weight"].to_numpy()


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
    return _to_binary(entries, matrix.indptr)


def _to_binary(entries: np.ndarray, first: np.ndarray) -> pa.BinaryArray:
    """Vectors (n,) of ENTRY, of which each has those from its place in `first` (n + 1,) to the next's."""
    offsets = (first.astype(np.int64) * ENTRY.itemsize).astype(np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(entries.tobytes())]
    return pa.BinaryArray.from_buffers(pa.binary(), len(first) - 1, buffers)
