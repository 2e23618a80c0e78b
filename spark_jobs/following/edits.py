"""What people say of a category's segments: a list of edits, the oldest first, which can be kept in git as a file.

Jobs are handed edits as values, for the machines that run them have no YAML. Only the functions on the file's text
need it.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from spark_jobs import storage
from spark_jobs.errors import InputError, as_clause

_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])", re.ASCII)
LONGEST_NAME = 80  # characters


def _checked_name(name: str) -> str:
    if not name.isprintable():
        raise ValueError("a name has no control characters, and is one line")
    return name


def _checked_month(month: str) -> str:
    if not _MONTH.fullmatch(month):
        raise ValueError("a month is written YYYY-MM, such as 2024-03")
    return month


def _checked_segments(segments: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(segments)) < max(2, len(segments)):
        raise ValueError("name two segments or more, each once")
    return segments


Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_NAME),
    AfterValidator(_checked_name),
]
_SegmentId = Annotated[int, Field(ge=1)]


class _Edit(BaseModel, ABC):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    from_month: Annotated[str, AfterValidator(_checked_month)] | None = Field(default=None, alias="from")
    by: str | None = None  # who wrote it
    at: str | None = None  # and when

    def concerns(self, month: str) -> bool:
        """Whether it holds for a month: from its first one on, or for all."""
        return self.from_month is None or self.from_month <= month

    @property
    def named(self) -> tuple[int, ...]:
        """The ids of the segments that it names."""
        return ()

    @property
    def in_words(self) -> str:
        """What it says, to go on with in a sentence."""
        return self._says() + (f" from {self.from_month} on" if self.from_month else "")

    @abstractmethod
    def _says(self) -> str:
        """The same, without the months."""


class Rename(_Edit):
    """A segment has this name."""

    what: Literal["rename"] = "rename"
    segment: _SegmentId
    name: Name

    @property
    def named(self) -> tuple[int, ...]:
        return (self.segment,)

    def _says(self) -> str:
        return f"segment {self.segment} is called {self.name!r}"


class Merge(_Edit):
    """Segments are one: the first."""

    what: Literal["merge"] = "merge"
    segments: Annotated[tuple[_SegmentId, ...], AfterValidator(_checked_segments)]

    @property
    def named(self) -> tuple[int, ...]:
        return self.segments

    def _says(self) -> str:
        first, *others = map(str, self.segments)
        verb = "segments {} are" if others[1:] else "segment {} is"
        return f"{verb.format(', '.join(others))} merged into {first}"


class PinK(_Edit):
    """There are k clusters, where a run gives no other k. It is k-means that this concerns."""

    what: Literal["pin_k"] = "pin_k"
    k: int = Field(ge=1)

    def _says(self) -> str:
        return f"k is {self.k}"


Edit = Annotated[Rename | Merge | PinK, Field(discriminator="what")]
_EDIT: TypeAdapter[Rename | Merge | PinK] = TypeAdapter(Edit)


# --- what edits mean for a month


def concerning(edits: Iterable[Edit], month: str) -> tuple[Rename | Merge, ...]:
    """The edits of segments that hold for a month, in order."""
    return tuple(edit for edit in edits if not isinstance(edit, PinK) and edit.concerns(month))


def decisive(edits: Iterable[Edit], month: str) -> list[dict[str, Any]]:
    """What of some edits decides a month's segments, as JSON for its fingerprint: not who wrote them, and when."""
    return [
        edit.model_dump(mode="json", by_alias=True, exclude={"by", "at"}, exclude_none=True)
        for edit in concerning(edits, month)
    ]


def pinned_k(edits: Iterable[Edit], month: str) -> int | None:
    """The k of a month's clusters that the last edit says; None if none does."""
    pins = [edit.k for edit in edits if isinstance(edit, PinK) and edit.concerns(month)]
    return pins[-1] if pins else None


def unknown_segments(edits: Iterable[Edit], month: str, known: Collection[int]) -> list[str]:
    """A sentence on each edit that holds for a month and names a segment that there is not, or not yet.

    Args:
        edits: The edits.
        month: The month.
        known: The ids of all segments that there were until then.
    """
    found = []
    for edit in edits:
        missing = [segment for segment in edit.named if segment not in known]
        if missing and edit.concerns(month):
            named = ", ".join(map(str, missing))
            found.append(f"The edit that {edit.in_words} waits: until {month} there is no segment {named}.")
    return found


