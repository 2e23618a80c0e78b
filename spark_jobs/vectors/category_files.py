"""Category files: named lists of pages."""

import json
import re
from dataclasses import dataclass
from typing import Any, TypeGuard

from spark_jobs import storage
from spark_jobs.errors import InputError, as_clause
from spark_jobs.outputs.fingerprints import digest_of

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
NOT_NETWORKS = ("id", "name", "private")  # the other keys of a category file


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
            f"{name!r} can't be a category's name: 1 to 64 letters, digits, '_', '-' or '.', no two dots in a row."
        )
    return name


def read_category(location: str) -> Category:
    """Read and check a category file.

    Raises:
        BadCategory: It breaks a rule; the message names file and rule.
    """
    content = read_content(location)
    try:
        return parse_category(storage.at(location).name.removesuffix(".json"), content)
    except BadCategory as error:
        raise BadCategory(*(f"{location}: {problem}" for problem in error.problems)) from None


def read_content(location: str) -> Any:
    """What a category file holds, not checked yet.

    Raises:
        BadCategory: It can't be read, or is not JSON.
    """
    try:
        return json.loads(storage.at(location).read_bytes())
    except FileNotFoundError:
        raise BadCategory(f"{location} does not exist.") from None
    except OSError as error:
        raise BadCategory(f"{location} can't be read: {as_clause(error)}.") from None
    except ValueError as error:
        raise BadCategory(f"{location} is not JSON: {as_clause(error)}.") from None


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
    private = content.get("private", False)
    if not isinstance(private, bool):
        wrong.append(f"'private' is {private!r}; it must be true or false.")
    title = content.get("name", name)
    if not _is_text(title):
        wrong.append(f"'name' is {title!r}; it must be a string.")
    networks = page_lists(content)
    if not networks:
        wrong.append("it has no list of pages, such as 'facebook': [{'id': …, 'name': …}].")
    pages: dict[str, Page] = {}
    for network, entries in networks.items():
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
    if wrong:
        raise BadCategory(*wrong)
    return Category(name, content["id"], title, private, tuple(pages.values()))


def page_lists(content: dict[str, Any]) -> dict[str, list[Any]]:
    """The lists of pages in a category file, by network."""
    return {key: value for key, value in content.items() if key not in NOT_NETWORKS and isinstance(value, list)}


def list_category_files(folder: str) -> dict[str, str]:
    """The category files of a folder: location by category name, in the order of names. Names are not checked yet."""
    path = storage.at(folder)
    if not path.is_dir():
        return {}
    files = [file for file in path.iterdir() if file.name.endswith(".json")]
    return {file.name.removesuffix(".json"): str(file) for file in sorted(files, key=lambda file: file.name)}


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
