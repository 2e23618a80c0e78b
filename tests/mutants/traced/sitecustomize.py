"""Notes which lines of the project each test runs, in whatever process: Python imports this where it is on the path."""

import os
import sys
import threading
from types import CodeType, FrameType
from typing import Any

_ROOT = os.environ.get("MUTANTS_ROOT", "")
_NOTES = os.environ.get("MUTANTS_NOTES", "")
_seen: set[tuple[str, str, int]] = set()
_ours: dict[CodeType, str] = {}  # the path of a module of ours, or "": others are not traced


def _path(code: CodeType) -> str:
    if code not in _ours:
        file = code.co_filename
        path = file[len(_ROOT) :] if file.startswith(_ROOT) else ""
        _ours[code] = "" if path.startswith("tests/") else path
    return _ours[code]


def _note(frame: FrameType, event: str, argument: Any) -> Any:  # noqa: ARG001
    path = _path(frame.f_code)
    if not path:
        return None
    if event in ("line", "call"):
        note = (os.environ.get("PYTEST_CURRENT_TEST", ""), path, frame.f_lineno)
        if note not in _seen:
            _seen.add(note)
            # At once: many a process does not end by itself.
            with open(os.path.join(_NOTES, str(os.getpid())), "a", encoding="utf-8") as file:
                file.write(f"{note[0].rpartition(' ')[0]}\t{path}\t{note[2]}\n")
    return _note


def start() -> None:
    """Note from now on."""
    threading.settrace(_note)
    sys.settrace(_note)


if _NOTES:
    start()
