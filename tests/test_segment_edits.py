"""What people say of segments: it holds for the months that it is said of, lasts, and can be taken back."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from spark_jobs import outputs
from spark_jobs.config import SegmentsConfig
from spark_jobs.errors import InputError
from spark_jobs.follow_segments import CODE_VERSION, STEP, step_fingerprint
from spark_jobs.following import edits
from spark_jobs.following.edited import Edited, edit_segments, reserved
from spark_jobs.following.edits import Edit, Merge, PinK, Rename, pinned_k, unknown_segments
from spark_jobs.following.follow import Returned, begin, follow
from spark_jobs.following.tastes import People
from spark_jobs.outputs.fingerprints import fingerprint
from tests.conftest import Engine
from tests.test_following import ACTIONS_MONTHS, A, B, C, D, kinds, liking, make_months, month

NAMES = ("Metal", "Jazz", "Folk", "Opera")


def published(said: Sequence[Edit], *months: People, begin_named: Sequence[str] = NAMES) -> list[Edited]:
    """The segments of 2024-01, 2024-02, … as they are published; clusters are called by the letters in NAMES' place."""
    state, before, found = None, None, []
    for number, people in enumerate(months, 1):
        name, k = f"2024-{number:02}", int(people.group.max()) + 1
        taken, kept = reserved(said, name)
        state = (
            begin(name, people, k, begin_named, taken)
            if state is None
            else follow(state, name, people, k, begin_named, None, 0, taken, kept)
        )
        before = edit_segments(state, said, before)
        found.append(before)
    return found


def names(after: Edited) -> dict[int, str]:
    return {segment.id: segment.name for segment in after.state.living}


THREE = [[A], [B], [C]]


# --- names


def test_a_name_lasts_from_its_month_on_and_months_before_have_the_old_one() -> None:
    months = [month(seed, THREE) for seed in (1, 2, 3)]
    first, second, third = published([Rename(segment=2, name="Bebop", from_month="2024-02")], *months)
    assert [names(each)[2] for each in (first, second, third)] == ["Jazz", "Bebop", "Bebop"]
    assert ([each.how for each in (first, second)], third.state.events) == ([{}, {2: ["renamed"]}], ())


def test_the_last_name_counts_and_names_can_be_swapped() -> None:
    said = [Rename(segment=1, name="X"), Rename(segment=1, name="Jazz"), Rename(segment=2, name="Metal")]
    (first,) = published(said, month(1, THREE))
    assert names(first) == {1: "Jazz", 2: "Metal", 3: "Folk"}


@pytest.mark.parametrize(
    "said",
    [
        [Rename(segment=3, name="Jazz", from_month="2024-02")],
        [Rename(segment=2, name="Blues"), Rename(segment=3, name="Blues")],
    ],
)
def test_two_living_segments_with_one_name_are_an_error_that_names_both(said: Sequence[Edit]) -> None:
    with pytest.raises(InputError, match=r"segments 2 and 3 would both be called '(Jazz|Blues)' in 2024-0[12]"):
        published(said, month(1, THREE), month(2, THREE))


def test_a_new_segment_gets_no_name_that_a_person_gave_to_another() -> None:
    said = [Rename(segment=1, name="Opera")]
    _, second = published(said, month(1, THREE), month(2, [*THREE, [D]]))
    assert names(second) == {1: "Opera", 2: "Jazz", 3: "Folk", 4: "Opera (2)"}


# --- merges


def test_merged_segments_are_one_from_their_month_on_whatever_clusters_there_are() -> None:
    said = [Merge(segments=(1, 2), from_month="2024-02")]
    in_one = month(3, [[A, B], [C]])
    first, second, third, fourth = published(said, month(1, THREE), month(2, THREE), in_one, month(4, THREE))
    assert [sorted(names(each)) for each in (first, second, third, fourth)] == [[1, 2, 3], [1, 3], [1, 3], [1, 3]]
    assert [kinds(each.state) for each in (first, third, fourth)] == [[]] * 3
    assert second.state.groups == ((1,), (3,))
    assert second.state.group_of_cluster == (0, 0, 1), "the clusters of both are its"
    (event,) = second.state.events
    assert (event.kind, event.before, event.after, event.by_hand) == ("merge", (2, 1), (1,), True)
    ended = [segment.ended for segment in fourth.state.segments]
    assert ended == [None, "2024-02", None]
    assert second.how == {1: ["merged"], 2: ["merged"]}


