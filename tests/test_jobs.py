"""The jobs from a terminal, on both engines: the golden case, bad input, and the same rows from both."""

import gzip
import itertools
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from spark_jobs import group_by_user, kmeans, make_clustering_inputs, outputs, select_k
from spark_jobs.errors import InputError, OutputExists, TooManyRejects
from tests import bad_users
from tests.conftest import Engine
from tests.golden import assert_golden, read_json_lines

GOOD = {"user_id": "u", "page_id": "p", "action": "page_like"}


def raw_month(tmp_path: Path, rows: Sequence[dict[str, Any]], name: str = "a.jsonl") -> Path:
    folder = tmp_path / "month=2024-01"
    folder.mkdir(exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (folder / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return folder


def users_of(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / "users").to_pylist()
    return rows


def test_the_golden_case_gives_what_is_expected(golden: Path, tmp_path: Path, engine: Engine) -> None:
    inputs, clusters = tmp_path / "inputs", tmp_path / "clusters"
    options = ["--scaling", "none"]
    category = golden / "category.json"
    engine.run("make_clustering_inputs", golden / "grouped_users.jsonl", inputs, "--category", category, *options)
    engine.run("kmeans", inputs, clusters, "--k", 2, "--params", "kmeans||,100,0.001")
    assert_golden(clusters, golden)


def test_grouped_users_hold_every_accepted_action(tmp_path: Path, engine: Engine) -> None:
    raw = raw_month(
        tmp_path,
        [
            {**GOOD, "user_id": "b", "gender": "2", "count": 2**62},
            {**GOOD, "user_id": "B", "page_id": "é"},
            {**GOOD, "user_id": "ü" * 70_000, "page_id": "😀" * 70_000},
            {**GOOD, "user_id": "b", "action": "post_comment", "page_id": "a"},
            {**GOOD, "user_id": "b", "action": "post_comment", "page_id": "a", "gender": "2"},
        ],
    )
    out = tmp_path / "out"
    engine.run("group_by_user", raw, out)
    zero = {"page_like": 0, "page_comment": 0, "post_like": 0, "post_comment": 0}
    assert users_of(out) == [
        {"user_id": "B", "gender": "0", "pages": [{"page_id": "é", **zero, "page_like": 1}]},
        {
            "user_id": "b",
            "gender": "2",
            "pages": [
                {"page_id": "a", **zero, "post_comment": 2},
                {"page_id": "p", **zero, "page_like": 2**62},
            ],
        },
        {
            "user_id": "ü" * 70_000,
            "gender": "0",
            "pages": [{"page_id": "😀" * 70_000, **zero, "page_like": 1}],
        },
    ]
    summary = outputs.read_manifest(str(out), "grouped_users")["summary"]
    assert (summary["users"], summary["rows"], summary["actions"]) == (3, 5, 2**62 + 4)


def test_users_are_spread_over_files_in_order_and_none_is_in_two(tmp_path: Path, engine: Engine) -> None:
    rows = [{**GOOD, "user_id": f"u{n % 400}", "page_id": f"p{n % 3}"} for n in range(1200)]
    raw_month(tmp_path, rows[:500])
    raw = raw_month(tmp_path, rows[500:], "b.jsonl.gz")
    engine.run("group_by_user", raw, tmp_path / "out", patch={"users.shuffle._RAW_BYTES_A_FILE": 2_000})
    parts = sorted((tmp_path / "out" / "users").iterdir())
    assert len(parts) > 1
    ids = [pq.read_table(part)["user_id"].to_pylist() for part in parts]
    assert all(part == sorted(part) for part in ids)
    assert sorted(itertools.chain(*ids)) == sorted({row["user_id"] for row in rows})


def test_rejects_are_kept_with_file_line_and_reason(local: Engine, tmp_path: Path) -> None:
    rows = [GOOD] * 150 + [{**GOOD, "count": 0}]
    raw = raw_month(tmp_path, rows)
    local.run("group_by_user", raw, tmp_path / "out")
    assert pq.read_table(tmp_path / "out" / "rejects").to_pylist() == [
        {"file": str(raw / "a.jsonl"), "line": 151, "reason": "count is no whole number from 1 to 2^63-1"}
    ]
    summary = outputs.read_manifest(str(tmp_path / "out"), "grouped_users")["summary"]
    assert summary["rejects"] == {"count is no whole number from 1 to 2^63-1": 1}


def test_too_many_rejects_fail_with_counts_and_the_first(local: Engine, tmp_path: Path) -> None:
    raw = raw_month(tmp_path, [GOOD] * 9 + [{**GOOD, "user_id": ""}])
    with pytest.raises(TooManyRejects, match=r"1 of 10 raw rows \(10.0%\).*a.jsonl, line 10: user_id is missing"):
        local.run("group_by_user", raw, tmp_path / "out")
    assert not outputs.is_finished(str(tmp_path / "out"))
    local.run("group_by_user", raw, tmp_path / "out", "--max-reject-ratio", "0.1")


def test_every_unreadable_file_is_named_and_nothing_is_finished(tmp_path: Path, engine: Engine) -> None:
    raw = raw_month(tmp_path, [GOOD])
    (raw / "cut.jsonl.gz").write_bytes(gzip.compress(b"x" * 99999)[:50])
    (raw / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"bad\.parquet can't be read.*cut\.jsonl\.gz can't be read"):
        engine.run("group_by_user", raw, tmp_path / "out")
    assert not outputs.is_finished(str(tmp_path / "out"))


def test_a_month_without_files_says_where_to_put_them(local: Engine, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no raw data in .*month=2024-01.*Put the month's files there"):
        local.run("group_by_user", tmp_path / "month=2024-01", tmp_path / "out")


def test_a_file_of_another_type_is_named(local: Engine, tmp_path: Path) -> None:
    raw = raw_month(tmp_path, [GOOD], "actions.txt")
    with pytest.raises(InputError, match=r"actions\.txt can't be read: raw data files end in"):
        local.run("group_by_user", raw, tmp_path / "out")


def test_markers_and_hidden_files_are_no_raw_files(tmp_path: Path, engine: Engine) -> None:
    raw = raw_month(tmp_path, [GOOD])
    said = engine.run("group_by_user", raw, tmp_path / "out")
    for name in ("_SUCCESS", "_committed_1.parquet", ".a.jsonl.crc", ".DS_Store"):
        (raw / name).write_text("no raw action")
    (raw / "_temporary").mkdir()
    # The same fingerprint, so the output that is there is told once more.
    assert engine.run("group_by_user", raw, tmp_path / "out").outputs == said.outputs
    engine.run("group_by_user", raw, tmp_path / "again")
    assert users_of(tmp_path / "again") == users_of(tmp_path / "out")


def test_the_same_files_are_other_grouped_users_in_another_month(local: Engine, tmp_path: Path) -> None:
    raw = raw_month(tmp_path, [{**GOOD, "timestamp": "2024-01-05"}] * 200 + [GOOD])
    local.run("group_by_user", raw, tmp_path / "out")
    assert local.run("group_by_user", raw, tmp_path / "out", "--month", "2024-01").outputs, "the same month"
    with pytest.raises(OutputExists):
        local.run("group_by_user", raw, tmp_path / "out", "--month", "2024-02")
    with pytest.raises(TooManyRejects, match="200 × timestamp is outside the month"):
        local.run("group_by_user", raw, tmp_path / "february", "--month", "2024-02")


def test_a_month_with_nothing_but_a_marker_has_no_raw_data(local: Engine, tmp_path: Path) -> None:
    raw_month(tmp_path, [], "_SUCCESS")
    with pytest.raises(InputError, match="no raw data"):
        local.run("group_by_user", tmp_path / "month=2024-01", tmp_path / "out")


def test_an_empty_month_has_no_users_and_is_no_failure(
    tmp_path: Path, engine: Engine, write_category: Callable[..., Path]
) -> None:
    raw = raw_month(tmp_path, [])
    engine.run("group_by_user", raw, tmp_path / "users")
    assert users_of(tmp_path / "users") == []
    category = write_category("coffee", "p")
    engine.run(
        "make_clustering_inputs",
        tmp_path / "users",
        tmp_path / "in",
        "--category",
        category,
    )
    engine.run("select_k", tmp_path / "in", tmp_path / "k")
    engine.run("kmeans", tmp_path / "in", tmp_path / "out", "--k-selection", tmp_path / "k")
    choice, summary = (json.loads((tmp_path / name).read_text()) for name in ("k/k.json", "out/summary.json"))
    assert (choice["verdict"], choice["k"], choice["people"], choice["tried"]) == ("too_few", 1, 0, [])
    assert (summary["k"], summary["verdict"], summary["solidity"]) == (0, "too_few", [])
    assert summary["learned_from"]["users"] is None
    assert (tmp_path / "out" / "data.json").read_text() == ""
    assert pq.read_table(tmp_path / "out" / "assignments.parquet").num_rows == 0


def test_one_user_is_one_cluster(local: Engine, tmp_path: Path, write_category: Callable[..., Path]) -> None:
    local.run("group_by_user", raw_month(tmp_path, [GOOD]), tmp_path / "users")
    local.run("make_clustering_inputs", tmp_path / "users", tmp_path / "in", "--category", write_category("x", "p"))
    local.run("select_k", tmp_path / "in", tmp_path / "k")
    local.run("kmeans", tmp_path / "in", tmp_path / "out", "--k-selection", tmp_path / "k")
    assert read_json_lines(tmp_path / "out" / "data.json") == [{"cluster_id": 0, "user_ids": ["u"]}]
    choice, summary = (json.loads((tmp_path / name).read_text()) for name in ("k/k.json", "out/summary.json"))
    assert (choice["verdict"], choice["k"], choice["people"]) == ("too_few", 1, 0)
    assert summary["learned_from"] == {"users": None, "min_actions": 0, "wssse": 0.0}
    assert pq.read_table(tmp_path / "out" / "assignments.parquet").to_pylist() == [
        {"user_id": "u", "cluster_id": 0, "distance": 0.0, "confidence": 1.0}
    ]


def test_k_above_the_distinct_profiles_is_cut_and_says_so(
    local: Engine, tmp_path: Path, write_category: Callable[..., Path]
) -> None:
    local.run("group_by_user", raw_month(tmp_path, [GOOD, {**GOOD, "user_id": "v"}]), tmp_path / "users")
    local.run("make_clustering_inputs", tmp_path / "users", tmp_path / "in", "--category", write_category("x", "p"))
    said = local.run("kmeans", tmp_path / "in", tmp_path / "out", "--k", 5)
    assert "k is cut from 5 to 1" in said.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["k"], summary["requested_k"]) == (1, 5)


def test_the_same_input_config_and_seed_give_the_same_bytes(local: Engine, ansible: Path, tmp_path: Path) -> None:
    raw = ansible / "raw" / "month=2018-12"
    category = ansible / "categories" / "cloud.json"
    for place in (tmp_path / "a", tmp_path / "b"):
        local.run("group_by_user", raw, place / "users")
        local.run("make_clustering_inputs", place / "users", place / "in", "--category", category)
        local.run("kmeans", place / "in", place / "out", "--k", 4)
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()]
    assert len(files) > 10
    for file in files:
        if file.name != "manifest.json":  # it has times
            assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_several_categories_need_a_place_for_their_names(
    local: Engine, tmp_path: Path, write_category: Callable[..., Path]
) -> None:
    local.run("group_by_user", raw_month(tmp_path, [GOOD]), tmp_path / "users")
    files = [option for name in "xy" for option in ("--category", write_category(name, "p"))]
    with pytest.raises(InputError, match=r"must hold the text \{category\}"):
        local.run("make_clustering_inputs", tmp_path / "users", tmp_path / "in", *files)
    said = local.run("make_clustering_inputs", tmp_path / "users", tmp_path / "in-{category}", *files)
    assert [output["users"] for output in said.outputs] == [1, 1]
    assert outputs.is_finished(str(tmp_path / "in-y"))


def test_a_job_that_was_interrupted_goes_on_with_what_is_not_done(
    local: Engine, tmp_path: Path, write_category: Callable[..., Path]
) -> None:
    local.run("group_by_user", raw_month(tmp_path, [GOOD]), tmp_path / "users")
    coffee, tea = (write_category(name, "p") for name in ("coffee", "tea"))
    output = tmp_path / "{category}"
    local.run("make_clustering_inputs", tmp_path / "users", output, "--category", coffee)
    first = (tmp_path / "coffee" / "manifest.json").stat().st_mtime_ns
    again = local.run("make_clustering_inputs", tmp_path / "users", output, "--category", coffee, "--category", tea)
    assert [Path(said["output"]).name for said in again.outputs] == ["coffee", "tea"]
    assert (tmp_path / "coffee" / "manifest.json").stat().st_mtime_ns == first


def test_a_path_that_looks_like_a_pattern_is_a_path(
    tmp_path: Path, engine: Engine, write_category: Callable[..., Path]
) -> None:
    place = tmp_path / "a[1] *?{x} é"
    engine.run("group_by_user", raw_month(tmp_path, [GOOD]), place / "users")
    said = engine.run("make_clustering_inputs", place / "users", place / "in", "--category", write_category("x", "p"))
    assert said.outputs[0]["users"] == 1


def test_a_user_who_is_listed_twice_is_named(
    local: Engine, tmp_path: Path, write_category: Callable[..., Path]
) -> None:
    file = tmp_path / "users.jsonl"
    file.write_text('{"user_id": "a", "page_like": {"p": 1}}\n\n{"user_id": "a", "page_like": {"p": 2}}\n')
    with pytest.raises(InputError, match="User 'a' is listed twice"):
        local.run("make_clustering_inputs", file, tmp_path / "in", "--category", write_category("x", "p"))


def test_counts_beyond_64_bits_are_told(local: Engine, tmp_path: Path) -> None:
    raw = raw_month(tmp_path, [{**GOOD, "count": 2**62}] * 3)
    with pytest.raises(InputError, match="more than 64 bits hold"):
        local.run("group_by_user", raw, tmp_path / "out", "--strict-schema", "false")


def test_a_line_of_grouped_users_that_makes_no_sense_is_named(
    tmp_path: Path, engine: Engine, write_category: Callable[..., Path]
) -> None:
    file = tmp_path / "users.jsonl"
    file.write_text('{"user_id": "a", "page_like": {"p": 1}}\n{"user_id": "b", "page_like": 7}\n')
    category = write_category("x", "p")
    with pytest.raises(InputError, match=r"^\S+users\.jsonl, line 2 can't be read"):
        engine.run("make_clustering_inputs", file, tmp_path / "in", "--category", category)


@pytest.mark.parametrize("bad", ["parquet: raw actions", "parquet: a page is listed twice", "jsonl: a raw action"])
def test_grouped_users_that_break_a_rule_are_refused_by_name(
    tmp_path: Path, engine: Engine, write_category: Callable[..., Path], bad: str
) -> None:
    """On each engine some of the corpus, of which the local one is given all."""
    (users,) = (user for user in bad_users.users() if user.what == bad)
    file = users.write(tmp_path)
    with pytest.raises(InputError, match=re.escape(str(users.expected))) as caught:
        engine.run("make_clustering_inputs", file, tmp_path / "in", "--category", write_category("x", "p"))
    assert str(file) in str(caught.value)
    assert not outputs.is_finished(str(tmp_path / "in"))


@pytest.mark.spark
def test_both_engines_write_the_same_bytes(local: Engine, spark: Engine, ansible: Path, tmp_path: Path) -> None:
    categories = sorted((ansible / "categories").iterdir())
    files = [option for category in categories for option in ("--category", category)]
    for engine in (local, spark):
        place = tmp_path / engine.name
        month = ansible / "raw" / "month=2018-12"
        engine.run("group_by_user", month, place / "users", patch={"users.shuffle._RAW_BYTES_A_FILE": 500})
        engine.run("make_clustering_inputs", place / "users", place / "{category}", *files)
    compared = [p.relative_to(tmp_path / "local") for p in (tmp_path / "local").rglob("*.parquet")]
    assert len(compared) > 3 + 3 * len(categories)
    for part in compared:
        assert (tmp_path / "local" / part).read_bytes() == (tmp_path / "spark" / part).read_bytes(), part


def test_every_job_tells_its_options() -> None:
    for command in (group_by_user.main, make_clustering_inputs.main, select_k.main, kmeans.main):
        result = CliRunner().invoke(command, ["--help"])
        assert result.exit_code == 0
        assert "--engine [local|spark]" in result.output
        assert "Undefined" not in result.output


def test_parquet_of_the_layout_is_read_without_a_manifest(
    local: Engine, tmp_path: Path, write_category: Callable[..., Path]
) -> None:
    from spark_jobs.users.grouping import GROUPED_USER

    page = {"page_id": "p", "page_like": 1, "page_comment": 0, "post_like": 0, "post_comment": 0}
    rows = [{"user_id": "a", "gender": "0", "pages": [page]}]
    pq.write_table(pa.Table.from_pylist(rows, schema=GROUPED_USER), tmp_path / "users.parquet")
    said = local.run(
        "make_clustering_inputs", tmp_path / "users.parquet", tmp_path / "in", "--category", write_category("x", "p")
    )
    assert said.outputs[0]["users"] == 1
