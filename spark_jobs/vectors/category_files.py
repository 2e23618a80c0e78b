"""Category files: named lists of pages."""

import json
import math
import re
from dataclasses import dataclass
from typing import Any, TypeGuard

from spark_jobs import storage
from spark_jobs.errors import InputError, as_clause
from spark_jobs.outputs.fingerprints import digest_of

_NAME = re.compile(r"[A-Za-z0-9-][A-Za-z0-9_.-]{0,63}")
NOT_NETWORKS = ("id", "name", "private")  # the other keys of a category file
_USUAL_NETWORK = "facebook"
_ENDING = ".json"
_DEEPEST = 100  # levels of a file's JSON; Python gives up at some thousand, depending on who calls


class BadCategory(InputError):
    """A category that breaks rules of the contract: the message has the first, `problems` has all."""

    def __init__(self, *problems: str):
        self.problems = problems
        super().__init__(f"{problems[0]} (And {len(problems) - 1} more.)" if len(problems) > 1 else problems[0])


@dataclass(frozen=True)
class Page:
    """A page of a category; its place in the category's list is its dimension."""

    id: str
    name: str
    network: str


@dataclass(frozen=True)
class Category:
    """A named list of pages."""

    name: str  # the file's, and the partition key
    id: Any
    title: str
    private: bool
    pages: tuple[Page, ...]

    @property
    def fingerprint(self) -> str:
        """Changes with anything in the file that means something."""
        pages = [[page.id, page.name, page.network] for page in self.pages]
        return digest_of([self.name, self.id, self.title, self.private, pages])


def check_name(name: str) -> str:
    """The name, if it may be a category's (and so a partition key and a folder's name).

    Raises:
        BadCategory: It may not.
    """
    if not _NAME.fullmatch(name) or ".." in name:
        raise BadCategory(
            f"{name!r} can't be a category's name: 1 to 64 letters, digits, '_', '-' or '.', no two dots in a row,"
            " and neither '_' nor '.' first."
        )
    return name


def read_category(location: str) -> Category:
    """Read and check a category file.

    Raises:
        BadCategory: It breaks a rule; the message names file and rule.
    """
    content = read_content(location)
    try:
        return parse_category(storage.at(location).name.removesuffix(_ENDING), content)
    except BadCategory as error:
        raise BadCategory(*(f"{location}: {problem}" for problem in error.problems)) from None


def read_content(location: str) -> Any:
    """What a category file holds, not checked yet but for what JSON leaves open: no key is there twice, for one.

    Raises:
        BadCategory: It can't be read, or is not JSON.
    """
    try:
        data = storage.at(location).read_bytes()
    except FileNotFoundError:
        raise BadCategory(f"{location} does not exist.") from None
    except OSError as error:
        raise BadCategory(f"{location} can't be read: {as_clause(error)}.") from None
    try:
        # Decoded here, for `json.loads` lets bytes pass that stand for half a surrogate pair.
        text = data.decode(json.detect_encoding(data))
        content = json.loads(text, object_pairs_hook=_object_of, parse_constant=_refuse_constant, parse_float=_finite)
        _check_depth(content)
    except ValueError as error:
        raise BadCategory(f"{location} is not JSON: {as_clause(error)}.") from None
    except RecursionError:
        raise BadCategory(f"{location}: {_TOO_DEEP}") from None
    except BadCategory as error:
        raise BadCategory(f"{location}: {error}") from None
    return content


_TOO_DEEP = f"it is nested deeper than {_DEEPEST} levels."


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Python takes the last one of equal keys, and the pages of the others would be lost."""
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise BadCategory(f"the key {key!a} is there twice in one object. Write it once.")
        content[key] = value
    return content


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON value")


def _finite(text: str) -> float:
    """A number, which Python makes infinite where it is too large: no other program could read what is made of it."""
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large for a number")
    return number


def _check_depth(content: Any) -> None:
    level = [content]
    for _ in range(_DEEPEST):
        level = [
            child
            for value in level
            if isinstance(value, (dict, list))
            for child in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise BadCategory(_TOO_DEEP)


def category_folder(root: str) -> str:
    """The folder of a root's category files."""
    return storage.join(storage.absolute(root), "categories")


