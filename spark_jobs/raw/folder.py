"""A month's folder of raw files. Whatever lies there is read, or refused by name: nothing is passed over in silence.

Names that begin with `_` or `.` are the exception: there other programs keep what is not data.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from spark_jobs import storage
from spark_jobs.errors import InputError, UnreadableFile
from spark_jobs.raw.files import check_file_type

FileState: TypeAlias = tuple[int, str | float]

_WAY_OUT = {
    "folder": "is a folder, and only files directly in a month's folder are read. Move its files up, or remove it",
    "broken link": "is a link to what does not exist. Replace or remove it",
    "special file": "is neither a file nor a folder. Remove it",
}
_IGNORED = "what is not data may stay under a name that begins with '_'"


class NotRawData(UnreadableFile):
    """Something in a month's folder that is not a raw file."""

    def __init__(self, problems: Sequence[str]):
        self.why = problems[0]
        others = f" (And {len(problems) - 1} more.)" if len(problems) > 1 else ""
        InputError.__init__(self, f"{problems[0]}{others}")


def list_raw_files(folder: str) -> list[storage.StoredFile]:
    """The raw files of a month.

    Raises:
        InputError: There are none, the folder can't be read, or something else lies in it.
    """
    with _named(folder):
        problems = find_problems(folder)
        files = [] if problems else storage.list_files(folder)
    if problems:
        raise NotRawData(problems)
    if not files:
        raise InputError(f"There is no raw data in {folder}. Put the month's files there, or pick another month.")
    return files


def file_states(folder: str) -> dict[str, FileState]:
    """What changes with a raw file, of each file in a month's folder, by name. No file is read.

    Raises:
        InputError: The folder can't be read.
    """
    with _named(folder):
        found = storage.list_below(folder).items()
    # An ETag stands for the content, so a copy of the same content is no change on S3.
    return {
        name: (file.size, file.etag or file.modified)
        for name, file in found
        if "/" not in name and not storage.is_ignored(name)
    }


def check_unchanged(folder: str, before: Mapping[str, FileState]) -> None:
    """Check that raw files are as they were before they were read. One that came since is of no account.

    Args:
        folder: The month's folder.
        before: Their states before anything else was done with them, `file_states`.

    Raises:
        InputError: One has changed, or is gone.
    """
    now = file_states(folder)
    changed = sorted(name for name, state in before.items() if now.get(name) != state)
    if changed:
        others = f" (and {len(changed) - 1} more files)" if len(changed) > 1 else ""
        what = "changed" if changed[0] in now else "vanished"
        raise InputError(
            f"{storage.join(folder, changed[0])}{others} {what} while it was read. Run again when nothing writes there."
        )


def find_problems(folder: str) -> list[str]:
    """What lies in a month's folder and is not a raw file, by name, each with the way out. No file is read."""
    found = (_problem(entry) for entry in storage.list_entries(folder) if not storage.is_ignored(entry.name))
    return [problem for problem in found if problem is not None]


def _problem(entry: storage.Entry) -> str | None:
    if not _is_utf8(entry.name):
        return f"{entry.location!r} has a name that is not UTF-8. Rename it."
    if entry.kind != "file":
        return f"{entry.location} {_WAY_OUT[entry.kind]}; {_IGNORED}."
    try:
        check_file_type(entry.location)
    except UnreadableFile as error:
        return str(error)
    return None


@contextmanager
def _named(folder: str) -> Iterator[None]:
    """Make an error of the file system one that names what can't be read."""
    try:
        yield
    except OSError as error:
        raise UnreadableFile(str(error.filename or folder), error.strerror or error) from error


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
