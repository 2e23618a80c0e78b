"""What is followed again when a month before changed: against a root on disk, without jobs and Dagster's database."""

from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import GROUPED_USERS, KMEANS, SEGMENTS, Target
from audience_explorer_dagster.planning.decisions import Impossible, Source
from audience_explorer_dagster.planning.following import Following
from audience_explorer_dagster.planning.plan import Plan
from audience_explorer_dagster.running import following, inputs
from audience_explorer_dagster.store import Store
from spark_jobs.errors import InputError

DECEMBER, JANUARY, FEBRUARY, MARCH = (Partition(month, "tea") for month in ("2023-12", "2024-01", "2024-02", "2024-03"))
MILK = Partition("2024-02", "milk")
CONFIG: Any = "the run's config"
LAUNCHER: Any = "the launcher"


class Root:
    """A root with current outputs, and which segments are on record."""

    def __init__(self, folder: Path):
        self.store = Store(root=str(folder))
        self.on_record: set[str] = set()
        self.said: list[str] = []
        instance = SimpleNamespace(get_materialized_partitions=self._materialized)
        log = SimpleNamespace(info=self.said.append)
        self.context: Any = SimpleNamespace(instance=instance, log=log)

    def _materialized(self, asset: dg.AssetKey) -> set[str]:
        assert asset == dg.AssetKey(SEGMENTS)
        return self.on_record

    def add(self, partition: Partition, name: str, asset: str = SEGMENTS, there: bool = True) -> Source:
        """Make an output current, with a fingerprint that is `f-` and its name."""
        folder = Path(self.store.outputs(asset, partition), name)
        folder.mkdir(parents=True)
        if there:
            manifest = f'{{"step": "{asset}", "fingerprint": "f-{name}", "files": [], "summary": {{}}}}'
            (folder / "manifest.json").write_text(manifest)
        self.store.point_current(asset, partition, str(folder), f"f-{name}")
        if asset == SEGMENTS:
            self.on_record.add(partition.key)
        return Source(Target(asset, partition), f"f-{name}", str(folder))

    def before(self, *partitions: Partition) -> dict[Partition, Source]:
        return following._segments_before(self.context.instance, self.store, partitions)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


# --- what a month is followed from


def test_a_month_is_followed_from_the_last_one_before_it_that_has_segments(root: Root) -> None:
    december, february = root.add(DECEMBER, "december"), root.add(FEBRUARY, "february")
    root.add(MILK, "milk")
    assert root.before(DECEMBER, JANUARY, FEBRUARY, MARCH) == {
        JANUARY: december,
        FEBRUARY: december,
        MARCH: february,
    }
    assert root.before(Partition("2024-03", "other")) == {}


def test_a_month_whose_segments_are_gone_is_passed_over(root: Root) -> None:
    december = root.add(DECEMBER, "december")
    root.add(FEBRUARY, "gone", there=False)
    root.on_record.add(JANUARY.key)  # and it has no current output
    assert root.before(MARCH) == {MARCH: december}


def test_what_an_earlier_version_made_current_without_a_fingerprint_is_none_to_go_on_from(root: Root) -> None:
    made = root.add(JANUARY, "january")
    file = Path(str(made.folder)).parent / "current.json"
    file.write_text(file.read_text().replace('"fingerprint": "f-january"', '"fingerprint": null'))
    assert root.before(FEBRUARY) == {}


def test_later_months_of_the_same_category_follow(root: Root) -> None:
    for partition in (DECEMBER, JANUARY, FEBRUARY, MARCH, MILK):
        root.on_record.add(partition.key)
    later = following._later(root.context.instance, [JANUARY, Partition("2024-03", "milk")])
    assert later == {FEBRUARY, MARCH}
    assert following._later(root.context.instance, []) == set()