def parse_category(name: str, content: Any) -> Category:
    """The category of this name and this content of a file.

    Raises:
        BadCategory: They break rules; `problems` has all of them.
    """
    wrong: list[str] = []
    try:
        check_name(name)
    except BadCategory as error:
        wrong += error.problems
    if not isinstance(content, dict):
        raise BadCategory(*wrong, "it must hold a JSON object.")
    if "id" not in content:
        wrong.append("it has no 'id'.")
    elif not _is_text(json.dumps(content["id"], ensure_ascii=False)):
        wrong.append(f"'id' is {json.dumps(content['id'])}; half a surrogate pair is not a character.")
    private = content.get("private", False)
    if not isinstance(private, bool):
        wrong.append(f"'private' is {private!r}; it must be true or false.")
    title = content.get("name", name)
    if not _is_text(title):
        wrong.append(f"'name' is {title!r}; it must be a string.")
    wrong += _not_lists(content)
    networks = page_lists(content)
    if not networks:
        wrong.append("it has no list of pages, such as 'facebook': [{'id': …, 'name': …}].")
    pages, of_pages = _parse_networks(networks)
    wrong += of_pages
    if wrong:
        raise BadCategory(*wrong)
    return Category(name, content["id"], title, private, pages)


def page_lists(content: dict[str, Any]) -> dict[str, list[Any]]:
    """The lists of pages in a category file, by network."""
    return {key: value for key, value in content.items() if key not in NOT_NETWORKS and isinstance(value, list)}


def list_category_files(folder: str) -> dict[str, str]:
    """The category files of a folder: location by category name, in the order of names. Names are not checked yet."""
    path = storage.at(folder)
    if not path.is_dir():
        return {}
    named = [(category_of(file.name), str(file)) for file in sorted(path.iterdir(), key=lambda file: file.name)]
    return {name: location for name, location in named if name is not None}


def category_of(file: str) -> str | None:
    """The name of the category whose file has this name; None if it is not a category file."""
    return file.removesuffix(_ENDING) if file.endswith(_ENDING) and not storage.is_ignored(file) else None


def _not_lists(content: dict[str, Any]) -> list[str]:
    """What is wrong with networks that are not lists. Another key may hold a text or a number: it is a remark."""
    return [
        f"{key!r} is {'an object' if isinstance(value, dict) else json.dumps(value)}; it must be a list of pages,"
        " such as [{'id': …, 'name': …}]."
        for key, value in content.items()
        if key not in NOT_NETWORKS
        and (isinstance(value, dict) or (key == _USUAL_NETWORK and not isinstance(value, list)))
    ]


def _parse_networks(networks: dict[str, list[Any]]) -> tuple[tuple[Page, ...], list[str]]:
    """The pages of all networks, and what is wrong with them."""
    wrong: list[str] = []
    pages: dict[str, Page] = {}
    for network, entries in networks.items():
        if not _is_text(network):
            wrong.append(f"its list {network!a} has a name with half a surrogate pair, which is not a character.")
            continue
        if not entries:
            wrong.append(f"its list {network!r} is empty.")
        for place, entry in enumerate(entries):
            try:
                page = _parse_page(entry, network, f"{network}[{place}]")
            except BadCategory as error:
                wrong += error.problems
                continue
            if page.id in pages:
                wrong.append(f"page {page.id!r} is listed twice, the second time as {network}[{place}].")
            pages[page.id] = page
    return tuple(pages.values()), wrong


def _parse_page(entry: Any, network: str, where: str) -> Page:
    page_id = entry.get("id") if isinstance(entry, dict) else None
    if not _is_text(page_id) or not page_id:
        raise BadCategory(f"{where} has no 'id' that is a non-empty string: {json.dumps(entry, ensure_ascii=True)}.")
    page_name = entry.get("name", page_id)
    if not _is_text(page_name):
        raise BadCategory(f"{where} has a 'name' that is not a string: {json.dumps(entry, ensure_ascii=True)}.")
    return Page(page_id, page_name, network)


def _is_text(value: Any) -> TypeGuard[str]:
    """Whether it is a string of whole characters; JSON can hold one half of a surrogate pair."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)
