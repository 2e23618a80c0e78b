"""What people say of segments: the rules of each edit, its words, its file, and what it makes of a month's segments."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from audience_explorer_dagster import edits as files
from spark_jobs import storage
from spark_jobs.errors import InputError
from spark_jobs.following import edits
from spark_jobs.following.edited import Edited, edit_segments, reserved
from spark_jobs.following.edits import Edit, Merge, PinK, Rename
from spark_jobs.following.follow import Returned
from spark_jobs.following.state import Event, Segment, State

TEA = Rename(segment=3, name="Tea", from_month="2024-02", by="anna", at="2024-02-07")
EDITS: list[Edit] = [TEA, Merge(segments=(3, 5, 7)), PinK(k=4, from_month="2024-03")]
TEXT = """\
- {what: rename, segment: 3, name: Tea, from: 2024-02, by: anna, at: '2024-02-07'}
- {what: merge, segments: [3, 5, 7]}
- {what: pin_k, k: 4, from: 2024-03}
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "edits" / "tea.yaml")


# --- the file of a category


def test_edits_are_added_at_the_end_and_undone_from_the_end_until_there_are_none(file: str) -> None:
    assert edits.read_edits(file) == ()
    for number, edit in enumerate(EDITS, 1):
        files.add(file, edit)
        assert edits.read_edits(file) == tuple(EDITS[:number])
    assert Path(file).read_text() == TEXT
    for number in (3, 2, 1):
        assert files.undo(file) == (number, EDITS[number - 1])
        assert edits.read_edits(file) == tuple(EDITS[: number - 1])
    with pytest.raises(InputError, match=f"^There is nothing to undo: {file} has no edits"):
        files.undo(file)
    with pytest.raises(InputError, match="nothing to undo"):
        files.undo(file, 1)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_edit_of_a_number_is_undone_and_no_other(file: str, number: int) -> None:
    storage.write_text(file, TEXT)
    assert files.undo(file, number) == (number, EDITS[number - 1])
    assert edits.read_edits(file) == tuple(EDITS[: number - 1] + EDITS[number:])


@pytest.mark.parametrize("number", [-1, 0, 4])
def test_an_edit_that_there_is_not_is_not_undone(file: str, number: int) -> None:
    storage.write_text(file, TEXT)
    with pytest.raises(InputError, match=f"^There is no edit {number} in {file}; it has 3"):
        files.undo(file, number)
    assert Path(file).read_text() == TEXT


def test_a_file_that_cannot_be_understood_is_left_as_it_is(file: str) -> None:
    storage.write_text(file, "- {what: pin_k, k: 0}\n")
    for change in (lambda: files.add(file, TEA), lambda: files.undo(file)):
        with pytest.raises(InputError, match="edit 1: k"):
            change()
    assert Path(file).read_text() == "- {what: pin_k, k: 0}\n"


