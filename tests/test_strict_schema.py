"""Strict schemas: a table between two steps that breaks a rule stops the job, which names table, column and rule."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spark_jobs import outputs
from spark_jobs.clusters import files as cluster_files
from spark_jobs.config import ACTIONS
from spark_jobs.errors import InputError, SchemaViolation
from spark_jobs.outputs.schemas import AT_LEAST_1, TableRules, strictness
from spark_jobs.users import shuffle as users_shuffle
from spark_jobs.users.grouping import GROUPED_USER, USERS
from spark_jobs.vectors import shuffle as vectors_shuffle
from tests.conftest import Engine

PAGE = {"page_id": "p", **dict.fromkeys(ACTIONS, 0), "page_like": 1}
USER = {"user_id": "a", "gender": "0", "pages": [PAGE]}

TABLE = TableRules(
    "things",
    pa.schema([("id", pa.string()), ("count", pa.int64()), ("parts", pa.list_(pa.struct([("size", pa.float64())])))]),
    non_empty=("id",),
    ranges={"count": AT_LEAST_1, "parts.size": (0, 5)},
    optional=("parts",),
)
GOOD = {"id": "x", "count": 1, "parts": [{"size": 0.0}, {"size": 5.0}]}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"id": None}, r"column id must have no null \(1 is not\)"),
        ({"id": ""}, r"column id must have no empty text \(1 is not\)"),
        ({"count": 0}, r"column count must be at least 1 \(1 is not\)"),
        ({"parts": [{"size": None}, {"size": 1.0}]}, r"column parts.size must have no null \(1 is not\)"),
        ({"parts": [{"size": -1.0}, {"size": -2.0}]}, r"column parts.size must be at least 0 \(2 are not\)"),
        ({"parts": [{"size": 5.5}]}, r"column parts.size must be at most 5 \(1 is not\)"),
        ({"parts": [{"size": float("nan")}]}, r"column parts.size must be finite \(1 is not\)"),
    ],
)
@pytest.mark.parametrize("kind", [pa.Table, pa.RecordBatch])
def test_a_value_that_breaks_a_rule_is_told_with_table_column_and_rule(
    kind: Any, change: dict[str, Any], rule: str
) -> None:
    checked = strictness(True)
    good = kind.from_pylist([GOOD, {**GOOD, "parts": None}, {**GOOD, "parts": []}], schema=TABLE.schema)
    assert checked(TABLE, good) is good
    bad = kind.from_pylist([GOOD, {**GOOD, **change}], schema=TABLE.schema)
    with pytest.raises(SchemaViolation, match=f"^Strict schema: things: {rule}"):
        checked(TABLE, bad)
    assert strictness(False)(TABLE, bad) is bad
    assert checked(TABLE, bad.slice(0, 1)).num_rows == 1


def test_a_table_with_other_columns_or_types_is_told() -> None:
    checked = strictness(True)
    rows = pa.Table.from_pylist([GOOD], schema=TABLE.schema)
    with pytest.raises(SchemaViolation, match="things: its columns must be id, count, parts, not id, parts"):
        checked(TABLE, rows.drop_columns(["count"]))
    with pytest.raises(SchemaViolation, match="things: column count must be int64, not int32"):
        checked(TABLE, rows.set_column(1, "count", pa.array([1], pa.int32())))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"user_id": None}, "its user_id is missing"),
        ({"pages": [{**PAGE, "post_like": -1}]}, "its post_like on one of its pages is below 0"),
    ],
)
@pytest.mark.parametrize("strict", ["true", "false"])
def test_wrong_rows_of_other_programs_stop_a_job_strict_or_not(
    engine: Engine, tmp_path: Path, write_category: Callable[..., Path], change: dict[str, Any], rule: str, strict: str
) -> None:
    pq.write_table(pa.Table.from_pylist([{**USER, **change}], schema=GROUPED_USER), tmp_path / "users.parquet")
    files = [tmp_path / "users.parquet", tmp_path / "in", "--category", write_category("x", "p")]
    with pytest.raises(InputError, match=f"users.parquet, row 1 can't be read: {rule}"):
        engine.run("make_clustering_inputs", *files, "--strict-schema", strict)
    assert not outputs.is_finished(str(tmp_path / "in"))


def test_strict_or_not_the_output_is_the_same_and_so_is_its_fingerprint(
    engine: Engine, tmp_path: Path, write_category: Callable[..., Path]
) -> None:
    raw = raw_month(tmp_path)
    category = write_category("x", "p")
    for strict in ("true", "false"):
        place, option = tmp_path / strict, ("--strict-schema", strict)
        engine.run("group_by_user", raw, place / "users", *option)
        engine.run("make_clustering_inputs", place / "users", place / "in", "--category", category, *option)
        engine.run("select_k", place / "in", place / "k", *option)
        engine.run("kmeans", place / "in", place / "out", "--k", 1, *option)
    for step, name in {
        "grouped_users": "users",
        "clustering_inputs": "in",
        "k_selection": "k",
        "kmeans": "out",
    }.items():
        one, other = (outputs.read_manifest(str(tmp_path / strict / name), step) for strict in ("true", "false"))
        assert one["fingerprint"] == other["fingerprint"]
        assert one["files"] == other["files"]


def raw_month(tmp_path: Path) -> Path:
    folder = tmp_path / "month=2024-01"
    folder.mkdir()
    (folder / "a.csv").write_text("user_id,page_id,action\na,p,page_like\nb,p,post_like\n")
    return folder


def spoiled(make: Callable[..., Any], column: str, value: Any) -> Callable[..., Any]:
    """A step that gives one column another value throughout, in what it returns or in all that it yields."""

    def wrong(*args: Any) -> Any:
        made = make(*args)
        return ((place, spoil(rows)) for place, rows in made) if isinstance(made, Iterator) else spoil(made)

    def spoil(rows: Any) -> Any:
        place = rows.schema.get_field_index(column)
        values = pa.array([value] * rows.num_rows, rows.schema.field(column).type)
        arrays = [*rows.columns[:place], values, *rows.columns[place + 1 :]]
        return type(rows).from_arrays(arrays, schema=rows.schema)

    return wrong


@pytest.mark.parametrize(
    ("module", "step", "column", "value", "rule"),
    [
        (users_shuffle, "nest_users", "gender", "", "grouped users: column gender must have no empty text"),
        (vectors_shuffle, "vectors_of", "user_id", None, "vectors: column user_id must have no null"),
        (cluster_files, "_centers", "users", 0, "centers.parquet: column users must be at least 1"),
    ],
)
def test_a_step_that_gives_wrong_rows_is_found_before_they_are_written(
    local: Engine,
    tmp_path: Path,
    write_category: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    step: str,
    column: str,
    value: Any,
    rule: str,
) -> None:
    raw, category = raw_month(tmp_path), write_category("x", "p")
    monkeypatch.setattr(module, step, spoiled(getattr(module, step), column, value))

    def run_all() -> None:
        local.run("group_by_user", raw, tmp_path / "users")
        local.run("make_clustering_inputs", tmp_path / "users", tmp_path / "in", "--category", category)
        local.run("kmeans", tmp_path / "in", tmp_path / "out", "--k", 1)

    with pytest.raises(InputError, match=f"^Strict schema: {rule}"):
        run_all()


def test_without_strict_schemas_nothing_between_the_steps_is_looked_at() -> None:
    rows = pa.Table.from_pylist([{**USER, "user_id": None}], schema=GROUPED_USER)
    assert strictness(False)(USERS, rows) is rows
