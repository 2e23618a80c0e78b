"""The rules of tables, and the rows that break them.

Beside its Arrow schema a table has rules that are cheap to check. Those of every table: no value is null, nor any that
is nested in it, and every number is finite. Its own rules are beside its schema, in the module that makes it.

Outputs are always checked, when they are read back (`Inspection`). Tables between the steps of a job are checked only
if strict schemas are switched on (`strictness`).
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs.errors import SchemaViolation

Violation = tuple[str, int]  # a rule, and how many values break it; 0 if the rule is not about values


@dataclass(frozen=True)
class TableRules:
    """A table's schema and rules. A nested column is named with those above it: `pages.page_id`."""

    name: str
    schema: pa.Schema
    non_empty: Collection[str] = ()  # columns whose texts must not be empty
    ranges: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)  # the smallest and the largest value
    optional: Collection[str] = ()  # columns that may be null
    key: str | None = None  # the column that rises from row to row in a file, so that its values are distinct

    def only(self, *columns: str) -> "TableRules":
        """The rules of a table that has only some of the columns."""
        return replace(self, schema=pa.schema([self.schema.field(column) for column in columns]))


AT_LEAST_0 = (0, None)
AT_LEAST_1 = (1, None)


class Inspection:
    """Checks the rows of a table as they are read: how many there are, and which rules they break."""

    def __init__(self, rules: TableRules):
        self.rules = rules
        self.rows = 0
        self._violations: Counter[str] = Counter()

    @property
    def violations(self) -> list[str]:
        """The rules that are broken, each once."""
        return [f"{self.rules.name}: {_format(violation)}" for violation in self._violations.items()]

    def add(self, rule: str, values: int = 0) -> None:
        """Note that a rule is broken."""
        self._violations[rule] += values

    def include(self, other: "Inspection") -> None:
        """Add what another inspection has found in other rows of the table."""
        self.rows += other.rows
        self._violations.update(other._violations)

    def through(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches of one file without those that break a rule; the order of their rows may still be wrong."""
        key, last = self.rules.key, None
        for batch in batches:
            self.rows += batch.num_rows
            broken = list(_broken(self.rules, batch))
            for rule, values in broken:
                self.add(rule, values)
            if broken:
                continue
            if key is not None and batch.num_rows:
                for rule, values in _not_rising(key, batch.column(key), last):
                    self.add(rule, values)
                last = batch.column(key)[-1:]
            yield batch


def strictness(strict: bool) -> Callable[[TableRules, Any], Any]:
    """A function that returns a table or record batch unchanged, and if `strict` checks it first.

    The function raises SchemaViolation for rows that break one of the rules.
    """
    return _checked if strict else _unchecked


def _checked(rules: TableRules, rows: Any) -> Any:
    violation = next(_broken(rules, rows), None)
    if violation is not None:
        raise SchemaViolation(rules.name, _format(violation))
    return rows


def _unchecked(_rules: TableRules, rows: Any) -> Any:
    return rows


def _format(violation: Violation) -> str:
    rule, values = violation
    return f"{rule} ({values:,} {'is' if values == 1 else 'are'} not)" if values else rule


def _broken(rules: TableRules, rows: Any) -> Iterator[Violation]:
    """The rules that rows, a table or a record batch, break; those of values only if the columns are right."""
    if rows.schema.names != rules.schema.names:
        yield f"its columns must be {', '.join(rules.schema.names)}, not {', '.join(rows.schema.names)}", 0
        return
    types = zip(rules.schema, rows.schema, strict=True)
    wrong = [(wanted, found.type) for wanted, found in types if found.type != wanted.type]
    for wanted, found in wrong:
        yield f"column {wanted.name} must be {wanted.type}, not {found}", 0
    if not wrong:
        for batch in [rows] if isinstance(rows, pa.RecordBatch) else rows.to_batches():
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                yield from _broken_in(rules, name, column)


def _broken_in(rules: TableRules, name: str, column: pa.Array) -> Iterator[Violation]:
    """The rules that a column breaks, or what is nested in one; the items of a list have the list's name."""
    if column.null_count and name not in rules.optional:
        yield f"column {name} must have no null", column.null_count
    kind = column.type
    if pa.types.is_list(kind):
        yield from _broken_in(rules, name, column.flatten())
        return
    if pa.types.is_struct(kind):
        for place, part in enumerate(kind):
            yield from _broken_in(rules, f"{name}.{part.name}", column.field(place))
        return
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
    if name in rules.non_empty:
        yield from _unless(pc.greater(pc.binary_length(column), 0), f"column {name} must have no empty text")
    if pa.types.is_floating(kind):
        yield from _unless(pc.is_finite(column), f"column {name} must be finite")
    if name in rules.ranges:
        low, high = rules.ranges[name]
        yield from _unless(pc.greater_equal(column, low), f"column {name} must be at least {low}")
        if high is not None:
            yield from _unless(pc.less_equal(column, high), f"column {name} must be at most {high}")


def _unless(holds: pa.BooleanArray, rule: str) -> Iterator[Violation]:
    if broken := holds.false_count:
        yield rule, broken


def _not_rising(key: str, values: pa.Array, last: pa.Array | None) -> Iterator[Violation]:
    """Arrow compares texts byte by byte, as they are sorted."""
    if last is not None:
        values = pa.concat_arrays([last, values])
    yield from _unless(pc.less(values[:-1], values[1:]), f"column {key} must rise from row to row")