def test_what_people_say_is_read_once_a_category(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    january = root.add(JANUARY, "january")
    asked: list[list[str]] = []
    monkeypatch.setattr(following, "edits_of_segments", lambda _, names: asked.append(names) or {"tea": ()})
    found = following.find_following(root.context.instance, root.store, {FEBRUARY, MARCH, MILK})
    assert found == Following({FEBRUARY: january, MARCH: january}, {"tea": ()})
    assert asked == [["milk", "tea"]]


# --- following again, until nothing changes


class Rounds:
    """Notes what is planned and carried out; each plan has something to do for as many rounds as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rounds: int):
        self.rounds = rounds
        self.planned: list[set[Partition]] = []
        self.carried_out: list[Plan] = []
        self.next: list[dict[Partition, Source]] = []  # what is followed from what, as each plan has it
        monkeypatch.setattr(following, "_plan", self._plan)
        monkeypatch.setattr(following, "carry_out", self._carry_out)

    def _plan(self, _i: Any, _s: Store, partitions: set[Partition], config: Any) -> tuple[Plan, Following]:
        assert config is CONFIG
        self.planned.append(set(partitions))
        decisions: Any = {Target(SEGMENTS, p): Impossible("") for p in partitions} if self.rounds > 0 else {}
        self.rounds -= 1
        return Plan(decisions), Following(self.next.pop(0) if self.next else {})

    def _carry_out(self, _context: Any, plan: Plan, launcher: Any, _store: Store, records: Any) -> None:
        assert launcher is LAUNCHER
        assert records[SEGMENTS].partitions == sorted(self.planned[-1])
        assert records[GROUPED_USERS].partitions == sorted({Partition(p.month) for p in self.planned[-1]})
        self.carried_out.append(plan)


def follow_on(root: Root, made: Collection[Partition], followed: Following | None) -> None:
    following.follow_on(root.context, made, followed, CONFIG, LAUNCHER, root.store)


def test_nothing_is_made_again_that_is_followed_from_what_there_is_now(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    january = root.add(JANUARY, "january")
    rounds = Rounds(monkeypatch, 0)
    follow_on(root, [FEBRUARY], Following({FEBRUARY: january}))
    assert (rounds.planned, rounds.carried_out, root.said) == ([set()], [], [])


def test_a_month_is_followed_again_if_the_one_before_changed_meanwhile_and_so_are_later_ones(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    january = root.add(JANUARY, "january")
    root.on_record |= {FEBRUARY.key, MARCH.key}
    rounds = Rounds(monkeypatch, 1)
    rounds.next = [{FEBRUARY: january, MARCH: january}]
    follow_on(root, [FEBRUARY], Following({FEBRUARY: Source(january.target, "f-earlier", january.folder)}))
    assert rounds.planned == [{FEBRUARY, MARCH}, {MARCH}], "and once more, whether March still is as it should be"
    assert [len(plan.decisions) for plan in rounds.carried_out] == [2]
    assert root.said == ["2 partitions follow from what changed"]


def test_later_months_are_looked_at_though_the_month_itself_is_as_it_should_be(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.on_record |= {FEBRUARY.key, MARCH.key}
    rounds = Rounds(monkeypatch, 0)
    follow_on(root, [JANUARY], Following())
    assert rounds.planned == [{FEBRUARY, MARCH}]


def test_where_it_is_not_known_what_was_followed_all_is_planned_again(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = Rounds(monkeypatch, 0)
    follow_on(root, [JANUARY, MILK], None)
    assert rounds.planned == [{JANUARY, MILK}]


def test_runs_that_change_it_again_and_again_are_followed_five_times(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.add(JANUARY, "january")
    rounds = Rounds(monkeypatch, 100)
    follow_on(root, [FEBRUARY], Following())
    assert len(rounds.carried_out) == 5


def test_a_plan_is_made_from_the_current_clusters_and_segments(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    clusters, segments = root.add(FEBRUARY, "clusters", KMEANS), root.add(FEBRUARY, "segments")
    before = root.add(JANUARY, "january")
    given: list[Any] = []
    monkeypatch.setattr(following, "plan_following", lambda *of: given.extend(of) or Plan({}))
    plan, found = following._plan(root.context.instance, root.store, {FEBRUARY, MILK}, CONFIG)
    assert given[:4] == [{FEBRUARY: clusters}, found, {FEBRUARY: segments.fingerprint}, CONFIG]
    assert found.before == {FEBRUARY: before}
    assert (given[4][SEGMENTS].partitions, given[5]) == (sorted({FEBRUARY, MILK}), root.store)
    assert plan == Plan({})
    assert following._plan(root.context.instance, root.store, set(), CONFIG) == (Plan({}), Following())


# --- what plans are made from


def test_an_error_of_the_input_is_an_answer_and_any_other_is_not() -> None:
    def ask(key: str) -> str:
        if key == "bad":
            raise InputError("it is bad")
        if key == "worse":
            raise ZeroDivisionError
        return key.upper()

    good, bad = inputs._ask_all(["good", "bad"], ask).values()
    assert (good, type(bad), str(bad)) == ("GOOD", InputError, "it is bad")
    with pytest.raises(ZeroDivisionError):
        inputs._ask_all(["worse"], ask)


def test_months_categories_and_edits_have_fingerprints_or_what_is_wrong_with_them(root: Root) -> None:
    store = root.store
    for name, text in (("raw/month=2024-01/a.csv", "x"), ("categories/tea.json", "{}"), ("edits/milk.yaml", "- 1")):
        file = Path(store.root, name)
        file.parent.mkdir(parents=True)
        file.write_text(text)
    january, february = Partition("2024-01"), Partition("2024-02")
    files = inputs.list_raw_files(store, [january, february])
    assert isinstance(files[february], InputError)
    found = inputs.raw_fingerprints(files)
    assert found[february] is files[february]
    assert isinstance(found[january], str)
    categories = inputs.category_fingerprints(store, ["tea", "none", "../bad"])
    assert list(categories) == ["tea", "none", "../bad"]
    assert all(isinstance(each, InputError) for each in categories.values())
    edits = inputs.edits_of_segments(store, ["tea", "milk"])
    assert edits["tea"] == ()
    assert isinstance(edits["milk"], InputError)


def test_plans_need_the_records_of_all_steps_and_of_users_those_of_their_months() -> None:
    needed = inputs.needed_records([MARCH, JANUARY, Partition("2024-01", "milk")])
    assert needed.pop(GROUPED_USERS) == [Partition("2024-01"), Partition("2024-03")]
    assert set(needed) == {"clustering_inputs", "k_selection", "kmeans", "segments", "audience_report"}
    assert all(partitions == [MARCH, JANUARY, Partition("2024-01", "milk")] for partitions in needed.values())
