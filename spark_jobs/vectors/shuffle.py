"""The shuffle that makes clustering inputs: files of users become vectors by category, and these become its files.

Its functions run in the tasks of an engine, in other processes.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs import engines
from spark_jobs.config import ACTIONS, ClusteringInputsConfig
from spark_jobs.engines.pieces import pack, unpack
from spark_jobs.errors import UnreadableFile
from spark_jobs.outputs.schemas import TableRules, strictness
from spark_jobs.outputs.tables import write_table
from spark_jobs.users.counts import exact_sum
from spark_jobs.users.grouped_users import Part
from spark_jobs.users.grouping import CODED_USERS
from spark_jobs.vectors.category_files import Category
from spark_jobs.vectors.profiles import (
    DIMENSIONS,
    ENTRY,
    MEMBERS,
    PROFILES,
    VECTOR,
    VECTORS,
    ListedTwice,
    PageIndex,
    build_inputs,
    vectors_of,
)

# Of memory, measured: see benchmarks/profiles.
_SPLIT_BYTES = 300 << 20
_MERGE_RATIO = 20.0


class InputsCounts(NamedTuple):
    """What a category's clustering inputs hold."""

    users: int
    fit_users: int  # with enough actions to be learned from
    profiles: int
    entries: int  # of all profiles
    dimensions_in_use: int
    scaling_factor: float | None
    actions: dict[str, int]  # of each kind, on the category's pages


def inputs_exchange(
    grouped: str,
    parts: Sequence[Part],
    categories: Sequence[Category],
    folders: Sequence[str],
    config: ClusteringInputsConfig,
    strict: bool,
) -> engines.Exchange[Callable[[], Iterator[pa.RecordBatch]], np.ndarray, InputsCounts]:
    """The exchange that makes the clustering inputs of some categories.

    An item counts the users (column 0) and the entries (column 1) of its vectors, by category. A category whose pages
    nobody is on is not merged.

    Args:
        grouped: Where the grouped users are, for errors.
        parts: Their files.
        categories: The categories.
        folders: The output of each.
        config: Of the inputs.
        strict: Whether all rows are checked between its steps.
    """
    index = PageIndex(categories)
    weights = [config.action_weights[action] for action in ACTIONS]
    checked = strictness(strict)

    def split(read: Callable[[], Iterator[pa.RecordBatch]]) -> Generator[dict[int, bytes], None, np.ndarray]:
        counts = np.zeros((len(categories), 2), np.int64)
        for users in read():
            pieces = {}
            for place, vectors in vectors_of(checked(CODED_USERS, users), index, weights, config.min_actions):
                counts[place] += _count(checked(VECTORS, vectors))
                pieces[place] = pack(vectors)
            yield pieces
        return counts

    def merge(place: int, pieces: Iterator[bytes]) -> InputsCounts:
        vectors = pa.Table.from_batches([unpack(piece) for piece in pieces])
        try:
            return write_inputs(folders[place], categories[place], vectors, config.scaling, checked)
        except ListedTwice as error:
            raise UnreadableFile(grouped, error) from None

    return engines.Exchange(
        f"Making the clustering inputs of {grouped}",
        [part.read for part in parts],
        [part.bytes for part in parts],
        split,
        merge,
        len(categories),
        engines.Demand(_SPLIT_BYTES, _MERGE_RATIO),
    )


def write_inputs(
    folder: str,
    category: Category,
    vectors: pa.Table | None,
    scaling: str,
    checked: Callable[[TableRules, Any], Any],
) -> InputsCounts:
    """Write a category's clustering inputs.

    Args:
        folder: The output.
        category: The category.
        vectors: Rows of VECTOR; None if nobody has one.
        scaling: See `build_inputs`.
        checked: Checks rows, see `strictness`.
    """
    if vectors is None:
        vectors = pa.Table.from_batches([pa.RecordBatch.from_pylist([], schema=VECTOR)])
    inputs = build_inputs(category, checked(VECTORS, vectors), scaling)
    write_table(folder, "dimensions.parquet", checked(DIMENSIONS, inputs.dimensions))
    write_table(folder, "profiles.parquet", checked(PROFILES, inputs.profiles))
    write_table(folder, "members.parquet", checked(MEMBERS, inputs.members))
    return InputsCounts(
        inputs.members.num_rows,
        int(inputs.profiles["fit_weight"].to_numpy().sum()),
        inputs.profiles.num_rows,
        len(inputs.profiles["indices"].combine_chunks().flatten()),
        sum(n > 0 for n in inputs.dimensions["users"].to_pylist()),
        inputs.scaling_factor,
        {action: exact_sum(inputs.members[action].to_numpy()) for action in ACTIONS},
    )


def _count(vectors: pa.RecordBatch) -> np.ndarray:
    """How many users these vectors are of, and how many entries they have; (2,)."""
    vector = vectors.column("vector")
    length = pc.binary_length(vector.dictionary).to_numpy()[vector.indices.to_numpy()]
    return np.array([len(vector), length.sum() // ENTRY.itemsize], np.int64)