def test_edits_outlive_a_power_loss(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lasting: list[bool] = []
    write = storage.write_text

    def noted(location: str, text: str, **how: Any) -> None:
        lasting.append(how.get("lasting", False))
        write(location, text, **how)

    monkeypatch.setattr(storage, "write_text", noted)
    files.add(file, TEA)
    files.undo(file)
    assert lasting == [True, True]


def test_a_folder_in_place_of_the_file_and_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xfa")
    for name in ("", "bytes.yaml"):
        with pytest.raises(InputError, match=f"^{tmp_path / name} can't be read: .*[^.]\\.$"):
            edits.read_text(str(tmp_path / name))


# --- the rules of edits


@pytest.mark.parametrize(
    "make",
    [
        lambda: Rename(segment=0, name="x"),
        lambda: Rename(segment=1, name=""),
        lambda: Rename(segment=1, name=" \t"),
        lambda: Rename(segment=1, name="x" * 81),
        lambda: Rename(segment=1, name="a\nb"),
        lambda: Rename(segment=1, name="x", from_month="2024-00"),
        lambda: Rename(segment=1, name="x", from_month="2024-13"),
        lambda: Rename(segment=1, name="x", from_month="2024-01-01"),
        lambda: Merge(segments=()),
        lambda: Merge(segments=(1,)),
        lambda: Merge(segments=(1, 2, 1)),
        lambda: Merge(segments=(0, 1)),
        lambda: PinK(k=0),
        lambda: PinK(k=1, more=1),  # type: ignore[call-arg]
    ],
)
def test_an_edit_that_breaks_a_rule_is_none(make: Callable[[], Edit]) -> None:
    with pytest.raises(ValidationError):
        make()


def test_an_edit_is_a_value_that_nobody_changes() -> None:
    assert len({TEA, TEA.model_copy(), PinK(k=1)}) == 2
    with pytest.raises(ValidationError):
        TEA.name = "Coffee"  # type: ignore[misc]


def test_edits_at_the_edge_of_the_rules_are_edits() -> None:
    assert Rename(segment=1, name=f"  {'x' * 80} ").name == "x" * 80
    assert [Rename(segment=1, name="x", from_month=month).from_month for month in ("2024-01", "2024-12")]
    assert (Merge(segments=(2, 1)).segments, PinK(k=1).k) == ((2, 1), 1)


@pytest.mark.parametrize(
    ("edit", "named", "words"),
    [
        (TEA, (3,), "segment 3 is called 'Tea' from 2024-02 on"),
        (Merge(segments=(3, 5)), (3, 5), "segment 5 is merged into 3"),
        (Merge(segments=(3, 5, 7)), (3, 5, 7), "segments 5, 7 are merged into 3"),
        (PinK(k=4, from_month="2024-03"), (), "k is 4 from 2024-03 on"),
    ],
)
def test_an_edit_says_in_words_what_it_does_and_to_whom(edit: Edit, named: tuple[int, ...], words: str) -> None:
    assert (edit.named, edit.in_words) == (named, words)
    assert edits.parse_edit(edits.to_json(edit)) == edit
    assert "null" not in edits.to_json(edit)


def test_a_json_that_is_no_edit_is_named_with_what_is_wrong() -> None:
    with pytest.raises(InputError, match=r'^\{"what": "pin_k", "k": 0\} is no edit: k: Input should be .*[^.]\.$'):
        edits.parse_edit('{"what": "pin_k", "k": 0}')


def test_an_edit_holds_from_its_first_month_on_or_always() -> None:
    assert [TEA.concerns(month) for month in ("2024-01", "2024-02", "2024-03")] == [False, True, True]
    assert PinK(k=1).concerns("0001-01")


def test_edits_of_segments_decide_a_month_whoever_wrote_them() -> None:
    assert edits.concerning(EDITS, "2024-01") == (EDITS[1],)
    assert edits.concerning(EDITS, "2024-03") == (EDITS[0], EDITS[1])
    assert edits.decisive(EDITS, "2024-03") == [
        {"from": "2024-02", "what": "rename", "segment": 3, "name": "Tea"},
        {"what": "merge", "segments": [3, 5, 7]},
    ]


def test_what_waits_for_a_segment_names_those_that_are_missing_once_its_month_has_come() -> None:
    assert edits.unknown_segments(EDITS, "2024-01", {3}) == [
        "The edit that segments 5, 7 are merged into 3 waits: until 2024-01 there is no segment 5, 7."
    ]
    assert edits.unknown_segments(EDITS, "2024-02", {5, 7}) == [
        "The edit that segment 3 is called 'Tea' from 2024-02 on waits: until 2024-02 there is no segment 3.",
        "The edit that segments 5, 7 are merged into 3 waits: until 2024-02 there is no segment 3.",
    ]
    assert edits.unknown_segments(EDITS, "2024-03", {3, 5, 7}) == []


# --- the text of a file


@pytest.mark.parametrize("text", ["", "\n", "# nothing yet\n", "[]"])
def test_a_text_without_edits_has_none(text: str) -> None:
    assert edits.parse_edits(text, "tea.yaml") == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- {what: pin_k", r"is not YAML: line 1: .*Mend it, or take the last version that git has\.$"),
        ("a: 1\n b: 2", r"is not YAML: line 2: mapping values are not allowed"),
        ("\0", r"is not YAML: .*Mend it"),
        ("rename", r"holds no list of edits, such as `- \{what: rename, segment: 3, name: Tea\}`\. Mend it"),
        ("- pin_k", r": edit 1: .*Mend the entry, or take it out"),
        (TEXT + "- {what: merge, segments: [1]}", r": edit 4: segments: name two segments or more, each once\. Mend"),
        (TEXT + "- {what: merge, segments: [1, x]}", r": edit 4: segments\.1: Input should be a valid integer"),
        ("- {what: pin_k, k: 2, why: none}", r": edit 1: why: Extra inputs are not permitted"),
    ],
)
def test_a_text_that_cannot_be_understood_is_named_with_place_and_way_out(text: str, says: str) -> None:
    with pytest.raises(InputError, match=f"^tea.yaml.*{says}"):
        edits.parse_edits(text, "tea.yaml")


