"""The errors of jobs whose input, or S3, is not usable: one line that names the thing and the way out."""


class InputError(Exception):
    """Input that breaks the data contract. The message is for a person and needs no traceback."""


class S3Error(Exception):
    """S3 does not answer, or refuses a request. The message is for a person and needs no traceback.

    It is not an OSError: those are about one file, and to make the file again helps. Here it does not.
    """


def as_clause(error: object) -> str:
    """The message of another library's error, to go on with in a sentence: some end with a full stop, most don't."""
    return str(error).rstrip(". ")


class UnreadableFile(InputError):
    """A file that can't be read at all: truncated, corrupt, or of the wrong shape."""

    def __init__(self, location: str, why: object):
        self.why = why
        super().__init__(f"{location} can't be read: {as_clause(why)}. Replace or remove the file, then run again.")


class TooManyRejects(InputError):
    """More than `max_reject_ratio` of the raw rows break a rule."""


class OutputExists(InputError):
    """The output folder holds a finished output already; outputs are written once."""


class SchemaViolation(InputError):
    """Rows of a table between two steps that break one of its rules; raised with strict schemas only."""

    def __init__(self, table: str, rule: str):
        super().__init__(
            f"Strict schema: {table}: {rule}. Either the input or the code is wrong; without"
            " AUDIENCE_EXPLORER_STRICT_SCHEMA it is not checked."
        )
