"""Runs of the same partitions take turns; those of others go on beside them."""

import logging
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.running.turns import turn
from tests.conftest import started

COFFEE, TEA = Partition("2024-01", "coffee"), Partition("2024-01", "tea")
HAS_ITS_TURN = """
import sys
from tests.test_turns import *
with turn(context(Path(sys.argv[1])), [TEA]):
    print("has it", flush=True)
    input()
"""


def context(home: Path) -> Any:
    """The part of a run's context that turns use."""
    instance = SimpleNamespace(root_directory=str(home))
    return SimpleNamespace(instance=instance, log=logging.getLogger("turns"))


@pytest.mark.parametrize("ends", ["by itself", "killed"])
def test_who_wants_the_same_partition_waits_for_whoever_has_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ends: str
) -> None:
    caplog.set_level(logging.INFO)
    got_it = threading.Event()

    def want() -> None:
        with turn(context(tmp_path), [COFFEE, TEA]):
            got_it.set()

    command = [sys.executable, "-c", HAS_ITS_TURN, str(tmp_path)]
    with started(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "has it\n"
        with turn(context(tmp_path), [COFFEE]):
            pass  # nobody has that
        waiting = threading.Thread(target=want)
        waiting.start()
        wait_for_text(caplog, "another run is at the same partitions")
        assert not got_it.wait(0.5)
        if ends == "killed":
            other.kill()
        else:
            other.communicate("\n")
        waiting.join(timeout=120)
    assert got_it.is_set()


def wait_for_text(log: pytest.LogCaptureFixture, text: str) -> None:
    """Wait until something is logged."""
    deadline = time.monotonic() + 120
    while text not in log.text:
        assert time.monotonic() < deadline, f"not logged: {text}"
        time.sleep(0.01)