# --- the file


def read_edits(location: str) -> tuple[Edit, ...]:
    """The edits of a file; none if there is no such file.

    Raises:
        InputError: It can't be read, or an entry breaks a rule; the message names file and entry.
    """
    return parse_edits(read_text(location), location)


def read_text(location: str) -> str:
    """The text of a file of edits; empty if there is no such file.

    Raises:
        InputError: It can't be read.
    """
    try:
        return storage.at(location).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{location} can't be read: {as_clause(error)}.") from None


def parse_edits(text: str, location: str) -> tuple[Edit, ...]:
    """The edits of a file's text.

    Raises:
        InputError: It is not YAML, or an entry breaks a rule; the message names file and entry.
    """
    import yaml

    from spark_jobs.yaml_texts import texts_of

    try:
        content = texts_of(text)  # so that a name may be `yes`, `1984` or `2024-03-01`
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        why = f"line {mark.line + 1}: {problem}" if mark and problem else as_clause(error)
        raise InputError(f"{location} is not YAML: {why}. Mend it, or take the last version that git has.") from None
    if not content:
        return ()
    if not isinstance(content, list):
        raise InputError(
            f"{location} holds no list of edits, such as `- {{what: rename, segment: 3, name: Tea}}`. Mend it."
        )
    return tuple(_parse(entry, f"{location}: edit {number}") for number, entry in enumerate(content, 1))


def parse_edit(text: str) -> Edit:
    """The edit of a JSON text.

    Raises:
        InputError: It breaks a rule.
    """
    try:
        return _EDIT.validate_json(text)
    except ValidationError as error:
        raise InputError(f"{text} is no edit: {first_problem(error)}.") from None


def to_json(edit: Edit) -> str:
    """The text that `parse_edit` makes the same edit of."""
    return edit.model_dump_json(by_alias=True, exclude_none=True)


def _parse(entry: Any, where: str) -> Edit:
    try:
        return _EDIT.validate_python(entry)
    except ValidationError as error:
        raise InputError(f"{where}: {first_problem(error)}. Mend the entry, or take it out.") from None


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong with an edit, as a clause."""
    first = error.errors()[0]
    # The kind of edit is no part of the place: the entry itself says it.
    place = ".".join(str(part) for part in first["loc"] if part not in ("rename", "merge", "pin_k"))
    why = as_clause(first["msg"].removeprefix("Value error, "))
    return f"{place}: {why}" if place else why


def append(text: str, edit: Edit) -> str:
    """The text of a file with one more edit; the rest is as it was, with its comments."""
    before = parse_edits(text, "the file")
    lines = text if not text or text.endswith("\n") else text + "\n"
    return _as_meant(lines + _to_yaml([edit]), (*before, edit))


def remove(text: str, number: int) -> str:
    """The text of a file without an edit, from 1; the rest is as it was, with its comments."""
    import yaml

    before = parse_edits(text, "the file")
    entries = yaml.compose(text, Loader=yaml.BaseLoader)
    assert isinstance(entries, yaml.SequenceNode)
    begins = [entry.start_mark.line for entry in entries.value]
    lines = text.splitlines(keepends=True)
    end = [*begins, len(lines)][number]
    while not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#"):
        end -= 1
    del lines[begins[number - 1] : end]
    return _as_meant("".join(lines), (*before[: number - 1], *before[number:]))


def _as_meant(text: str, meant: Sequence[Edit]) -> str:
    """A changed text if it means what it is to mean, else a new one: lists can be written in many ways."""
    try:
        found = parse_edits(text, "the file")
    except InputError:
        found = ()
    return text if found == tuple(meant) else _to_yaml(meant)


def _to_yaml(edits: Iterable[Edit]) -> str:
    """A line an edit, so that git shows and merges them one by one."""
    import yaml

    order = ("what", "segment", "name", "segments", "k", "from", "by", "at")
    lines = []
    for edit in edits:
        fields = edit.model_dump(mode="json", by_alias=True, exclude_none=True)
        entry = {name: fields[name] for name in order if name in fields}
        written = yaml.safe_dump(entry, sort_keys=False, allow_unicode=True, default_flow_style=True, width=10_000)
        lines.append(f"- {written}")
    return "".join(lines)