def test_a_line_without_its_end_gets_one_before_an_edit_is_added() -> None:
    assert edits.append("- {what: pin_k, k: 4}", PinK(k=5)) == "- {what: pin_k, k: 4}\n- {what: pin_k, k: 5}\n"
    assert edits.append("- {what: pin_k, k: 4}\n", PinK(k=5)) == "- {what: pin_k, k: 4}\n- {what: pin_k, k: 5}\n"
    assert edits.append("", PinK(k=5)) == "- {what: pin_k, k: 5}\n"


def test_a_list_in_another_style_is_written_anew_and_means_the_same() -> None:
    assert edits.append("[{what: pin_k, k: 4}]\n", PinK(k=5)) == "- {what: pin_k, k: 4}\n- {what: pin_k, k: 5}\n"
    flow = "[{what: pin_k, k: 4}, {what: pin_k, k: 5}]\n"
    assert edits.remove(flow, 1) == "- {what: pin_k, k: 5}\n"
    assert edits.remove("- {what: pin_k, k: 4}\n", 1) == ""


def test_a_long_name_stays_on_its_line_and_its_letters_as_they_are() -> None:
    name = ("Käse " * 16).strip()
    assert edits.append("", Rename(segment=1, name=name)) == f"- {{what: rename, segment: 1, name: {name}}}\n"


# --- what edits make of segments


def segment(number: int, name: str, born: str = "2024-01", seen: str = "2024-03", ended: str | None = None) -> Segment:
    return Segment(number, name, number - 1, born, seen, ended, 0.25, {}, {})


def state(*segments: Segment, month: str = "2024-03", **parts: Any) -> State:
    living = [each.id for each in segments if each.ended is None]
    given = {"groups": tuple((n,) for n in living), "group_of_cluster": tuple(range(len(living))), "events": ()}
    return State(month, segments, **{**given, **parts})


ONE, TWO, THREE = segment(1, "Metal"), segment(2, "Jazz", born="2024-02"), segment(3, "Folk")


def test_names_that_people_gave_are_taken_and_segments_that_they_merged_keep_theirs_from_their_month_on() -> None:
    said: list[Edit] = [*EDITS, Merge(segments=(9, 8), from_month="2024-03")]
    assert reserved(said, "2024-01") == (frozenset(), frozenset({3, 5, 7}))
    assert reserved(said, "2024-03") == (frozenset({"Tea"}), frozenset({3, 5, 7, 9, 8}))


@pytest.mark.parametrize(
    ("from_month", "since"), [(None, "2024-02"), ("2024-01", "2024-02"), ("2024-02", "2024-02"), ("2024-03", "2024-03")]
)
def test_a_merged_segment_ends_when_all_is_there_and_the_edit_begins(from_month: str | None, since: str) -> None:
    for segments in ((1, 2), (2, 1)):
        after = edit_segments(state(ONE, TWO, THREE), [Merge(segments=segments, from_month=from_month)], None)
        assert [each.ended for each in after.state.segments if each.id == segments[1]] == [since]
        assert [each.id for each in after.state.living] == sorted({segments[0], 3})
        assert after.into == {1: segments[0], 2: segments[0], 3: 3}
        assert after.how == {1: ["merged"], 2: ["merged"]}


