"""The errors of jobs whose input, or S3, is not usable: one line that names the thing and the way out."""

import errno
from typing import Any


class InputError(Exception):
    """Input that breaks the data contract. The message is for a person and needs no traceback."""

    def __reduce__(self) -> tuple[Any, ...]:
        # By default it would be made again by its kind from its message, which many kinds do not take. An error that
        # can't be made again in another process breaks the pool of processes that it comes from.
        return _made_again, (type(self), self.args, self.__dict__)


def _made_again(kind: type[InputError], args: tuple[Any, ...], facts: dict[str, Any]) -> InputError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(facts)
    return error


class S3Error(Exception):
    """S3 does not answer, or refuses a request. The message is for a person and needs no traceback.

    It is not an OSError: those are about one file, and to make the file again helps. Here it does not.
    """


def as_clause(error: object) -> str:
    """The message of another library's error, to go on with in a sentence.

    Some end with a full stop, most don't, and Arrow's may have several lines.
    """
    return " ".join(str(error).splitlines()).rstrip(". ")


def as_line(error: OSError) -> str:
    """What the operating system refused, with the file and the way out, for a person."""
    files = [str(name) for name in (error.filename, error.filename2) if name is not None]
    why = f"{' and '.join(files)}: {error.strerror}" if files and error.strerror else " ".join(str(error).split())
    ways_out = {
        errno.ENOSPC: "The disk is full: free some space, or name a folder on another one.",
        errno.EDQUOT: "The quota of the disk is used up: free some space, or name a folder on another one.",
        errno.EROFS: "Name a folder that can be written to.",
        errno.EACCES: "Give this user access, or name another file or folder.",
        errno.EPERM: "Give this user access, or name another file or folder.",
        errno.ENOTDIR: "A file is where a folder is needed: move it, or name another folder.",
        errno.EEXIST: "A file is where a folder is needed: move it, or name another folder.",
        errno.EMFILE: "Too many files are open: raise the limit (ulimit -n), or use fewer cores.",
    }
    way_out = ways_out.get(error.errno or 0)
    return f"{as_clause(why)}. {way_out}" if way_out else f"{as_clause(why)}."


class UnreadableFile(InputError):
    """A file that can't be read at all: truncated, corrupt, or of the wrong shape."""

    def __init__(self, location: str, why: object):
        self.why = why
        super().__init__(f"{location} can't be read: {as_clause(why)}. Replace or remove the file, then run again.")


class TooManyRejects(InputError):
    """More than `max_reject_ratio` of the raw rows break a rule."""


class DamagedOutput(InputError):
    """An output whose manifest can't be read, or whose files are not those that the manifest lists."""

    def __init__(self, what: str, folder: str):
        self.what = what
        super().__init__(f"{what}. Delete {folder}, and the next run makes the output again.")


class NewerVersion(InputError):
    """A file that a newer version of Audience Explorer wrote, in a layout that this one does not know."""

    def __init__(self, location: str, version: object, known: int):
        super().__init__(
            f"{location} has schema version {version}, and this version of Audience Explorer reads up to {known}."
            " Install the version that wrote it, or a newer one."
        )


class OutputExists(InputError):
    """The output folder holds a finished output already; outputs are written once."""


class SchemaViolation(InputError):
    """Rows of a table between two steps that break one of its rules; raised with strict schemas only."""

    def __init__(self, table: str, rule: str):
        super().__init__(
            f"Strict schema: {table}: {rule}. Either the input or the code is wrong; without"
            " AUDIENCE_EXPLORER_STRICT_SCHEMA it is not checked."
        )
