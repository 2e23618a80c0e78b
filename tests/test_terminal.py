"""What a terminal gets, and that everything else gets the same plain lines as ever."""

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from audience_explorer_dagster.cli import live
from audience_explorer_dagster.cli.live import watching
from spark_jobs.terminal import as_duration, as_size, as_table

ROWS = [("coffee|2024-01", "a folder with a name that is so long that no narrow terminal has it in a line")]
COLUMNS = {"partition": lambda row: row[0], "folder": lambda row: row[1]}
PLAIN = f"partition       folder\n{ROWS[0][0]}  {ROWS[0][1]}"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    @contextmanager
    def used(self) -> Iterator[None]:
        """Print to this terminal, in the body."""
        with redirect_stdout(self), redirect_stderr(self):
            yield


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 60 columns."""
    for name, value in {"COLUMNS": "60", "LINES": "20", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    return Terminal()


def test_without_a_terminal_a_table_is_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert as_table(COLUMNS, ROWS) == PLAIN


def test_in_a_terminal_a_table_fits_its_width_and_loses_nothing(terminal: Terminal) -> None:
    with terminal.used():
        table = as_table(COLUMNS, [*ROWS, ("[bold]", "x")])
    lines = plain(table).splitlines()
    assert max(map(len, lines)) <= 60
    assert "".join("".join(line[16:] for line in lines[1:-1]).split()) == ROWS[0][1].replace(" ", "")
    assert "[bold]" in lines[-1], "a cell is text, not markup"


def test_in_a_terminal_that_is_too_narrow_for_a_tables_words_each_item_is_a_few_lines(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    columns = {name: lambda row, name=name: row[name] for name in ("partition", "parameters", "label", "folder")}
    items = [{"partition": "coffee|2024-01", "parameters": "kmeans||,100,0.001", "label": "", "folder": "1234"}]
    with terminal.used():
        assert as_table(columns, items).splitlines() == [
            "partition: coffee|2024-01",
            "  parameters  kmeans||,100,0.001",
            "  folder      1234",
        ]


def plain(text: str) -> str:
    """A text without a terminal's codes."""
    return Text.from_ansi(text).plain


def message(text: str, level: int = logging.INFO) -> Any:
    return SimpleNamespace(dagster_event=None, user_message=text, level=level)


def materialization(partition: str) -> Any:
    return SimpleNamespace(dagster_event=SimpleNamespace(is_step_materialization=True, partition=partition))


def shown(watch: live.Watch) -> str:
    """What the display of a watch shows now."""
    display: Any = watch.announce.__self__  # type: ignore[attr-defined]
    console = Console(file=io.StringIO(), width=100)
    console.print(display)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_in_a_terminal_one_display_has_progress_rate_what_runs_and_where(terminal: Terminal) -> None:
    with terminal.used(), watching(targets=4) as watch:
        assert watch.listen is not None
        watch.announce("2024-01: 1 category")
        for text in ("launched 3 jobs on this machine, process 12", "group_by_user 2024-01 starts", "read 2 files"):
            watch.listen(message(text))
        first = shown(watch)
        watch.listen(materialization("2024-01"))
        watch.listen(message("kmeans tea|2024-01 starts"))
        second = shown(watch)
    assert "2024-01: 1 category" in first
    assert "0/4" in first
    assert "launched 3 jobs on this machine" in first
    assert "group_by_user 2024-01, 0 s" in first
    assert "read 2 files" in first
    assert "1/4" in second
    assert "a second" in second
    assert "group_by_user 2024-01, " not in second
    assert "kmeans tea|2024-01, 0 s" in second


def test_what_jobs_print_goes_above_the_display_but_for_progress_that_it_shows(terminal: Terminal) -> None:
    with terminal.used(), watching(targets=1):
        sys.stderr.write("[   1.2 s] read 2 files\nTraceback: ")
        sys.stderr.write("it broke\n")
    printed = plain(terminal.getvalue())
    assert "Traceback: it broke" in printed
    assert "read 2 files" not in printed


def test_a_warning_stays_in_the_terminal_and_what_checks_found_does_not() -> None:
    stays = io.StringIO()
    display = live._Display(Console(file=stays, width=100), targets=1)
    display.listen(message("SpotInterrupted: AWS took i-1 \x1b[1mback", logging.WARNING))
    display.listen(message("kmeans: check many_changed failed for tea|2024-01: a third", logging.WARNING))
    display.listen(message("i-2 is up after 30 s"))
    assert stays.getvalue() == "SpotInterrupted: AWS took i-1 \\x1b[1mback\n"


def test_without_a_terminal_each_month_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with watching(targets=4) as watch:
        watch.announce("2024-01: 1 category")
    assert watch.listen is None
    assert capsys.readouterr().err == "2024-01: 1 category\n"


def test_a_terminal_that_can_only_print_lines_gets_lines(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with terminal.used(), watching(targets=4) as watch:
        watch.announce("2024-01: 1 category")
    assert terminal.getvalue() == "2024-01: 1 category\n"


def test_durations_and_sizes_are_in_the_unit_that_fits() -> None:
    assert [as_duration(seconds) for seconds in (0, 119, 120, 7200, 200_000)] == ["0 s", "119 s", "2 min", "2 h", "2 d"]
    assert [as_size(size) for size in (0, 999, 1000, 12_345_678, 5 * 10**12)] == [
        *("0 B", "999 B", "1.0 kB", "12.3 MB", "5.0 TB")
    ]
