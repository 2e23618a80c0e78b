r"""Names that are other people's reach a terminal with nothing in them that it would obey: ESC becomes `\x1b`."""

import importlib
import json
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from audience_explorer_dagster.cli import main
from audience_explorer_dagster.cli.project import say, tell
from spark_jobs.errors import InputError
from spark_jobs.reporting import Reporter, run_as_command
from spark_jobs.terminal import as_table, visible, visible_lines

EVIL = "a\x1b[2J\u202eb\nc\r\x9b1md"
SEEN = r"a\x1b[2J\u202eb\nc\r\x9b1md"
OBEYED = "\x1b\x9b\r\u202e\x07\x00\u2028\u2066"

pytestmark = pytest.mark.filterwarnings("ignore")


@given(st.text())
def test_a_visible_text_is_one_line_that_a_terminal_only_shows(text: str) -> None:
    seen = visible(text)
    assert seen.splitlines() in ([seen], [])
    assert not any(char in OBEYED or ord(char) < 32 or 0xD800 <= ord(char) < 0xE000 for char in seen)
    assert visible(seen) == seen


@pytest.mark.parametrize("name", ["Café Zoë", "コーヒー", "קפה", "قهوه‌خانه", "👩‍🍳 ☕️", r"a\b", "100 %", "a\u00a0b"])
def test_names_in_any_script_are_shown_as_they_are(name: str) -> None:
    assert visible(name) == name


def test_only_the_lines_of_a_text_stay_lines() -> None:
    assert visible_lines("a\nb\rc\x1b") == "a\nb\\rc\\x1b"


def test_cells_of_a_table_are_visible() -> None:
    assert as_table({"name": str, "again": str}, [EVIL]) == f"{'name':{len(SEEN)}}  again\n{SEEN}  {SEEN}"


def test_what_is_told_is_visible(capsys: pytest.CaptureFixture[str]) -> None:
    tell(f"one \x1b[2J\ntwo {SEEN}")
    say("three \u202e")
    Reporter().progress("four \x1b")
    with pytest.raises(SystemExit):
        run_as_command(fails)  # type: ignore[arg-type]
    told = capsys.readouterr()
    assert told.out == "three \\u202e\n"
    assert told.err.splitlines()[:2] == [r"one \x1b[2J", f"two {SEEN}"]
    assert told.err.splitlines()[2].endswith(r"four \x1b")
    assert told.err.splitlines()[3:] == [r"Error: no \x1b[2J.parquet"]


def fails(*, standalone_mode: bool) -> None:
    assert standalone_mode
    raise InputError("no \x1b[2J.parquet")


# --- `categories` ---


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with a category whose title, network and page are hostile, and one that can't be used."""
    monkeypatch.setenv("AUDIENCE_EXPLORER_ROOT", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    folder = tmp_path / "categories"
    folder.mkdir()
    hostile = {"id": EVIL, "name": EVIL, f"n{EVIL}": [{"id": f"p{EVIL}", "name": EVIL}]}
    (folder / "coffee.json").write_text(json.dumps(hostile))
    (folder / "tea.json").write_text(json.dumps({"id": 1, EVIL: []}))
    return tmp_path


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("command", [["ls"], ["show", "coffee"], ["show", "tea"], ["validate"], ["show", EVIL]])
def test_categories_show_names_that_a_terminal_does_not_obey(command: list[str]) -> None:
    result = run(*command)
    assert_obeyed_by_nothing(result)
    assert r"\x1b[2J\u202eb\nc" in result.output


@pytest.mark.usefixtures("root")
def test_the_json_of_categories_has_names_as_they_are() -> None:
    shown = json.loads(run("show", "coffee", "--json").stdout)
    assert shown["title"] == EVIL
    assert shown["pages"][0]["name"] == EVIL


def test_the_diff_of_an_export_shows_names_that_a_terminal_does_not_obey(root: Path) -> None:
    (root / "pages.csv").write_text("category,page_id,page_name\nmilk,1,\u202eevil\x1b[2J\n")
    result = run("export", "--csv", str(root / "pages.csv"), "--dry-run")
    assert_obeyed_by_nothing(result)
    assert r"\u202eevil\u001b[2J" in result.stdout


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["categories", *arguments])


def assert_obeyed_by_nothing(result: Result) -> None:
    assert not set(OBEYED) & set(result.output), repr(result.output)


EXPORTED = pa.table({"user_id": ["=1+1", EVIL, "b"], "segment": ["=HYPERLINK(1)", EVIL, "=HYPERLINK(1)"]})
exporting = importlib.import_module("audience_explorer_dagster.cli.export")  # the package names the command so


def test_an_exported_name_is_no_formula_and_ids_are_as_they_are(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    exporting._print(EXPORTED)
    of_formula = b'"=1+1","\'=HYPERLINK(1)"\n'
    evil = EVIL.encode()
    last = b'"b","\'=HYPERLINK(1)"\n'
    assert capfdbinary.readouterr().out == b'"user_id","segment"\n' + of_formula + b'"%s","%s"\n' % (evil, evil) + last


def test_people_who_are_exported_to_a_terminal_do_nothing_to_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    exporting._print(EXPORTED)
    assert not set(capsys.readouterr().out) & set(OBEYED)
