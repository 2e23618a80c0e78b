"""Category files from a database or CSV: what is refused, what changes, and what stays."""

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import boto3
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from audience_explorer_dagster.categories import database_export
from audience_explorer_dagster.categories.database_export import Plan, Table, plan, read_csv, read_query
from spark_jobs import storage
from spark_jobs.errors import InputError
from spark_jobs.vectors.category_files import read_category
from tests.postgres import Postgres, postgres

COLUMNS = ("category", "page_id", "page_name")
SELECT = "SELECT category, page_id, page_name, network, category_id, private FROM pages"


def table(*rows: tuple[Any, ...], more: tuple[str, ...] = ()) -> Table:
    return Table((*COLUMNS, *more), [(f"row {number}", row) for number, row in enumerate(rows, 1)])


def export(folder: Path, rows: Table) -> Plan:
    planned = plan(str(folder), rows)
    for change in planned.changes:
        change.write()
    return planned


def content(folder: Path, name: str) -> Any:
    return json.loads((folder / f"{name}.json").read_text())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the category files, with none."""
    (tmp_path / "categories").mkdir()
    return tmp_path / "categories"


@pytest.fixture
def coffee(folder: Path) -> Path:
    """A category file that says more than an export may tell, in a layout of its own."""
    file = folder / "coffee.json"
    listed = [{"id": "b", "name": "B", "likes": 3}, {"id": "a", "name": "A"}]
    said = {
        "note": "by hand",
        "facebook": listed,
        "mastodon": [{"id": "m"}],
        "private": True,
        "name": "Coffee",
        "id": 4,
    }
    file.write_text(json.dumps(said, indent=7))
    return file


# --- what is written ---


def test_a_new_category_has_the_smallest_free_id_and_its_pages_in_order(folder: Path, coffee: Path) -> None:
    coffee.with_name("tea.json").write_text('{"id": 0, "facebook": [{"id": "t"}]}')
    export(folder, table(("water", "q", "Q"), ("milk", "z", "Z"), ("milk", "y", None)))
    assert content(folder, "milk") == {"id": 1, "facebook": [{"id": "y"}, {"id": "z", "name": "Z"}]}
    assert content(folder, "water") == {"id": 2, "facebook": [{"id": "q", "name": "Q"}]}


@pytest.mark.usefixtures("coffee")
def test_what_the_rows_do_not_tell_of_a_file_stays(folder: Path) -> None:
    before = content(folder, "coffee")
    export(folder, table(("coffee", "0", "new"), ("coffee", "a", "Ah"), ("coffee", "b", None)))
    after = content(folder, "coffee")
    assert after.pop("facebook") == [before["facebook"][0], {"id": "a", "name": "Ah"}, {"id": "0", "name": "new"}]
    assert after == {key: value for key, value in before.items() if key != "facebook"}


@pytest.mark.usefixtures("coffee")
def test_with_a_column_network_the_rows_tell_of_all_networks(folder: Path) -> None:
    rows = [("coffee", "a", "A", "peertube"), ("coffee", "b", "B", None)]
    export(folder, table(*rows, more=("network",)))
    after = content(folder, "coffee")
    assert "mastodon" not in after
    assert (after["facebook"], after["peertube"]) == (
        [{"id": "b", "name": "B", "likes": 3}],
        [{"id": "a", "name": "A"}],
    )


def test_only_what_changed_is_written(folder: Path, coffee: Path) -> None:
    tea = folder / "tea.json"
    tea.write_text('{"id": 7, "facebook": [{"id": "t"}]}')
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in (coffee, tea)}
    done = export(folder, table(("coffee", "a", "A"), ("coffee", "b", "B"), ("water", "w", "W")))
    assert [change.name for change in done.changes] == ["water"]
    assert (done.unchanged, done.absent) == (["coffee"], ["tea"])
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in before} == before


def test_the_order_of_rows_changes_nothing(folder: Path) -> None:
    rows = [("coffee", page, page.upper()) for page in "abc"]
    export(folder, table(*rows))
    assert plan(str(folder), table(*reversed(rows))).changes == []


def test_the_diff_shows_pages_whatever_the_layout_of_the_file_is(folder: Path, coffee: Path) -> None:
    (change,) = plan(str(folder), table(("coffee", "a", "A"), ("coffee", "c", "Crema é\x1b"))).changes
    assert list(change.diff) == [
        f"--- {coffee}",
        f"+++ {coffee}",
        "@@ -2,6 +2,6 @@",
        '  "note": "by hand",',
        '  "facebook": [',
        '-  {"id": "b", "name": "B", "likes": 3},',
        '-  {"id": "a", "name": "A"}',
        '+  {"id": "a", "name": "A"},',
        '+  {"id": "c", "name": "Crema é\\u001b"}',
        "  ],",
        '  "mastodon": [',
    ]


@pytest.mark.usefixtures("coffee")
def test_ids_and_private_are_as_told(folder: Path) -> None:
    rows = [("coffee", "a", "A", 9, False), ("coffee", "b", "B", None, None), ("milk", "m", "M", "milky", True)]
    export(folder, table(*rows, more=("category_id", "private")))
    assert [(content(folder, name)["id"], content(folder, name)["private"]) for name in ("coffee", "milk")] == [
        (9, False),
        ("milky", True),
    ]


def test_numbers_of_a_database_become_text(folder: Path) -> None:
    big, uuid = 900719925474099312, UUID(int=1)
    export(folder, table(("coffee", big, 1), ("coffee", Decimal("12.0"), "M"), ("coffee", uuid, "U")))
    assert [page.id for page in read_category(str(folder / "coffee.json")).pages] == [str(uuid), "12", str(big)]


def test_a_file_that_is_no_good_is_mended_where_the_rows_can(folder: Path) -> None:
    (folder / "coffee.json").write_text('{"facebook": [{"id": "a"}, {"id": "a"}, {"id": []}, 3, {"id": "b"}]}')
    export(folder, table(("coffee", "a", "A"), ("coffee", "b", "B")))
    assert content(folder, "coffee") == {"id": 0, "facebook": [{"id": "a", "name": "A"}, {"id": "b", "name": "B"}]}


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)
_CATEGORIES = st.dictionaries(
    st.from_regex(r"[a-z0-9-][a-z0-9_-]{0,4}", fullmatch=True),
    st.dictionaries(_TEXT, _TEXT, min_size=1, max_size=4),
    min_size=1,
    max_size=4,
)


@given(first=_CATEGORIES, second=_CATEGORIES)
@settings(max_examples=40, deadline=None)
def test_files_say_what_the_rows_said_and_a_second_export_changes_nothing(
    first: dict[str, dict[str, str]], second: dict[str, dict[str, str]]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for said in (first, second):
            rows = table(*((category, *page) for category, pages in said.items() for page in pages.items()))
            export(folder, rows)
            assert plan(name, rows).changes == []
        ids = set()
        for category, pages in {**first, **second}.items():
            read = read_category(str(folder / f"{category}.json"))
            assert {page.id: page.name for page in read.pages} == pages
            ids.add(read.id)
        assert ids == set(range(len(first | second)))


# --- what is refused ---


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([("pi|pe", "p", "P")], r"row 1: 'pi\|pe' can't be a category's name"),
        ([(None, "p", "P")], "row 1: '' can't be a category's name"),
        ([("a", None, "P")], "row 1: page_id is empty"),
        ([("a", "", "P")], "row 1: page_id is empty"),
        ([("a", 1.5, "P")], "row 1: page_id is 1.5; it must be text or a whole number"),
        ([("a", True, "P")], "row 1: page_id is True"),
        ([("a", Decimal("Infinity"), "P")], "row 1: page_id is Decimal"),
        ([("a", "p", b"P")], "row 1: page_name is b'P'"),
        ([("a", "p", "half \ud83d")], "a: facebook.0. has a 'name' that is not a string"),
        ([("a", "p", "P"), ("b", "p", "P"), ("a", "p", "Q")], "row 3: page 'p' of 'a' is listed twice, .* in row 1"),
    ],
)
def test_a_row_that_breaks_a_rule_is_named_and_nothing_is_written(
    folder: Path, rows: list[tuple[Any, ...]], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        export(folder, table(*rows))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("column", "values", "says"),
    [
        ("network", ["id"], "row 1: network is 'id', which means something else"),
        ("private", ["perhaps"], "row 1: private is 'perhaps'; it must be true or false"),
        ("private", [1, "no"], "row 2: private of 'a' is False, but True in row 1"),
        ("category_id", [3, 4], "row 2: category_id of 'a' is 4, but 3 in row 1"),
        ("category_id", [7], "row 1: category_id of 'a' is 7, as that of 'tea'"),
    ],
)
def test_a_contradiction_is_named(folder: Path, column: str, values: list[Any], says: str) -> None:
    (folder / "tea.json").write_text('{"id": 7, "facebook": [{"id": "t"}]}')
    rows = [("a", f"p{number}", "P", value) for number, value in enumerate(values)]
    with pytest.raises(InputError, match=says):
        export(folder, table(*rows, more=(column,)))
    assert [file.name for file in folder.iterdir()] == ["tea.json"]


def test_all_wrong_rows_are_told_up_to_a_screenful(folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        plan(str(folder), table(*[("a", None, "P")] * 30))
    lines = str(caught.value).splitlines()
    assert (lines[1], lines[20], lines[21]) == (
        "row 1: page_id is empty.",
        "row 20: page_id is empty.",
        "… and 10 more",
    )


@pytest.mark.usefixtures("coffee")
def test_a_page_of_another_network_that_stays_is_not_listed_twice(folder: Path) -> None:
    with pytest.raises(InputError, match="coffee: page 'm' is listed twice, the second time as mastodon"):
        plan(str(folder), table(("coffee", "m", "M")))


@pytest.mark.parametrize(("said", "says"), [("{", "is not JSON"), ("[]", "must hold a JSON object")])
def test_a_file_that_cannot_be_kept_is_not_written_over(folder: Path, said: str, says: str) -> None:
    (folder / "coffee.json").write_text(said)
    with pytest.raises(InputError, match=rf"coffee\.json {says}"):
        plan(str(folder), table(("coffee", "a", "A")))
    with pytest.raises(InputError, match=rf"Which ids are free can't be told: .*coffee\.json {says}"):
        plan(str(folder), table(("tea", "a", "A")))


@pytest.mark.usefixtures("coffee")
def test_a_file_that_was_changed_since_the_diff_is_left_as_it_is(folder: Path) -> None:
    (change,) = plan(str(folder), table(("coffee", "new", "New"))).changes
    (folder / "coffee.json").write_text('{"id": 7, "facebook": [{"id": "mine", "name": "Mine"}]}')
    with pytest.raises(InputError, match=r"coffee\.json was changed since the diff was made. Export again."):
        change.write()
    assert "mine" in (folder / "coffee.json").read_text()


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (("category", "page_id"), "The column 'page_name' is missing"),
        ((*COLUMNS, "netwrok"), "The column 'netwrok' is not known.*allowed are network, category_id, private"),
        ((*COLUMNS, "category"), "The column 'category' is there twice"),
    ],
)
def test_other_columns_are_refused(columns: tuple[str, ...], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Table(columns, [("row 1", columns)])


def test_no_row_is_an_error() -> None:
    with pytest.raises(InputError, match="There is no row"):
        table()


# --- CSV ---


def test_csv_is_read_with_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "pages.csv"
    file.write_bytes(
        "\ufeffpage_id,page_name,category,category_id,private\r\n"
        '007,"Crema, the ""best""\ncafé",coffee,12,TRUE\r\n\r\n8,,tea,x1,\r\n'.encode()
    )
    assert read_csv(str(file)).rows == [
        (f"{file} line 3", ("007", 'Crema, the "best"\ncafé', "coffee", 12, "TRUE")),
        (f"{file} line 5", ("8", None, "tea", "x1", None)),
    ]


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (b"", "The column 'category' is missing.*there are none"),
        (b"category;page_id;page_name\na;b;c\n", "there are 'category;page_id;page_name'"),
        (b"category,page_id,page_name\na,b\n", "line 2 has 2 cells, but there are 3 columns"),
        (b'category,page_id,page_name\na,b,"c\n', "line 2 is no CSV: unexpected end of data"),
        (b"category,page_id,page_name\na,b,\xff\n", "can't be read: 'utf-8'"),
        (b"category,page_id,page_name\n", "There is no row"),
    ],
)
def test_csv_that_is_no_good_is_named(tmp_path: Path, said: bytes, says: str) -> None:
    (tmp_path / "pages.csv").write_bytes(said)
    with pytest.raises(InputError, match=says):
        read_csv(str(tmp_path / "pages.csv"))


# --- databases ---


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A PostgreSQL with pages."""
    with postgres() as started:
        with sa.create_engine(started.url()).begin() as connection:
            for statement in (
                "CREATE TABLE pages (category text, page_id bigint, page_name varchar(99), network text,"
                " category_id numeric(20), private boolean)",
                "INSERT INTO pages VALUES ('coffee', 900719925474099312, '100%% :Crema', NULL, 3, true),"
                " ('coffee', 7, 'Móka ☕', 'mastodon', 3, true), ('tea', 7, NULL, NULL, NULL, NULL)",
            ):
                connection.execution_options(no_parameters=True).exec_driver_sql(statement.replace("%%", "%"))
        yield started


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    """The same pages in SQLite; the database's URL."""
    file = tmp_path / "pages of 50%.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE pages (category, page_id, page_name, network, category_id, private)")
        connection.execute(
            "INSERT INTO pages VALUES ('coffee', 900719925474099312, '100% :Crema', NULL, 3, 1),"
            " ('coffee', 7, 'Móka ☕', 'mastodon', 3, 1), ('tea', 7, NULL, NULL, NULL, NULL)"
        )
    connection.close()
    return f"sqlite:///{file}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """The URL of each database in turn."""
    if request.param == "sqlite":
        url: str = request.getfixturevalue("sqlite")
        return url
    running: Postgres = request.getfixturevalue("server")
    return running.url()


def test_files_are_made_of_a_database(folder: Path, database: str) -> None:
    export(folder, read_query(database, f"{SELECT} WHERE page_name LIKE '100% :%' OR page_id = 7"))
    assert content(folder, "coffee") == {
        "id": 3,
        "private": True,
        "facebook": [{"id": "900719925474099312", "name": "100% :Crema"}],
        "mastodon": [{"id": "7", "name": "Móka ☕"}],
    }
    assert content(folder, "tea") == {"id": 0, "facebook": [{"id": "7"}]}
    assert plan(str(folder), read_query(database, SELECT)).changes == []


WRITING = [
    "DELETE FROM pages",
    "UPDATE pages SET category = 'x' RETURNING category, page_id, page_name",
    "DROP TABLE pages",
    "DROP TABLE pages;",
    f"{SELECT}; DROP TABLE pages",
    f"{SELECT};; DROP TABLE pages --",
    "COMMIT; DROP TABLE pages",
    "SELECT * INTO copied FROM pages",
    "SELECT 1 INTO OUTFILE '/tmp/pages'",
    "WITH gone AS (DELETE FROM pages RETURNING *) SELECT * FROM gone",
    "WITH one AS (SELECT 1) DELETE FROM pages",
    "WITH one AS (SELECT 1) UPDATE(pages) SET category = 'x'",
    "SELECT 1 DROP TABLE pages",  # two statements in Transact-SQL
    "EXPLAIN ANALYZE DELETE FROM pages",
    "ATTACH 'other.db' AS other",
    "PRAGMA shrink_memory",
    "SET datestyle TO 'ISO'",
    "VACUUM",
    "-- pages\nDROP TABLE pages",
    "/* pages */ DROP TABLE pages",
    "SELECT 1 -- pages\n; DROP TABLE pages",
    "(SELECT 1); DROP TABLE pages",
    " ; ",
    "",
    "-- SELECT 1",
]
# One database sees a string or a comment where another one sees a statement.
READ_DIFFERENTLY = [
    "SELECT 1 /*! INTO OUTFILE '/tmp/pages' */",
    "SELECT 1 /*M! INTO OUTFILE '/tmp/pages' */",
    "SELECT 1 /* /* */ ; DROP TABLE pages -- */",
    "SELECT 5 --1 INTO OUTFILE '/tmp/pages'",
    "SELECT 5 # 3 INTO copied",
    "SELECT 1 --\r; DROP TABLE pages",
    r"SELECT '\'; DROP TABLE pages; --'",
    r"SELECT '\' -- ', 1 INTO OUTFILE '/tmp/pages",
    r'SELECT "\"; DROP TABLE pages; --"',
    "SELECT $$'$$; DROP TABLE pages; --'",
    "SELECT 1 AS ['] INTO copied FROM [']",
    "SELECT `'` ; DROP TABLE pages; -- '`",
    "SELECT q'[']'; DROP TABLE pages; --'",
    "SELECT 1INTO copied FROM pages",
    "SELECT 'no end; DROP TABLE pages",
    "SELECT 1 /* no end; DROP TABLE pages",
    "SELECT 1\0; DROP TABLE pages",
]


@pytest.mark.parametrize("statement", [*WRITING, *READ_DIFFERENTLY])
def test_a_query_that_could_write_in_any_database_is_refused_before_it_runs(sqlite: str, statement: str) -> None:
    file = Path(str(sa.make_url(sqlite).database))
    before = file.read_bytes()
    for url in (
        sqlite,
        f"sqlite:///file:{quote(str(file))}?uri=true",
        "mysql://nowhere/pages",
        "mssql://nowhere/pages",
    ):
        with pytest.raises(
            InputError, match=r"SELECT.* is needed|Databases differ in how they read line \d+"
        ) as caught:
            read_query(url, statement)
        assert "\n" not in str(caught.value)
        assert str(caught.value).endswith("Nothing was run.")
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "query",
    [
        f"{SELECT};",
        f"-- who didn't update; drop it\r\n{SELECT} -- INTO",
        f"/* don't; drop */ {SELECT} ;\n-- the end",
        f"WITH all_pages AS ({SELECT}) SELECT * FROM all_pages",
        "SELECT category, page_id, replace(page_name, '; DROP', 'it''s') AS page_name FROM pages",
        f"{SELECT} WHERE category <> 'into' OR page_id/2.5e0-1 > -.5 AND page_name IS NOT NULL",
        'SELECT category, page_id, page_name AS "page_name" FROM pages',
        r"SELECT category, page_id, page_name FROM pages WHERE category NOT LIKE 'a\_b' AND 1<>.5 OR 1=1",
        f"{SELECT} UNION ALL {SELECT}",
        f"select * from ({SELECT}) AS inner_pages ORDER BY 1, 2",
    ],
)
def test_a_single_select_is_run_whatever_its_strings_and_comments_say(database: str, query: str) -> None:
    assert len(read_query(database, query).rows) in (2, 3, 6)


@pytest.mark.parametrize(
    "form", ["sqlite:///{path}", "sqlite:///file:{path}?uri=true", "sqlite:///file:{path}?mode=rwc"]
)
def test_sqlite_is_opened_to_read_whatever_the_address_asks_for(
    sqlite: str, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    path = quote(str(sa.make_url(sqlite).database)) if "file:" in form else sa.make_url(sqlite).database
    monkeypatch.setattr(database_export, "check_single_select", lambda _: None)
    with pytest.raises(InputError, match="readonly database"):
        read_query(form.format(path=path), "DROP TABLE pages")
    monkeypatch.setattr(database_export, "_read_only", lambda url: url)
    with pytest.raises(InputError, match="readonly database"):
        read_query(sqlite, "DROP TABLE pages")
    assert len(read_query(sqlite, SELECT).rows) == 3


def test_postgresql_is_read_by_a_transaction_that_only_reads(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_export, "check_single_select", lambda _: None)
    with pytest.raises(InputError, match="read-only transaction"):
        read_query(server.url(), "DROP TABLE pages")
    assert len(read_query(server.url(), SELECT).rows) == 3


def test_an_error_of_the_database_is_told_without_the_password(server: Postgres) -> None:
    with pytest.raises(InputError, match=r"postgres:\*\*\*@.* relation \"nowhere\" does not exist") as caught:
        read_query(server.url(), "SELECT * FROM nowhere")
    assert server.password not in str(caught.value)
    wrong = server.url().replace(server.password, "hunter2")
    with pytest.raises(InputError, match="password authentication failed") as caught:
        read_query(wrong, SELECT)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(InputError, match="password authentication failed") as caught:
        read_query(f"{wrong.replace(':hunter2', '')}?password=hunter2", SELECT)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("hunter2", "is no URL of SQLAlchemy's"),
        ("postgresql://u:hunter2@host:port/db", "is no URL of SQLAlchemy's"),
        ("postgresql://u:hunter2@2@host/db", "has two '@': write one in a password as %40"),
        ("paper://u:hunter2@host/db", "paper:// is no kind of database that SQLAlchemy knows"),
        ("oracle+oracledb://u:hunter2@host/db", r"oracle\+oracledb:// needs the Python package oracledb"),
    ],
)
def test_an_address_that_is_no_good_is_told_without_the_password(url: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        read_query(url, SELECT)
    assert "hunter2" not in str(caught.value)


def test_a_missing_sqlite_file_is_told_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unable to open database file"):
        read_query(f"sqlite:///{tmp_path / 'none.db'}", SELECT)
    assert list(tmp_path.iterdir()) == []


# --- S3 ---


@pytest.fixture
def on_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty folder on S3, as moto's server plays it; its URL."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    boto3.client("s3").create_bucket(Bucket="audience")
    yield "s3://audience/explorer/categories"
    server.stop()


def test_a_folder_on_s3_is_written_only_where_it_changed(on_s3: str) -> None:
    def versions() -> dict[str, Any]:
        found = boto3.client("s3").list_objects_v2(Bucket="audience")["Contents"]
        return {one["Key"].rpartition("/")[2]: (one["ETag"], one["LastModified"]) for one in found}

    storage.write_text(storage.join(on_s3, "tea.json"), '{"id": 0, "facebook": [{"id": "t", "name": "T"}]}')
    storage.write_text(storage.join(on_s3, "pages.csv"), "category,page_id,page_name\ntea,t,T\ncoffee,a,A\n")
    before = versions()
    rows = read_csv(storage.join(on_s3, "pages.csv"))
    (change,) = plan(on_s3, rows).changes
    change.write()
    assert read_category(f"{on_s3}/coffee.json").id == 1
    assert versions().keys() == {"coffee.json", *before}
    assert {name: versions()[name] for name in before} == before
    assert plan(on_s3, rows).changes == []
