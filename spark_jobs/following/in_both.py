"""The users who are in two tables, found in memory that does not grow with how many there are."""

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

_KEY = "user_id"


def in_both(
    left: Iterable[pa.RecordBatch], right: Iterable[pa.RecordBatch]
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """The rows of the users whom two tables share, some at a time: of both tables, user by user the same.

    The tables are merged, so only a batch of each is in memory.

    Args:
        left: Batches of a table with a column `user_id` that rises from row to row; see `rising`.
        right: The same of another table.
    """
    lefts, rights = _with_rows(left), _with_rows(right)
    here, there = next(lefts, None), next(rights, None)
    while here is not None and there is not None:
        # What comes after the end of the other table's batch may be in its next one.
        end = min(here.column(_KEY)[-1], there.column(_KEY)[-1], key=_bytes)
        ready, ready_there = _count_to(end, here), _count_to(end, there)
        yield _shared(here[:ready], there[:ready_there])
        here = here[ready:] if ready < len(here) else next(lefts, None)
        there = there[ready_there:] if ready_there < len(there) else next(rights, None)


def rising(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same batches, once it is checked that their column `user_id` rises from row to row, by its UTF-8 bytes.

    Raises:
        ValueError: It does not.
    """
    last: pa.Array | None = None
    for batch in batches:
        users = batch.column(_KEY)
        together = users if last is None else pa.concat_arrays([last, users])
        if pc.less(together[:-1], together[1:]).false_count:  # Arrow compares texts byte by byte
            raise ValueError(f"the rows are not in the order of {_KEY}")
        last = together[-1:] if len(together) else last
        yield batch


def _shared(left: pa.RecordBatch, right: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    place = pc.index_in(left.column(_KEY), value_set=right.column(_KEY))
    found = place.is_valid()
    return left.filter(found), right.take(place.filter(found))


def _count_to(end: pa.StringScalar, batch: pa.RecordBatch) -> int:
    """How many of a batch's users do not come after `end`."""
    return int(pc.less_equal(batch.column(_KEY), end).true_count)


def _bytes(user: pa.StringScalar) -> bytes:
    return bytes(user.as_buffer())


def _with_rows(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    return (batch for batch in batches if len(batch))
