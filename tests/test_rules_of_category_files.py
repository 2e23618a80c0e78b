"""Category files at the edges of their rules: what is taken as it is, and what is refused with which words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spark_jobs.vectors import category_files
from spark_jobs.vectors.category_files import (
    BadCategory,
    Category,
    Page,
    category_folder,
    category_of,
    check_name,
    list_category_files,
    page_lists,
    parse_category,
    read_category,
    read_content,
)

PAGE = {"id": "p", "name": "P"}
TEA: dict[str, Any] = {"id": 7, "facebook": [PAGE, {"id": "q"}]}


def problems(content: Any, name: str = "tea") -> list[str]:
    with pytest.raises(BadCategory) as refused:
        parse_category(name, content)
    return list(refused.value.problems)


# --- what is taken


def test_a_category_has_what_its_file_says_and_else_its_defaults() -> None:
    pages = (Page("p", "P", "facebook"), Page("q", "q", "facebook"))
    assert parse_category("tea", TEA) == Category("tea", 7, "tea", False, pages)
    said = {
        "id": ["x", 1.5],
        "name": "Tee ☕",
        "private": True,
        "b": [PAGE],
        "a": [{"id": "q"}],
        "note": "n",
        "n": None,
    }
    assert parse_category("tea", said) == Category(
        "tea", ["x", 1.5], "Tee ☕", True, (Page("p", "P", "b"), Page("q", "q", "a"))
    )
    assert page_lists({**said, "id": [], "name": [], "private": []}) == {"b": [PAGE], "a": [{"id": "q"}]}


@pytest.mark.parametrize(
    "change",
    [
        {"id": 8},
        {"name": "Tee"},
        {"private": True},
        {"facebook": [{"id": "q"}, PAGE]},
        {"facebook": [{"id": "p", "name": "other"}, {"id": "q"}]},
        {"facebook": [PAGE], "other": [{"id": "q"}]},
    ],
)
def test_whatever_means_something_is_in_the_fingerprint(change: dict[str, Any]) -> None:
    plain = parse_category("tea", TEA).fingerprint
    assert parse_category("tea", dict(TEA)).fingerprint == plain
    assert parse_category("tea", {**TEA, "remark": "x"}).fingerprint == plain
    assert parse_category("tea", {**TEA, **change}).fingerprint != plain
    assert parse_category("mate", {**TEA, "name": "tea"}).fingerprint != plain


@pytest.mark.parametrize("name", ["a", "A.b-c_9", "-a", "9", "x" * 64, "a.b.c"])
def test_a_name_that_is_allowed_is_given_back(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["a..b", "x" * 65, "_a", ".a", "a\n", ""])
def test_a_name_that_is_not_allowed_is_refused_with_the_rule(name: str) -> None:
    with pytest.raises(BadCategory) as refused:
        check_name(name)
    assert str(refused.value) == (
        f"{name!r} can't be a category's name: 1 to 64 letters, digits, '_', '-' or '.', no two dots in a row, and"
        " neither '_' nor '.' first."
    )


# --- what is refused


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([], "it must hold a JSON object."),
        (None, "it must hold a JSON object."),
        ({"facebook": [PAGE]}, "it has no 'id'."),
        ({**TEA, "id": "\ud800"}, "'id' is \"\\ud800\"; half a surrogate pair is not a character."),
        ({**TEA, "private": None}, "'private' is None; it must be true or false."),
        ({**TEA, "private": 0}, "'private' is 0; it must be true or false."),
        ({**TEA, "name": None}, "'name' is None; it must be a string."),
        ({**TEA, "name": "\udfff"}, "'name' is '\\udfff'; it must be a string."),
        (
            {**TEA, "other": {"id": "x"}},
            "'other' is an object; it must be a list of pages, such as [{'id': …, 'name': …}].",
        ),
        ({"id": 1, "a": [PAGE], "facebook": None}, "'facebook' is null; it must be a list of pages, such as"),
        ({"id": 1, "a": [PAGE], "facebook": {}}, "'facebook' is an object; it must be"),
        ({"id": 1}, "it has no list of pages, such as 'facebook': [{'id': …, 'name': …}]."),
        ({"id": 1, "name": ["p"]}, "'name' is ['p']; it must be a string."),
        ({**TEA, "a": []}, "its list 'a' is empty."),
        ({"id": 1, "a\ud800": [PAGE], "b": [PAGE]}, "its list 'a\\ud800' has a name with half a surrogate pair"),
        ({"id": 1, "a": [PAGE, {"id": ""}]}, 'a[1] has no \'id\' that is a non-empty string: {"id": ""}.'),
        ({"id": 1, "a": [PAGE, None]}, "a[1] has no 'id' that is a non-empty string: null."),
        ({"id": 1, "a": [PAGE, {"name": "ü"}]}, 'a[1] has no \'id\' that is a non-empty string: {"name": "\\u00fc"}.'),
        ({"id": 1, "a": [{"id": "p", "name": None}]}, "a[0] has a 'name' that is not a string: {"),
        ({"id": 1, "a": [PAGE, {"id": "q"}, PAGE]}, "page 'p' is listed twice, the second time as a[2]."),
        ({"id": 1, "a": [PAGE], "b": [{"id": "q"}, PAGE]}, "page 'p' is listed twice, the second time as b[1]."),
    ],
)
def test_what_breaks_a_rule_is_refused_in_these_words(content: Any, says: str) -> None:
    assert problems(content)[0].startswith(says)


def test_every_problem_is_found_each_once_and_the_first_is_the_message() -> None:
    entries = [PAGE, 1, PAGE, {"id": "q", "name": 2}, {"id": "r"}]
    content = {"name": 1, "private": 1, "a": entries, "c": [], "\ud800": [], "x": {}}
    found = problems(content, "_tea")
    assert [problem[:13] for problem in found] == [
        "'_tea' can't ",
        "it has no 'id",
        "'private' is ",
        "'name' is 1; ",
        "'x' is an obj",
        "a[1] has no '",
        "page 'p' is l",
        "a[3] has a 'n",
        "its list 'c' ",
        "its list '\\ud",
    ]
    assert str(BadCategory(*found)) == f"{found[0]} (And 9 more.)"
    assert str(BadCategory(*found[:2])) == f"{found[0]} (And 1 more.)"
    assert str(BadCategory(found[0])) == found[0]
    assert len(problems([], "_tea")) == 2


@pytest.mark.parametrize("char", ["\ud7ff", "\ue000", "\uffff", "\U0010ffff", "a"])
def test_a_whole_character_beside_the_surrogates_is_text(char: str) -> None:
    assert parse_category("tea", {"id": char, "name": char, char: [{"id": char, "name": char}]}).title == char


# --- JSON


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not JSON: Expecting value: line 1 column 1"),
        ('{"id": 1,}', "is not JSON: "),
        ('{"id": -Infinity}', "is not JSON: -Infinity is not a JSON value."),
        ('{"id": 1e999}', "is not JSON: 1e999 is too large for a number."),
        ('{"id": -1e999}', "is not JSON: -1e999 is too large for a number."),
        ('{"id": {"a": 1, "a": 1}}', "the key 'a' is there twice in one object. Write it once."),
    ],
)
def test_what_is_no_json_or_leaves_open_what_it_means_is_refused_by_file(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "tea.json"
    file.write_text(text)
    for read in (read_content, read_category):
        with pytest.raises(BadCategory) as refused:
            read(str(file))
        assert says in str(refused.value)
        assert str(refused.value).startswith(str(file))
        assert str(refused.value).count(str(file)) == 1


def test_a_number_that_is_finite_and_a_key_that_is_there_twice_in_two_objects_are_taken(tmp_path: Path) -> None:
    (tmp_path / "tea.json").write_text('{"id": 1e308, "a": [{"id": "p"}, {"id": "q"}]}')
    assert read_content(str(tmp_path / "tea.json")) == {"id": 1e308, "a": [{"id": "p"}, {"id": "q"}]}


def nested(levels: int) -> Any:
    content: Any = 1
    for level in range(levels):
        content = [content] if level % 2 else {"a": content}
    return content


def test_a_hundred_levels_are_read_and_one_more_is_refused_by_file(tmp_path: Path) -> None:
    file = tmp_path / "tea.json"
    file.write_text(json.dumps(nested(category_files._DEEPEST - 1)))
    assert read_content(str(file)) == nested(99)
    file.write_text(json.dumps([1, nested(category_files._DEEPEST), 2]))
    with pytest.raises(BadCategory, match=r"tea\.json: it is nested deeper than 100 levels"):
        read_content(str(file))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda _: None, "does not exist."),
        (Path.mkdir, "can't be read: [Errno 21] Is a directory: "),
    ],
    ids=["gone", "folder"],
)
def test_a_file_that_cannot_be_read_is_a_bad_category_that_names_it(
    tmp_path: Path, make: Callable[[Path], object], says: str
) -> None:
    file = tmp_path / "tea.json"
    make(file)
    with pytest.raises(BadCategory) as refused:
        read_content(str(file))
    assert str(refused.value).startswith(f"{file} {says}")


# --- folders


def test_categories_are_below_the_root_and_named_by_their_files(tmp_path: Path) -> None:
    assert category_folder(str(tmp_path)) == f"{tmp_path}/categories"
    for name in ("tea.v2.json", "a.json", ".json", "_x.json", "tea.JSON", "b.json.bak"):
        (tmp_path / name).write_text("{}")
    assert list_category_files(str(tmp_path)) == {
        "a": f"{tmp_path}/a.json",
        "tea.v2": f"{tmp_path}/tea.v2.json",
    }
    assert list_category_files(str(tmp_path / "nowhere")) == {}
    assert list_category_files(str(tmp_path / "a.json")) == {}
    assert [category_of(name) for name in ("a.json", "a.txt", "_a.json", "json")] == ["a", None, None, None]


def test_a_category_is_called_as_its_file(tmp_path: Path) -> None:
    (tmp_path / "tea.v2.json").write_text(json.dumps(TEA))
    assert read_category(str(tmp_path / "tea.v2.json")).name == "tea.v2"
    (tmp_path / "_tea.json").write_text(json.dumps({"facebook": [PAGE]}))
    with pytest.raises(BadCategory) as refused:
        read_category(str(tmp_path / "_tea.json"))
    assert [problem.startswith(f"{tmp_path}/_tea.json: ") for problem in refused.value.problems] == [True, True]