def test_a_segment_that_ended_before_it_was_merged_stays_ended_then() -> None:
    gone = segment(2, "Jazz", seen="2024-01", ended="2024-02")
    after = edit_segments(state(ONE, gone), [Merge(segments=(1, 2), from_month="2024-03")], None)
    assert [each.ended for each in after.state.segments] == [None, "2024-02"]
    other = edit_segments(state(ONE, gone), [Merge(segments=(2, 1), from_month="2024-03")], None)
    assert [each.ended for each in other.state.segments] == ["2024-03", None], "it lives, for a part of it does"
    assert [each.seen for each in other.state.segments] == ["2024-03", "2024-03"]


def test_a_segment_is_gone_since_the_last_of_its_parts_is() -> None:
    parts = [segment(number, str(number), ended=f"2024-0{number + 1}") for number in (1, 2)]
    for segments in ((1, 2), (2, 1)):
        after = edit_segments(state(*parts, month="2024-04"), [Merge(segments=segments)], None)
        assert next(each.ended for each in after.state.segments if each.id == segments[0]) == "2024-03"


def test_merges_of_merges_are_one_and_what_names_nobody_there_does_nothing() -> None:
    said = [Merge(segments=(1, 2)), Merge(segments=(3, 1)), Merge(segments=(3, 2)), Merge(segments=(9, 3))]
    after = edit_segments(state(ONE, TWO, THREE), said, None)
    assert after.into == {1: 3, 2: 3, 3: 3}
    assert after.group.tolist() == [0, 0, 0]
    assert after.state.groups == ((3,),)
    assert edit_segments(state(ONE, TWO), [Merge(segments=(1, 9, 2))], None).into == {1: 1, 2: 1}


def test_renamed_and_merged_segments_are_marked_and_ended_ones_may_have_a_name_that_lives() -> None:
    said: list[Edit] = [Rename(segment=1, name="Folk"), Rename(segment=9, name="x"), Merge(segments=(1, 2))]
    after = edit_segments(state(ONE, TWO, segment(3, "Folk", ended="2024-02")), said, None)
    assert after.how == {1: ["renamed", "merged"], 2: ["merged"]}
    assert [each.name for each in after.state.segments] == ["Folk", "Jazz", "Folk"]
    says = "^By an edit, segments 1 and 3 would both be called 'Folk' in 2024-03. Give one of them another name"
    with pytest.raises(InputError, match=says):
        edit_segments(state(ONE, TWO, THREE), said, None)


def test_groups_that_share_a_merged_segment_are_one_and_counts_go_with_them() -> None:
    many = state(ONE, TWO, THREE, segment(4, "Opera"), groups=((4,), (1,), (3,), (2, 3)), group_of_cluster=(3, 1, 0, 2))
    after = edit_segments(many, [Merge(segments=(1, 2))], None)
    assert after.state.groups == ((4,), (1, 3)), "2 is 1, and can't be told apart from 3"
    assert after.group.tolist() == [0, 1, 1, 1]
    assert after.state.group_of_cluster == (1, 1, 0, 1)
    assert after.sizes(np.array([1, 10, 100, 1000])).tolist() == [1, 1110]
    people = np.array([[1, 2], [10, 20], [100, 200], [1000, 2000]])
    returned = after.returned(Returned(people, np.array([1, 2, 3, 4]), np.array([7, 7])))
    assert (returned.people.tolist(), returned.before.tolist()) == ([[1, 2], [1110, 2220]], [1, 9])
    assert returned.now.tolist() == [7, 7]


