"""Whether a query is one SELECT, which writes nothing, in the SQL of any database.

Databases disagree on where strings and comments end, and so on what is a word of a query: `/*! … */` is a comment to
some and code to others. A query is therefore taken apart by rules that all of them share. What they read differently is
refused, with what to write instead.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from spark_jobs.errors import InputError

_TOKEN = re.compile(
    r"""
      (?P<space>   (?: [ \t\n] | \r\n )+ )
    | (?P<comment> --(?=[ \t\r\n]|\Z) [^\r\n]*
                 | /\* (?! [!+] | M! ) (?: [^*/] | \*(?!/) | /(?!\*) )* \*/ )
    # Some databases take a backslash for an escape of the quote, some don't. Oracle has q'[…]'.
    | (?P<quoted>  ' (?: [^'\\] | '' | \\(?!') )* '
                 | " (?: [^"\\] | "" | \\(?!") )* "
                 | ` [\w $]+ `
                 | \[ [\w $,:]* \] )
    | (?P<word>    (?! n?q' ) [^\W\d] [\w$]* )
    | (?P<number>  (?: \d+ (?: \.\d* )? | \.\d+ ) (?: e[+-]?\d+ )? (?!\w) )
    | (?P<end>     ; )
    | (?P<sign>    [(),.*+=<>%!|&^~:?@] | -(?!-) | /(?!\*) )
    """,
    re.VERBOSE | re.IGNORECASE,
)

# What a SELECT, or a WITH before it, may hold in some database, and what changes something. Transact-SQL also takes
# several statements with nothing between them.
_WRITES = frozenset(
    """INTO INSERT UPDATE DELETE MERGE REPLACE UPSERT CREATE ALTER DROP TRUNCATE RENAME GRANT REVOKE DENY CALL EXEC
    EXECUTE BACKUP RESTORE SHUTDOWN KILL DBCC BULK RECONFIGURE WRITETEXT UPDATETEXT""".split()  # noqa: SIM905
)
_FUNCTIONS = frozenset({"REPLACE", "INSERT"})  # of strings, where a parenthesis follows
_SHOWN = 20  # characters of what can't be read


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def check_single_select(query: str) -> None:
    """Check that a query is a single SELECT, or WITH … SELECT, that writes nothing.

    Raises:
        InputError: It is not, or databases differ in how they read it; the message names the line.
    """
    tokens = [token for token in _tokens(query) if token.kind not in ("space", "comment")]
    while tokens and tokens[-1].kind == "end":
        tokens.pop()
    first = next((token for token in tokens if token.text != "("), None)
    if first is None or first.text.upper() not in ("SELECT", "WITH"):
        begins = f"begins with {first.text[:_SHOWN]!r}" if first else "is empty"
        raise InputError(f"The query {begins}: a SELECT is needed, or WITH … SELECT. Nothing was run.")
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if token.kind == "end":
            raise InputError(
                f"Line {token.line} of the query has a ';' with more behind it: a single SELECT is needed."
                " Nothing was run."
            )
        name = token.text.upper()
        is_function = name in _FUNCTIONS and following is not None and following.text == "("
        if token.kind == "word" and name in _WRITES and not is_function:
            raise InputError(
                f"Line {token.line} of the query has the word {token.text}: a SELECT that only reads is needed. If"
                " it is a name, write it in quotes. Nothing was run."
            )


def _tokens(query: str) -> Iterator[_Token]:
    place, line = 0, 1
    while place < len(query):
        found = _TOKEN.match(query, place)
        if found is None:
            raise InputError(
                f"Databases differ in how they read line {line} of the query from {query[place : place + _SHOWN]!r} on."
                " Write comments as `-- text`, a quote in a string twice, and names in double quotes. Nothing was run."
            )
        yield _Token(str(found.lastgroup), found[0], line)
        line += found[0].count("\n")
        place = found.end()