def test_of_three_merged_of_four_the_next_month_is_not_taken_for_new() -> None:
    said = [Merge(segments=(3, 1)), Merge(segments=(3, 2))]
    _, second = published(said, month(1, [*THREE, [D]]), month(2, [[D], [C], [B], [A]]))
    assert names(second) == {3: "Folk", 4: "Opera"}
    assert kinds(second.state) == []


def test_a_merged_segment_lives_while_a_part_of_it_does_and_keeps_its_name_and_color() -> None:
    said = [Merge(segments=(3, 2))]
    called = ("Metal", "Jazz", "Folk")
    _, second, third = published(
        said,
        month(1, THREE),
        month(2, [[A], [B]]),  # of the segment, its first part is gone
        month(3, [[A], [B], [D]]),  # there is another, whom kmeans calls as that part was
        begin_named=called,
    )
    assert [kinds(second.state), kinds(third.state)] == [[], [("birth", (), (4,))]]
    assert names(third) == {1: "Metal", 3: "Folk", 4: "Folk (2)"}
    assert len({segment.color for segment in third.state.living}) == 3


def test_it_ends_when_its_last_part_does() -> None:
    _, second = published([Merge(segments=(1, 3))], month(1, [*THREE, [D]]), month(2, [[B], [D]]))
    assert [(event.kind, event.before) for event in second.state.events] == [("death", (1,))]


def test_a_split_of_one_part_is_a_split_of_the_segment() -> None:
    said = [Merge(segments=(2, 1))]
    _, second = published(said, month(1, [[liking(0, 1)], [C], [D]]), month(2, [[A], [B], [C], [D]]))
    (event,) = second.state.events
    assert (event.kind, event.before, event.after) == ("split", (2,), (2, 4))


def test_flows_and_sizes_of_merged_segments_are_those_of_their_parts() -> None:
    (first,) = published([Merge(segments=(1, 3))], month(1, THREE))
    assert first.state.groups == ((1,), (2,))
    assert first.sizes(np.array([5, 7, 11])).tolist() == [16, 7]
    returned = first.returned(Returned(np.array([[1, 2], [3, 4], [5, 6]]), np.array([10, 20, 30]), np.array([9, 9])))
    assert (returned.people.tolist(), returned.before.tolist()) == ([[6, 8], [3, 4]], [40, 20])


# --- segments that there are not


def test_an_edit_waits_for_its_segment_and_says_so() -> None:
    said = [Rename(segment=4, name="Opera buffa"), Merge(segments=(4, 2))]
    first, second = published(said, month(1, THREE), month(2, [*THREE, [D]]))
    assert names(first) == {1: "Metal", 2: "Jazz", 3: "Folk"}
    assert unknown_segments(said, "2024-01", first.into.keys()) == [
        "The edit that segment 4 is called 'Opera buffa' waits: until 2024-01 there is no segment 4.",
        "The edit that segment 2 is merged into 4 waits: until 2024-01 there is no segment 4.",
    ]
    assert names(second) == {1: "Metal", 3: "Folk", 4: "Opera buffa"}
    assert kinds(second.state) == [("birth", (), (4,)), ("merge", (2, 4), (4,))]
    assert unknown_segments(said, "2024-02", second.into.keys()) == []


def test_without_edits_nothing_is_changed() -> None:
    for after in published([], month(1, THREE), month(2, [[C], [A], [B], [D]]), month(3, [[A], [D]])):
        assert after.group.tolist() == list(range(len(after.state.groups)))
        assert after.how == {}
    assert kinds(after.state) != []


# --- k


def test_the_last_k_that_is_pinned_for_a_month_counts() -> None:
    said = [PinK(k=4), Rename(segment=1, name="X"), PinK(k=6, from_month="2024-03")]
    assert [pinned_k(said, month) for month in ("2024-02", "2024-03", "2024-04")] == [4, 6, 6]
    assert pinned_k(said[1:], "2024-02") is None