def test_of_nobody_there_are_no_groups() -> None:
    after = edit_segments(state(), [Merge(segments=(1, 2))], None)
    assert (after.state.groups, after.group.tolist(), after.into, after.how) == ((), [], {}, {})


def test_what_was_told_apart_is_so_of_the_published_segment_and_not_within_one() -> None:
    apart = state(ONE, TWO, THREE, told_apart={2: 1, 3: 2})
    assert edit_segments(apart, [], None).state.told_apart == {2: 1, 3: 2}
    assert edit_segments(apart, [Merge(segments=(1, 2))], None).state.told_apart == {3: 1}


def before(*segments: Segment, said: list[Edit] | None = None) -> Edited:
    return edit_segments(state(*segments, month="2024-02"), said or [], None)


def test_a_merge_by_hand_is_an_event_of_the_month_that_shows_it_first_and_of_no_other() -> None:
    said: list[Edit] = [Merge(segments=(1, 2))]
    by_hand = Event("merge", "2024-03", (2, 1), (1,), by_hand=True)
    months = state(ONE, TWO, THREE)
    assert edit_segments(months, said, before(ONE, TWO, THREE)).state.events == (by_hand,)
    assert edit_segments(months, said, before(ONE, THREE)).state.events == (by_hand,), "2 is new, and merged at once"
    assert edit_segments(months, said, None).state.events == (by_hand,)
    assert edit_segments(months, said, before(ONE, TWO, THREE, said=said)).state.events == ()
    ended = segment(2, "Jazz", ended="2024-01")
    assert edit_segments(state(ONE, ended), said, before(ONE, ended)).state.events == (), "it is long gone"


CHANGE = Event("change", "2024-03", (1,), (1,))
SPLIT = Event("split", "2024-03", (1,), (1, 2))
DEATH = Event("death", "2024-03", (2,), ())
BIRTH = Event("birth", "2024-03", (), (3,))
TOGETHER = Event("merge", "2024-03", (2, 3), (3,))


@pytest.mark.parametrize(
    ("event", "segments", "merged", "shown"),
    [
        (CHANGE, (ONE, TWO), (2, 3), [CHANGE]),
        (CHANGE, (ONE, TWO), (1, 2), []),  # the other part did not change
        (SPLIT, (ONE, TWO), (1, 3), [SPLIT]),
        (SPLIT, (ONE, TWO, THREE), (3, 2), []),  # the part that split off joined one that was there
        (SPLIT, (ONE, TWO), (1, 2), []),  # it split within the segment
        (DEATH, (ONE, segment(2, "Jazz", ended="2024-03")), (1, 3), [DEATH]),
        (DEATH, (ONE, segment(2, "Jazz", ended="2024-03")), (1, 2), []),  # the other part goes on
        (BIRTH, (ONE, TWO, THREE), (1, 2), [BIRTH]),
        (BIRTH, (ONE, TWO, THREE), (1, 3), []),  # it is a part of one that was there
        (TOGETHER, (ONE, segment(2, "Jazz", ended="2024-03"), THREE), (1, 9), [TOGETHER]),
        (TOGETHER, (ONE, segment(2, "Jazz", ended="2024-03"), THREE), (1, 2), []),  # a part of the one goes on
        (TOGETHER, (ONE, segment(2, "Jazz", ended="2024-03"), THREE), (3, 2), []),  # they were one
    ],
)
def test_what_happens_to_a_part_of_a_merged_segment_is_said_only_if_it_happened_to_the_whole(
    event: Event, segments: tuple[Segment, ...], merged: tuple[int, int], shown: list[Event]
) -> None:
    said: list[Edit] = [Merge(segments=merged)]
    were = [Segment(**{**vars(each), "ended": None}) for each in segments if each.id not in event.after[-1:]]
    if event in (CHANGE, TOGETHER):
        were = [Segment(**{**vars(each), "ended": None}) for each in segments]
    after = edit_segments(state(*segments, events=(event,)), said, before(*were, said=said))
    assert [each for each in after.state.events if not each.by_hand] == shown
