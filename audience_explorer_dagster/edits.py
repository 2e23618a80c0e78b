"""The files of what people said of segments: one a category, below the root, which may be kept in git."""

from spark_jobs import storage
from spark_jobs.errors import InputError
from spark_jobs.following import edits
from spark_jobs.following.edits import Edit


def add(location: str, edit: Edit) -> None:
    """Add an edit at the end of a file, which is made if there is none.

    Raises:
        InputError: The file can't be read, or breaks a rule.
    """
    storage.write_text(location, edits.append(edits.read_text(location), edit), lasting=True)


def undo(location: str, number: int | None = None) -> tuple[int, Edit]:
    """Take an edit out of a file.

    Args:
        location: The file.
        number: The edit's place, from 1; None for the last.

    Returns:
        The place that it had, and the edit.

    Raises:
        InputError: There is no such edit, or the file breaks a rule.
    """
    text = edits.read_text(location)
    there_are = edits.parse_edits(text, location)
    if not there_are:
        raise InputError(f"There is nothing to undo: {location} has no edits.")
    number = len(there_are) if number is None else number
    if not 1 <= number <= len(there_are):
        raise InputError(f"There is no edit {number} in {location}; it has {len(there_are)}.")
    storage.write_text(location, edits.remove(text, number), lasting=True)
    return number, there_are[number - 1]
