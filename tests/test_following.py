"""Segments from month to month: who is who, what happened, and what is chance."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from benchmarks.following import measure, report, times
from benchmarks.following.partitions import cluster
from benchmarks.following.series import generate
from spark_jobs import outputs
from spark_jobs.config import SegmentsConfig
from spark_jobs.errors import InputError
from spark_jobs.follow_segments import step_fingerprint
from spark_jobs.following import files
from spark_jobs.following.follow import Returned, begin, follow
from spark_jobs.following.state import State
from spark_jobs.following.tastes import People, apart, tastes
from tests.conftest import Engine

COMMON, OWN = 10, 6
PAGES = tuple(f"p{page:02}" for page in range(COMMON + 5 * OWN))


def liking(*segments: int) -> np.ndarray:
    """What people like who are of all these segments at once: half of their visits are to pages of the segments."""
    liked = np.zeros(len(PAGES))
    liked[:COMMON] = 0.5 / COMMON
    for segment in segments:
        liked[COMMON + segment * OWN :][:OWN] += 0.5 / OWN / len(segments)
    return liked


def month(seed: int, groups: Sequence[Sequence[np.ndarray]], people: int = 120) -> People:
    """People of some clusters: of each, so many of every taste in it."""
    random = np.random.default_rng(seed)
    rows, labels = [], []
    for number, of_group in enumerate(groups):
        for liked in of_group:
            rows.append(random.multinomial(4 + random.poisson(6, people), liked) > 0)
            labels += [number] * people
    return People(sp.csr_matrix(np.concatenate(rows).astype(float)), np.array(labels), PAGES)


def after(*months: People, returned: Returned | None = None) -> list[State]:
    """The segments after each month; nobody is known to have stayed but into the last."""
    states: list[State] = []
    for number, people in enumerate(months):
        k = int(people.group.max()) + 1
        names = [f"cluster {cluster}" for cluster in range(k)]
        if not states:
            states.append(begin("2024-01", people, k, names))
        else:
            stayed = returned if number == len(months) - 1 else None
            states.append(follow(states[-1], f"2024-{number + 1:02}", people, k, names, stayed))
    return states


A, B, C, D = (liking(segment) for segment in range(4))


# --- who is who


def test_a_segment_keeps_id_name_and_color_where_nobody_stays_and_clusters_are_numbered_anew() -> None:
    first, second = after(month(1, [[A], [B], [C]]), month(2, [[C], [A], [B]]))
    assert first.groups == ((1,), (2,), (3,))
    assert second.groups == ((3,), (1,), (2,))
    assert [(s.id, s.name, s.color) for s in second.segments] == [(s.id, s.name, s.color) for s in first.segments]
    assert second.events == ()


def test_a_cut_too_few_and_a_cut_too_many_are_no_events() -> None:
    both = month(4, [[A], [B], [C]])
    odd = np.where((both.group == 2) & (np.arange(len(both.group)) % 2 == 0), 3, both.group)
    states = after(
        month(1, [[A], [B], [C]]),
        month(2, [[A, B], [C]]),  # A and B are in one cluster
        month(3, [[A], [B], [C]]),
        People(both.visits, odd, PAGES),  # C is cut in two by chance
    )
    assert [state.events for state in states] == [()] * 4
    assert [len(state.living) for state in states] == [3] * 4
    assert set(states[1].groups[0]) == {1, 2}
    assert states[2].groups == ((1,), (2,), (3,))
    assert states[3].groups == ((1,), (2,), (3,)), "both parts of C are C"


def test_what_is_told_apart_late_is_not_an_event() -> None:
    _, second = after(month(1, [[A, B], [C]]), month(2, [[A], [B], [C]]))
    assert second.events == ()
    assert list(second.told_apart.values()) == [1]


def test_other_pages_in_the_category_leave_segments_what_they_are() -> None:
    people = month(2, [[A], [B], [C]])
    kept = [page for page in range(len(PAGES)) if page % 4]  # a quarter is gone, and there are others
    fresh = np.random.default_rng(0).random((len(people.group), 5)) < 0.2
    visits = sp.csr_matrix(sp.hstack([people.visits[:, kept], sp.csr_matrix(fresh.astype(float))]))
    relisted = People(visits, people.group, (*(PAGES[page] for page in kept), *(f"new{n}" for n in range(5))))
    _, second = after(month(1, [[A], [B], [C]]), relisted)
    assert second.groups == ((1,), (2,), (3,))
    assert second.events == ()


@pytest.mark.parametrize("clusters", [0, 1])
def test_a_month_without_segments_ends_none(clusters: int) -> None:
    (first,) = after(month(1, [[A], [B], [C]]))
    nobody = month(2, [[A]], people=3)
    second = follow(first, "2024-02", nobody, clusters, ["Everybody"] * clusters, None)
    assert second.events == ()
    third = follow(second, "2024-03", month(3, [[B], [A], [C]]), 3, list("xyz"), None)
    assert third.groups == ((2,), (1,), (3,))


# --- what happened


def kinds(state: State) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    return [(event.kind, event.before, event.after) for event in state.events]


def test_a_birth() -> None:
    _, second = after(month(1, [[A], [B]]), month(2, [[A], [B], [C]]))
    assert kinds(second) == [("birth", (), (3,))]


def test_a_death_and_a_return() -> None:
    _, second, third = after(month(1, [[A], [B], [C]]), month(2, [[A], [B]]), month(3, [[C], [A], [B]]))
    assert kinds(second) == [("death", (3,), ())]
    assert kinds(third) == [("return", (), (3,))]
    assert third.groups == ((3,), (1,), (2,))


def test_a_split() -> None:
    first, second = after(month(1, [[liking(0, 1)], [C]]), month(2, [[A], [B], [C]]))
    (event,) = second.events
    assert (event.kind, event.before, len(event.after)) == ("split", (1,), 2)
    assert event.after[0] == first.groups[0][0], "one of both is what there was"


def test_a_merge() -> None:
    _, second = after(month(1, [[A], [B], [C]]), month(2, [[liking(0, 1)], [C]]))
    (event,) = second.events
    assert event.kind == "merge"
    assert set(event.before) == {1, 2}
    assert [segment.id for segment in second.living] == sorted({*event.after, 3})


def test_people_who_stay_and_like_other_things_are_the_same_segment() -> None:
    stayed = Returned(np.array([[50, 0], [2, 60]]), np.array([120, 120]), np.array([120, 120]))
    first, second = after(month(1, [[A], [B]]), month(2, [[C], [B]]), returned=stayed)
    assert second.groups == first.groups
    assert kinds(second) == [("change", (1,), (1,))]


# --- one group or two


@pytest.mark.parametrize(("groups", "expected"), [([A, B], 1.0), ([liking(0, 1)], 0.0), ([A], 0.0)])
def test_people_are_as_far_apart_as_their_tastes(groups: list[np.ndarray], expected: float) -> None:
    learned = month(1, [[A], [B]]).likes(2)
    found = apart(month(2, [groups], people=400).visits, *tastes(learned, learned.sum(axis=0)))
    assert found.share == pytest.approx(expected, abs=0.2)
    assert (found.are_two, found.are_one) == (expected == 1, expected == 0)


def test_of_a_handful_of_people_nothing_is_clear() -> None:
    found = apart(month(2, [[A, B]], people=5).visits, A + 1e-3, B + 1e-3)
    assert not found.are_one
    assert not found.are_two


# --- generated series, clustered by our own k-means


def test_series_of_a_year_are_followed() -> None:
    total = measure.Score()
    for seed in (1, 8, 10):  # with deaths, a split, a merge and a birth; and without any event
        series = generate(seed)
        clustered = cluster(series, choose_k=False)
        for members in (True, False):
            total.add(measure.score(series, clustered, measure.states(clustered, members)))
    assert total.f1 >= 0.9, total.errors
    assert total.identity >= 0.95, total.errors
    assert total.false_in_100 <= 1, total.errors


def test_what_the_benchmark_measured_is_the_same_after_it_was_kept_as_json() -> None:
    score = measure.Score(
        Counter(split=3), Counter(birth=1), Counter(merge=1), kept=39, lost=1, stable=50, errors=["x"]
    )
    row = measure.Measured(7, 0.2, True, "stay", score).as_row()
    assert json.loads(json.dumps(row)) == row
    page = report.page([row, {**row, "seed": 8}])
    assert "| chosen | 20 to 80 %, and it is known who | 2 | 8 | 0.750 | 100 | 2.00 | 0.975 |" in page
    assert "| split | 1.000 (6 of 6, 0 false) |" in page
    assert "| 20% | 2 | 0.975 of 100 |" in page


# --- the job

ACTIONS_MONTHS = ("2024-01", "2024-02", "2024-03")


@pytest.fixture(scope="module")
def made(local: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_months(local, tmp_path_factory.mktemp("following"))


def make_months(local: Engine, root: Path) -> Path:
    """Three months of three groups of people, 60 each; half of them stay, and in the third month C is gone."""
    (root / "tea.json").write_text(json.dumps({"id": 1, "facebook": [{"id": page, "name": page} for page in PAGES]}))
    for number, name in enumerate(ACTIONS_MONTHS):
        raw = root / "raw" / f"month={name}"
        raw.mkdir(parents=True)
        tastes_ = [A, B, C][: 3 if number < 2 else 2]
        people = month(number, [[liked] for liked in tastes_], people=60)
        ids = [f"u{group}-{30 * number + place % 60:03}" for place, group in enumerate(people.group)]
        visits = people.visits.tocoo()
        rows = [
            {"user_id": ids[person], "page_id": PAGES[page], "action": "page_like", "count": 2}
            for person, page in zip(visits.row, visits.col, strict=True)
        ]
        (raw / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        grouped, inputs, clusters = (root / step / name for step in ("grouped", "inputs", "clusters"))
        local.run("group_by_user", raw, grouped)
        local.run("make_clustering_inputs", grouped, inputs, "--category", root / "tea.json")
        local.run("kmeans", inputs, clusters, "--k", len(tastes_))
        follow_month(local, root, name)
    return root


def follow_month(local: Engine, root: Path, name: str, out: str = "segments", previous: str | None = None) -> Path:
    """Run the job on a month, after the month before it."""
    before = [root / "segments" / each for each in ACTIONS_MONTHS if each < name][-1:]
    given = ["--previous", previous or before[0]] if previous or before else []
    folder = root / out / name
    local.run("follow_segments", root / "clusters" / name, root / "inputs" / name, folder, "--month", name, *given)
    return folder


def read(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "segments.json").read_text())
    return content


def test_the_job_keeps_ids_and_says_what_happened(made: Path) -> None:
    first, second, third = (read(made / "segments" / name) for name in ACTIONS_MONTHS)
    assert [segment["segment_id"] for segment in first["segments"]] == [1, 2, 3]
    assert [(s["segment_id"], s["name"], s["color"]) for s in second["segments"]] == [
        (s["segment_id"], s["name"], s["color"]) for s in first["segments"]
    ]
    assert (first["events"], second["events"]) == ([], [])
    (event,) = third["events"]
    assert event["kind"] == "death"
    assert event["what"].endswith("is gone: hardly anybody is like that any more.")
    assert third["since"] == "2024-02"


def test_all_its_checks_pass(made: Path) -> None:
    for name in ACTIONS_MONTHS:
        checks = outputs.read_manifest(str(made / "segments" / name), "segments")["checks"]
        assert {check: found["why"] for check, found in checks.items()} == dict.fromkeys(
            ("schema", "every_user_once", "segments_are_somewhere"), ""
        )


def test_flows_count_who_stayed_came_and_left(made: Path) -> None:
    rows = pq.read_table(made / "segments" / "2024-02" / "flows.parquet").to_pylist()
    people = {(str(row["from_segments"]), str(row["to_segments"])): row["people"] for row in rows}
    for segment in ("[1]", "[2]", "[3]"):
        assert people[segment, segment] == pytest.approx(30, abs=10)
        assert people["None", segment] == pytest.approx(30, abs=10)
        assert people[segment, "None"] == pytest.approx(30, abs=10)


def test_nothing_is_said_of_fewer_than_ten_people(made: Path) -> None:
    for name in ACTIONS_MONTHS:
        rows = pq.read_table(made / "segments" / name / "flows.parquet")["people"].to_pylist()
        said = [*rows, *(segment["people"] for segment in read(made / "segments" / name)["segments"])]
        assert all(people is None or (people >= 10 and people % 10 == 0) for people in said)


def test_the_history_has_each_month_as_it_was_published(made: Path) -> None:
    all_months = [read(made / "segments" / name) for name in ACTIONS_MONTHS]
    history = all_months[-1]["history"]
    assert [month["month"] for month in history] == list(ACTIONS_MONTHS)
    for told, published in zip(history, all_months, strict=True):
        assert published["history"][-1] == told, "what was said of a month is carried over, not computed again"
        assert told["events"] == published["events"]
        living = [segment for segment in published["segments"] if segment["ended"] is None]
        columns = ("segment_id", "people", "share", "shares_them_with")
        assert told["segments"] == [{column: segment[column] for column in columns} for segment in living]
    assert [month["users"] for month in history] == [180, 180, 120]
    assert [month["month_users"] for month in history] == [180, 180, 120], "for the reports of later months"
    assert [len(month["segments"]) for month in history] == [3, 3, 2], "who has ended is in it until then"
    manifest = outputs.read_manifest(str(made / "segments" / "2024-03"), "segments")
    assert manifest["summary"]["history"] == history


def test_a_long_history_keeps_the_last_three_years() -> None:
    (state,) = after(month(1, [[A], [B]]))
    history: list[dict[str, Any]] = []
    for number in range(40):
        history = files.describe(state, np.array([9, 104]), None, 10, history)["history"]
        assert len(history) == min(number + 1, 36)
    assert [segment["people"] for segment in history[0]["segments"]] == [None, 100]
    assert history[0]["users"] == 110


def test_segments_that_an_earlier_version_followed_have_no_history_to_go_on_from(tmp_path: Path) -> None:
    (tmp_path / "segments.json").write_text(json.dumps({"month": "2024-01", "segments": [], "events": []}))
    assert files.read_history(str(tmp_path)) == []


def test_a_report_shows_what_the_job_made(made: Path, local: Engine, tmp_path: Path) -> None:
    clusters, segments = made / "clusters" / "2024-03", made / "segments" / "2024-03"
    named = ["--month", "2024-03", "--category", "tea", "--segments", segments]
    local.run("make_report", clusters, tmp_path / "report", *named)
    page = (tmp_path / "report" / "report.html").read_text()
    living = [segment["name"] for segment in read(segments)["segments"] if segment["ended"] is None]
    assert all(f"</span> {name}</h3>" in page for name in living)
    assert read(segments)["events"][0]["what"] in page
    assert 'id="sizes"' in page
    assert 'id="flows"' in page
    assert "u0-0" not in page, "no user is in it"


def test_the_state_is_read_as_it_was_written(made: Path, tmp_path: Path) -> None:
    state = files.read_state(str(made / "segments" / "2024-03"))
    assert state.month == "2024-03"
    assert [seen.month for seen in state.seen] == ["2024-03", "2024-02", "2024-01"]
    assert state.seen[0].people.visits.shape[1] == len(PAGES)
    output = outputs.Output(str(tmp_path), finished=False)
    files.write_state(output, state)
    for name in ("state.json", "people.parquet"):
        assert (tmp_path / name).read_bytes() == (made / "segments" / "2024-03" / name).read_bytes()


def test_the_same_month_again_gives_the_same_bytes(made: Path, local: Engine) -> None:
    again = follow_month(local, made, "2024-02", out="again")
    for file in ("segments.json", "flows.parquet", "members.parquet", "state.json", "people.parquet"):
        assert (again / file).read_bytes() == (made / "segments" / "2024-02" / file).read_bytes()


def test_a_month_made_again_makes_what_follows_again_and_nothing_else() -> None:
    config = SegmentsConfig()

    def chain(clusters: Sequence[str]) -> list[str]:
        made: list[str] = []
        for number, of_month in enumerate(clusters):
            made.append(step_fingerprint(config, f"2024-{number + 1:02}", of_month, made[-1] if made else None))
        return made

    before, after_ = chain(["a", "b", "c"]), chain(["a", "x", "c"])
    assert [old == new for old, new in zip(before, after_, strict=True)] == [True, False, False]


def test_segments_go_on_from_an_earlier_month_only(made: Path, local: Engine) -> None:
    with pytest.raises(InputError, match="which is not before 2024-02"):
        follow_month(local, made, "2024-02", out="refused", previous=str(made / "segments" / "2024-03"))


def test_what_the_times_of_following_are_measured_on_can_be_clustered(local: Engine, tmp_path: Path) -> None:
    times.write_inputs(tmp_path / "inputs", users=2_000, first=0, seed=0)
    local.run("kmeans", tmp_path / "inputs", tmp_path / "clusters", "--k", 2, "--strict-schema", "true")
    assert json.loads((tmp_path / "clusters" / "summary.json").read_text())["actions"] is not None
