"""Category files: a file that breaks a rule is refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audience_explorer_dagster.running.inputs import category_fingerprints
from audience_explorer_dagster.store import Store
from spark_jobs.vectors.category_files import BadCategory, check_name, list_category_files, read_category

PAGE = {"id": "p", "name": "P"}


def write(tmp_path: Path, content: Any, name: str = "coffee") -> str:
    file = tmp_path / f"{name}.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(file)


def test_every_list_of_pages_is_a_network(tmp_path: Path) -> None:
    category = read_category(
        write(tmp_path, {"id": 3, "private": True, "facebook": [PAGE], "mastodon": [{"id": "q", "name": "Q"}]})
    )
    assert [(page.id, page.network) for page in category.pages] == [("p", "facebook"), ("q", "mastodon")]
    assert (category.name, category.title, category.private) == ("coffee", "coffee", True)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is not JSON"),
        ("[]", "JSON object"),
        ({"facebook": [PAGE]}, "no 'id'"),
        ({"id": 0}, "no list of pages"),
        ({"id": 0, "facebook": []}, "'facebook' is empty"),
        ({"id": 0, "facebook": [PAGE, PAGE]}, r"page 'p' is listed twice, the second time as facebook\[1\]"),
        ({"id": 0, "a": [PAGE], "b": [PAGE]}, r"listed twice, the second time as b\[0\]"),
        ({"id": 0, "facebook": [{"id": 7}]}, r"facebook\[0\] has no 'id' that is a non-empty string"),
        ({"id": 0, "facebook": ["p"]}, r"facebook\[0\]"),
        ({"id": 0, "private": "no", "facebook": [PAGE]}, "'private'"),
        ({"id": 0, "name": 1, "facebook": [PAGE]}, "'name'"),
        ({"id": 0, "facebook": [{"id": "half \ud83d", "name": "x"}]}, r"facebook\[0\] has no 'id'"),
        ({"id": 0, "facebook": [{"id": "p", "name": "half \ud83d"}]}, r"facebook\[0\] has a 'name'"),
    ],
)
def test_a_file_that_breaks_a_rule_is_named_with_the_rule(tmp_path: Path, content: Any, says: str) -> None:
    file = write(tmp_path, content)
    with pytest.raises(BadCategory, match=says) as caught:
        read_category(file)
    assert file in str(caught.value)


DEEP = 100_000
UNUSUAL = {
    "a network that is listed twice": ('{"id": 0, "facebook": [{"id": "p"}], "facebook": [{"id": "q"}]}', "'facebook'"),
    "a page's key that is there twice": ('{"id": 0, "facebook": [{"id": "p", "id": "q"}]}', "the key 'id' is .* twice"),
    "a network that is an object": ('{"id": 0, "a": [{"id": "p"}], "b": {"id": "q"}}', "'b' is an object"),
    "a usual network that is a text": ('{"id": 0, "a": [{"id": "p"}], "facebook": "q"}', "'facebook' is \"q\""),
    "brackets": (f'{{"id": 0, "facebook": {"[" * DEEP}{"]" * DEEP}}}', "nested deeper than 100 levels"),
    "braces": ('{"id": 0, "facebook": ' + '{"a":' * DEEP + "1" + "}" * (DEEP + 1), "nested deeper than 100 levels"),
    "an id that Python reads": (f'{{"id": {"[" * 200}{"]" * 200}, "facebook": [{{"id": "p"}}]}}', "nested deeper"),
    "half a pair in the id": ('{"id": ["\\ud83d"], "facebook": [{"id": "p"}]}', "'id' is .*half a surrogate pair"),
    "half a pair in a network": ('{"id": 0, "\\ud83d": [{"id": "p"}]}', "half a surrogate pair"),
    "half a pair in a key twice": ('{"id": 0, "\\ud83d": 1, "\\ud83d": 2}', "twice"),
    "half a pair as bytes": (b'{"id": 0, "facebook": [{"id": "\xed\xa0\xbd"}]}', "is not JSON: 'utf-8' codec"),
    "no number": ('{"id": NaN, "facebook": [{"id": "p"}]}', "NaN is not a JSON value"),
    "a number of 10,000 digits": (f'{{"id": {"9" * 10_000}, "facebook": [{{"id": "p"}}]}}', "is not JSON"),
}


@pytest.mark.parametrize(("content", "says"), UNUSUAL.values(), ids=UNUSUAL)
def test_what_json_leaves_open_is_refused_in_a_line_that_names_the_file(
    tmp_path: Path, content: str | bytes, says: str
) -> None:
    file = tmp_path / "coffee.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadCategory, match=says) as caught:
        read_category(str(file))
    assert str(file) in str(caught.value)
    assert len("".join(caught.value.problems).encode()) < 500


@pytest.mark.parametrize("content", [content for content, _ in UNUSUAL.values()], ids=UNUSUAL)
def test_a_file_that_cannot_be_used_fails_its_own_category_alone(tmp_path: Path, content: str | bytes) -> None:
    folder = tmp_path / "categories"
    folder.mkdir()
    write(folder, {"id": 0, "facebook": [PAGE]}, "tea")
    (folder / "coffee.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    found = category_fingerprints(Store(root=str(tmp_path)), ["coffee", "tea"])
    assert isinstance(found["coffee"], BadCategory)
    assert isinstance(found["tea"], str)


def test_a_remark_beside_the_networks_is_left_alone(tmp_path: Path) -> None:
    file = write(tmp_path, {"id": 0, "remark": "since May", "version": 2, "facebook": [PAGE]})
    assert [page.id for page in read_category(file).pages] == ["p"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_any_encoding_of_json_is_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "coffee.json").write_text(json.dumps({"id": 0, "facebook": [PAGE]}), encoding)
    assert [page.id for page in read_category(str(tmp_path / "coffee.json")).pages] == ["p"]


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "coffee.json").mkdir()
    with pytest.raises(BadCategory, match=r"coffee\.json can't be read"):
        read_category(str(tmp_path / "coffee.json"))


@pytest.mark.parametrize("name", ["pi|pe", "a..b", "", "x" * 65, "mañana", "a b", "a/b", "a\n", ".a", "_a"])
def test_a_name_that_could_break_partitions_or_paths_is_refused(name: str) -> None:
    with pytest.raises(BadCategory, match="can't be a category's name"):
        check_name(name)


def test_the_fingerprint_is_that_of_what_the_file_means(write_category: Callable[..., Path]) -> None:
    one = read_category(str(write_category("coffee", "p", "q"))).fingerprint
    file = write_category("coffee", "p", "q")
    file.write_text(json.dumps(json.loads(file.read_text()), indent=7))
    assert read_category(str(file)).fingerprint == one
    assert read_category(str(write_category("coffee", "p", "r"))).fingerprint != one


def test_files_are_listed_by_name_and_others_are_not(tmp_path: Path) -> None:
    for name in ("b.json", "a.json", ".hidden.json", "._a.json", "_draft.json", "notes.txt"):
        (tmp_path / name).touch()
    assert list(list_category_files(str(tmp_path))) == ["a", "b"]
    assert list_category_files(str(tmp_path / "missing")) == {}


def test_all_problems_of_a_file_are_told_together(tmp_path: Path) -> None:
    file = write(tmp_path, {"private": 1, "facebook": [PAGE, {"id": 7}], "empty": []}, name="pi|pe")
    with pytest.raises(BadCategory, match=r"can't be a category's name.* \(And 4 more\.\)$") as caught:
        read_category(file)
    assert [problem.removeprefix(f"{file}: ")[:12] for problem in caught.value.problems] == [
        "'pi|pe' can'",
        "it has no 'i",
        "'private' is",
        "facebook[1] ",
        "its list 'em",
    ]