# --- fingerprints


def test_an_edit_changes_the_months_that_it_holds_for_and_no_other() -> None:
    config = SegmentsConfig()

    def chain(*said: Edit) -> list[str]:
        made: list[str] = []
        for number in (1, 2, 3):
            made.append(step_fingerprint(config, f"2024-0{number}", "c", made[-1] if made else None, said))
        return made

    def changed(*said: Edit) -> list[bool]:
        return [old != new for old, new in zip(chain(), chain(*said), strict=True)]

    assert changed(Rename(segment=1, name="X", from_month="2024-02")) == [False, True, True]
    assert changed(Merge(segments=(1, 2))) == [True, True, True]
    assert changed(PinK(k=3)) == [False, False, False], "it is the clusters' fingerprint that has it"
    assert chain(Rename(segment=1, name="X")) == chain(Rename(segment=1, name="X", by="me", at="now"))
    without = fingerprint(STEP, CODE_VERSION, {**config.fingerprinted(), "month": "2024-01"}, ["c"])
    assert chain()[0] == without


# --- the file


def test_a_file_may_be_written_by_hand_and_names_are_texts_whatever_they_look_like() -> None:
    text = """
# Agreed with the client.
- what: rename
  segment: 3
  name: yes
  from: 2024-03
  by: anna
  at: 2024-04-02
- {what: merge, segments: [3, 5, 7]}
- {what: pin_k, k: 4}
"""
    assert edits.parse_edits(text, "tea.yaml") == (
        Rename(segment=3, name="yes", from_month="2024-03", by="anna", at="2024-04-02"),
        Merge(segments=(3, 5, 7)),
        PinK(k=4),
    )


@pytest.mark.parametrize(
    "text", ["", "# Ours.\n- {what: pin_k, k: 4}", "- what: pin_k\n  k: 4\n", "[{what: pin_k, k: 4}]"]
)
def test_an_edit_is_added_as_a_line_and_removed_again(text: str) -> None:
    before = edits.parse_edits(text, "tea.yaml")
    said = Rename(segment=1, name="Käse: '2'", from_month="2024-03", by="anna")
    more = edits.append(text, said)
    assert edits.parse_edits(more, "tea.yaml") == (*before, said)
    if not text.startswith("["):
        assert more.startswith(text)
        assert len(more.splitlines()) == len(text.splitlines()) + 1
    assert edits.parse_edits(edits.remove(more, len(before) + 1), "tea.yaml") == before


def test_comments_stay_where_an_edit_is_removed() -> None:
    text = "# a\n- what: pin_k\n  k: 1\n\n# b\n- what: pin_k\n  k: 2\n# c\n"
    assert edits.remove(text, 1) == "# a\n\n# b\n- what: pin_k\n  k: 2\n# c\n"
    assert edits.remove(text, 2) == "# a\n- what: pin_k\n  k: 1\n\n# b\n# c\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("- {what: rename, segment: 3}", "edit 1: name: Field required"),
        ("- {what: pin_k, k: 2}\n- {what: pin_k, k: 0}", "edit 2: k: Input should be greater than or equal to 1"),
        ("- {what: split, segment: 3}", "edit 1: .*'rename', 'merge', 'pin_k'"),
        ("- {what: merge, segments: [3, 3]}", "edit 1: segments: name two segments or more, each once"),
        ("- {what: pin_k, k: 2, from: 2024-3}", "edit 1: from: a month is written YYYY-MM"),
        (
            "- {what: pin_k, k: 2}\n- {what: rename, segment: 1, name: A, name: B}",
            "line 2: the key 'name' is there twice",
        ),
        ("- what: pin_k\n  k: 2\n  k: 3\n", "line 3: the key 'k' is there twice"),
        ("[" * 1_000, "line 1: it is nested deeper than 100 levels"),
        ("- " * 500 + "x", "line 1: it is nested deeper than 100 levels"),
        ("- {what: pin_k, k: 2, from: ２０２４-03}", "edit 1: from: a month is written YYYY-MM"),
        ('- {what: rename, segment: 3, name: "a\\eb"}', "edit 1: name: a name has no control characters"),
        (f"- {{what: rename, segment: 3, name: {'x' * 81}}}", "edit 1: name: String should have at most 80"),
        ("<<<<<<< HEAD\n- {what: pin_k, k: 2}", "is not YAML: line 2: mapping values are not allowed"),
        ("what: pin_k", "holds no list of edits"),
    ],
)
def test_what_breaks_a_rule_is_named_with_file_and_entry_and_the_way_out(text: str, why: str) -> None:
    with pytest.raises(InputError, match=rf"^root/edits/tea.yaml.*{why}.*(Mend|Mend it)"):
        edits.parse_edits(text, "root/edits/tea.yaml")


