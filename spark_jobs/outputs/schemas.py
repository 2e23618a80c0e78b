"""What the rows of a table must be like, and finding those that are not.

Beside its Arrow schema a table has the rules that are cheap to check. Of every table: no value is null, nor any that is
nested in it, and every number is finite. The rules of one are beside its schema, where it is made.

Outputs are always looked at, as they were written (`Inspection`). All other tables, those between the steps of a job,
are if strict schemas are switched on (`strictness`).
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs.errors import SchemaBreach

Breach = tuple[str, int]  # a rule, and how many values break it; 0 where it is none of the values'


@dataclass(frozen=True)
class Table:
    """The rules of a table. A column that is nested is named with those above it: `pages.page_id`."""

    name: str
    schema: pa.Schema
    filled: Collection[str] = ()  # columns of which no text is empty
    ranges: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)  # the smallest and the largest value
    optional: Collection[str] = ()  # columns that may be null
    key: str | None = None  # the column that rises from row to row in a file, so that no value is there twice

    def only(self, *columns: str) -> "Table":
        """The same table with some of its columns."""
        return replace(self, schema=pa.schema([self.schema.field(column) for column in columns]))


AT_LEAST_0 = (0, None)
AT_LEAST_1 = (1, None)


class Inspection:
    """Looks at the rows of a table as they are read: how many there are, and which rules they break."""

    def __init__(self, table: Table):
        self.table = table
        self.rows = 0
        self._breaches: Counter[str] = Counter()

    @property
    def breaches(self) -> list[str]:
        """The rules that are broken, each once."""
        return [f"{self.table.name}: {_told(breach)}" for breach in self._breaches.items()]

    def add(self, rule: str, values: int = 0) -> None:
        """Note that a rule is broken."""
        self._breaches[rule] += values

    def include(self, other: "Inspection") -> None:
        """Take in what another has found in other rows of the table."""
        self.rows += other.rows
        self._breaches.update(other._breaches)

    def through(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches of one file, but for those that break a rule: what reads on can rely on all but the order."""
        key, last = self.table.key, None
        for batch in batches:
            self.rows += batch.num_rows
            broken = list(_broken(self.table, batch))
            for rule, values in broken:
                self.add(rule, values)
            if broken:
                continue
            if key is not None and batch.num_rows:
                for rule, values in _not_rising(key, batch.column(key), last):
                    self.add(rule, values)
                last = batch.column(key)[-1:]
            yield batch


def strictness(strict: bool) -> Callable[[Table, Any], Any]:
    """What a job hands its tables and record batches through: it gives them back as they are.

    Raises:
        SchemaBreach: If it is strict, and they break one of the table's rules.
    """
    return _checked if strict else _unchecked


def _checked(table: Table, rows: Any) -> Any:
    breach = next(_broken(table, rows), None)
    if breach is not None:
        raise SchemaBreach(table.name, _told(breach))
    return rows


def _unchecked(_table: Table, rows: Any) -> Any:
    return rows


def _told(breach: Breach) -> str:
    rule, values = breach
    return f"{rule} ({values:,} {'is' if values == 1 else 'are'} not)" if values else rule


# --- the rules -------------------------------------------------------------------------------------


def _broken(table: Table, rows: Any) -> Iterator[Breach]:
    """The rules that rows, a table or a record batch, break; those of values only if the columns are right."""
    if rows.schema.names != table.schema.names:
        yield f"its columns must be {', '.join(table.schema.names)}, not {', '.join(rows.schema.names)}", 0
        return
    types = zip(table.schema, rows.schema, strict=True)
    wrong = [(wanted, found.type) for wanted, found in types if found.type != wanted.type]
    for wanted, found in wrong:
        yield f"column {wanted.name} must be {wanted.type}, not {found}", 0
    if not wrong:
        for batch in [rows] if isinstance(rows, pa.RecordBatch) else rows.to_batches():
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                yield from _broken_in(table, name, column)


def _broken_in(table: Table, name: str, column: pa.Array) -> Iterator[Breach]:
    """The rules that a column breaks, or what is nested in one; the items of a list have the list's name."""
    if column.null_count and name not in table.optional:
        yield f"column {name} must have no null", column.null_count
    kind = column.type
    if pa.types.is_list(kind):
        yield from _broken_in(table, name, column.flatten())
        return
    if pa.types.is_struct(kind):
        for place, part in enumerate(kind):
            yield from _broken_in(table, f"{name}.{part.name}", column.field(place))
        return
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
    if name in table.filled:
        yield from _unless(pc.greater(pc.binary_length(column), 0), f"column {name} must have no empty text")
    if pa.types.is_floating(kind):
        yield from _unless(pc.is_finite(column), f"column {name} must be finite")
    if name in table.ranges:
        low, high = table.ranges[name]
        yield from _unless(pc.greater_equal(column, low), f"column {name} must be at least {low}")
        if high is not None:
            yield from _unless(pc.less_equal(column, high), f"column {name} must be at most {high}")


def _unless(holds: pa.BooleanArray, rule: str) -> Iterator[Breach]:
    if broken := holds.false_count:
        yield rule, broken


def _not_rising(key: str, values: pa.Array, last: pa.Array | None) -> Iterator[Breach]:
    """Arrow compares texts byte by byte, as they are sorted."""
    if last is not None:
        values = pa.concat_arrays([last, values])
    yield from _unless(pc.less(values[:-1], values[1:]), f"column {key} must rise from row to row")
