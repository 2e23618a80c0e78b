"""An analyst works at a terminal: one display while a pipeline runs, tables that fit, and completion by the shell."""

import os
import pty
import re
import subprocess
import threading
from pathlib import Path

from acceptance.conftest import PROJECT, Explorer

MONTH = "2018-12"
WIDTH = 80
JOB = "(group_by_user|make_clustering_inputs|select_k|kmeans|follow_segments|make_report)"
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # by which a terminal moves and colors


def test_a_pipeline_is_one_display_and_what_it_made_is_compared(explorer: Explorer, ansible: Path) -> None:
    explorer.bring(ansible, MONTH)
    cloud = ("--month", MONTH, "--category", "cloud")

    shown = in_a_terminal(explorer, "audience-explorer", "pipeline", *cloud, "--k", "3", "--label", "three")

    assert "0/5" in shown, "how far it is"
    assert "launched 5 jobs on this machine" in shown, "where it runs"
    assert re.search(rf"{JOB} \S+, \d+ s", shown), "what runs"
    assert "left" in shown
    table = shown[shown.rindex("partition") :].splitlines()
    assert max(map(len, table)) <= WIDTH
    assert "5 launched, 0 reused, 0 failed" in shown

    planned = in_a_terminal(explorer, "audience-explorer", "pipeline", *cloud, "--k", "4", "--dry-run")
    assert re.search(r"expected: 1 launch; \d+ \w+", planned)

    explorer.command("audience-explorer", "pipeline", *cloud, "--k", "4", "--label", "four")
    compared = in_a_terminal(explorer, "audience-explorer", "compare", "three", "four", *cloud)
    assert re.search(r"adjusted Rand index over the [\d,]+ users in both: [01]\.\d{3}", compared)


def test_a_pipe_gets_the_lines_that_it_always_got(explorer: Explorer, ansible: Path) -> None:
    explorer.bring(ansible, MONTH)
    done = explorer.command("audience-explorer", "pipeline", "--month", MONTH, "--category", "cloud")
    first, *others = done.stderr.splitlines()
    assert first == f"{MONTH}: 1 category"
    assert any(re.match(r"\[ *\d+\.\d s\] ", line) for line in others)
    assert "\x1b" not in done.stdout + done.stderr


def test_bash_completes_categories_and_months(explorer: Explorer, ansible: Path) -> None:
    explorer.bring(ansible, MONTH)
    for words, offered in {
        ("pipeline", "--month", "20"): [MONTH],
        ("runs", "--category", "clo"): ["cloud"],
        ("pipeline", "--dry"): ["--dry-run"],
    }.items():
        typed = " ".join(f"'{word}'" for word in ("audience-explorer", *words))
        script = (
            'eval "$(_AUDIENCE_EXPLORER_COMPLETE=bash_source audience-explorer)";'
            f" COMP_WORDS=({typed}); COMP_CWORD={len(words)};"
            ' _audience_explorer_completion audience-explorer; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        assert explorer.command("bash", "-c", script).stdout.split() == offered


def in_a_terminal(explorer: Explorer, *command: str) -> str:
    """Type a command in a terminal; all that it ever showed."""
    ours, theirs = pty.openpty()
    shown: list[bytes] = []
    reading = threading.Thread(target=read_all, args=(ours, shown))
    reading.start()
    environment = {**explorer.environment, "COLUMNS": str(WIDTH), "LINES": "40", "TERM": "xterm"}
    with subprocess.Popen(command, cwd=PROJECT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        code = process.wait(timeout=1500)
    reading.join()
    os.close(ours)
    text = CODES.sub("", b"".join(shown).decode()).replace("\r\n", "\n")
    assert code == 0, text
    return text


def read_all(terminal: int, shown: list[bytes]) -> None:
    """Read what a terminal shows until nobody writes to it any more."""
    while True:
        try:
            shown.append(os.read(terminal, 1 << 16))
        except OSError:  # so it ends on Linux
            return