# --- the job


@pytest.fixture(scope="module")
def made(local: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three months, of A, B and C; in the third C is gone."""
    return make_months(local, tmp_path_factory.mktemp("edits"))


def follow_with(local: Engine, root: Path, out: str, said: Sequence[Edit]) -> list[dict[str, Any]]:
    """Follow all months with a file of edits; each month's segments.json."""
    file, text = root / f"{out}.yaml", ""
    for edit in said:
        text = edits.append(text, edit)
    file.write_text(text)
    found: list[dict[str, Any]] = []
    for number, name in enumerate(ACTIONS_MONTHS):
        folder = root / out / name
        given = ["--previous", root / out / ACTIONS_MONTHS[number - 1]] if number else []
        clusters, inputs = root / "clusters" / name, root / "inputs" / name
        local.run("follow_segments", clusters, inputs, folder, "--month", name, "--edits", file, *given)
        found.append(json.loads((folder / "segments.json").read_text()))
    return found


def test_the_job_shows_edits_as_edits_and_counts_people_of_merged_segments_together(made: Path, local: Engine) -> None:
    ends = json.loads((made / "segments" / "2024-03" / "segments.json").read_text())["events"][0]["before"][0]
    one, two = ({1, 2, 3}) - {ends}
    said = [
        Merge(segments=(one, two), from_month="2024-02"),
        Rename(segment=ends, name="Folk"),
        Rename(segment=9, name="X"),
    ]
    first, second, third = follow_with(local, made, "edited", said)

    def of(month: dict[str, Any], field: str) -> list[Any]:
        rows = {row["segment_id"]: row for row in month["segments"]}
        return [rows[number][field] for number in (one, two, ends)]

    assert of(first, "edited") == [[], [], ["renamed"]]
    assert of(second, "edited") == [["merged"], ["merged"], ["renamed"]]
    assert of(second, "people") == [120, None, 60]
    assert of(second, "ended") == [None, "2024-02", None]
    assert [len(ids) for ids in of(second, "cluster_ids")] == [2, 0, 1]
    (event,) = second["events"]
    assert (event["kind"], event["by_hand"]) == ("merge", True)
    assert event["what"].endswith("by hand.")
    (death,) = third["events"]
    assert death["what"].startswith("“Folk” is gone")
    assert first["edits_waiting"] == [
        "The edit that segment 9 is called 'X' waits: until 2024-01 there is no segment 9."
    ]
    assert [len(each["edits"]) for each in (first, second)] == [2, 3]
    rows = pq.read_table(made / "edited" / "2024-02" / "flows.parquet").to_pylist()
    assert {(str(row["from_segments"]), str(row["to_segments"])) for row in rows} >= {
        (f"[{n}]", f"[{one}]") for n in (one, two)
    }
    for name in ACTIONS_MONTHS:
        manifest = outputs.read_manifest(str(made / "edited" / name), "segments")
        assert {found["why"] for found in manifest["checks"].values()} == {""}


def test_undone_edits_leave_the_bytes_of_before(made: Path, local: Engine) -> None:
    assert follow_with(local, made, "undone", []) == [
        json.loads((made / "segments" / name / "segments.json").read_text()) for name in ACTIONS_MONTHS
    ]
    for name in ACTIONS_MONTHS:
        for file in ("segments.json", "flows.parquet", "members.parquet", "state.json"):
            assert (made / "undone" / name / file).read_bytes() == (made / "segments" / name / file).read_bytes()
