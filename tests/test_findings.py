"""What a materialization says first: what was found, how sure it is, and what to do, in words for an analyst."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from audience_explorer_dagster.categories.known import sync_categories
from audience_explorer_dagster.cli.demo_results import demo_results
from audience_explorer_dagster.definitions import definitions
from audience_explorer_dagster.records import metadata, pictures
from audience_explorer_dagster.run_config import MonthRunConfig
from audience_explorer_dagster.running.pipeline import Outcome, run_pipeline
from audience_explorer_dagster.store import Store
from spark_jobs import demo_audience
from spark_jobs.config import FIT_MIN_ACTIONS, KMeansConfig, KSelectionConfig
from tests.project import InProcessLauncher

if TYPE_CHECKING:
    from matplotlib.figure import Figure

pytestmark = pytest.mark.filterwarnings("ignore")

MONTH = demo_audience.MONTHS[0]
ACTIVE = f"at least {FIT_MIN_ACTIONS} actions"
TEXTS = ("finding", "how_sure", "what_to_do")


# --- the demo, with all defaults -------------------------------------------------------------------------------------


def on_one_line(text: Any) -> str:
    """A text without the line breaks that are for the UI."""
    return str(text).replace("  \n", " ")


class Demo:
    """A month of the demo, with fewer users."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance):
        self.root = str(folder / "root")
        demo_audience.make(self.root, users=4000)
        sync_categories(instance, Store(root=self.root))
        project = definitions(self.root, InProcessLauncher())
        self.outcomes: list[Outcome] = run_pipeline(
            project, instance, [MONTH], list(demo_audience.CATEGORIES), MonthRunConfig(), lambda _: None
        )
        self._instance = instance

    def record(self, asset: str, category: str) -> dict[str, Any]:
        """The metadata of a record, in its order."""
        wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[f"{category}|{MONTH}"])
        (found,) = self._instance.fetch_materializations(wanted, limit=2).records
        assert found.asset_materialization is not None
        return {
            name: on_one_line(value.value) if name in TEXTS else value.value
            for name, value in found.asset_materialization.metadata.items()
        }


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("demo")
    (folder / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(folder / "dagster")) as instance:
        yield Demo(folder, instance)


@pytest.mark.parametrize("asset", ["k_selection", "kmeans"])
@pytest.mark.parametrize("category", list(demo_audience.CATEGORIES))
def test_the_verdict_and_what_to_do_come_first(demo: Demo, asset: str, category: str) -> None:
    assert list(demo.record(asset, category))[:4] == ["verdict", *TEXTS]


def test_where_there_are_segments_the_record_says_how_many_and_how_sure(demo: Demo) -> None:
    record = demo.record("k_selection", "coffee")
    assert (record["verdict"], record["k"]) == ("segments", demo_audience.planted("coffee"))
    assert record["finding"].startswith(f"4 segments among {record['users']:,} people. The smallest has about ")
    assert record["how_sure"].startswith("Very sure that there are segments: the evidence is ")
    assert "at most 1 in 100 audiences without segments" in record["how_sure"]
    assert f"Judged on {record['fit_users']:,} people with {ACTIVE}." in record["how_sure"]
    assert "See kmeans of this partition" in record["what_to_do"]


def test_where_there_are_no_segments_the_record_says_what_that_means(demo: Demo) -> None:
    record = demo.record("k_selection", "news")
    assert (record["verdict"], record["k"]) == ("none", 1)
    assert record["finding"].startswith(f"No segments among {record['users']:,} people: ")
    assert "3.5 is needed" in record["how_sure"]
    assert "Treat these people as one audience" in record["what_to_do"]
    assert "pool this category with related ones" in record["what_to_do"]
    assert "give kmeans a k: the pieces are then arbitrary" in record["what_to_do"]


def test_where_there_are_too_few_people_the_record_says_how_many_are_needed(demo: Demo) -> None:
    record = demo.record("k_selection", "beekeeping")
    assert (record["verdict"], record["k"]) == ("too_few", 1)
    assert record["finding"] == (
        f"Too few people to tell: {record['fit_users']} of {record['users']} people have {ACTIVE}, and 50 are needed."
    )
    assert f"lower fit_min_actions (now {FIT_MIN_ACTIONS})" in record["what_to_do"]
    assert "picture" not in record, "no k was tried"
    assert "tried" not in record


def test_clusters_say_who_they_were_learned_from_and_how_solid_each_is(demo: Demo) -> None:
    record = demo.record("kmeans", "coffee")
    assert record["finding"] == (
        f"4 clusters of {record['users']:,} people. k is the number of segments that k_selection found. The clusters"
        f" were learned from the {record['fit_users']:,} people with {ACTIVE}; everybody was then placed in"
        " the nearest one."
    )
    assert record["fit_users"] < record["users"]
    assert record["solidity"] == "4 solid"
    assert record["how_sure"].startswith("4 solid. A solid cluster is found again among other people like these")
    assert [row.data["solidity"] for row in record["segments"].records] == ["solid"] * 4


def test_segments_are_shown_by_name_with_rounded_people_and_what_they_are_into(demo: Demo) -> None:
    rows = [row.data for row in demo.record("kmeans", "coffee")["segments"].records]
    own = {name: group for group, names in demo_audience.CATEGORIES["coffee"].items() for name in names}
    assert {own[row["name"].split(", ")[0]] for row in rows} == set(own.values()) - {"everybody"}
    for row in rows:
        assert int(row["people"].replace(",", "")) % 10 == 0
        assert all(own[page.rpartition(" (")[0]] == own[row["name"].split(", ")[0]] for page in row["into"].split(", "))
        assert "page likes" in row["actions"]


@pytest.mark.parametrize(("category", "found"), [("news", "no segments"), ("beekeeping", "too few people")])
def test_without_segments_everybody_is_one_cluster_which_is_neither_solid_nor_doubtful(
    demo: Demo, category: str, found: str
) -> None:
    record = demo.record("kmeans", category)
    assert (
        f"1 cluster of {record['users']:,} people. k_selection found {found}, so everybody is in" in record["finding"]
    )
    assert "one audience" in record["what_to_do"]
    assert "solidity" not in record
    row = record["segments"].records[0].data
    assert (row["name"], row["share"], row["solidity"], row["into"]) == (
        *("Everybody", "100%", "not known"),
        "nothing in particular",
    )


def test_the_demo_shows_what_was_planted_beside_what_was_found(demo: Demo) -> None:
    header, *lines = demo_results(demo.outcomes, demo.root).split("\n\n")[0].splitlines()
    assert header.split() == ["partition", "users", "planted", "found", "agreement"]
    by_category = {line.split("|")[0]: line.split(maxsplit=2)[2] for line in lines}
    assert list(by_category) == list(demo_audience.CATEGORIES)
    for category in ("coffee", "running", "gaming", "travel"):
        *counts, agreement = by_category[category].split()
        assert counts == [str(demo_audience.planted(category)), "segments"] * 2
        assert float(agreement) > 0.8
    assert by_category["news"].split("  ")[0] == "no segments"
    assert by_category["news"].endswith("no segments")
    assert by_category["beekeeping"].endswith("too few people"), "and there is no agreement to speak of"


# --- other cases, made up --------------------------------------------------------------------------------------------


def selected(**facts: Any) -> dict[str, Any]:
    """The manifest of a k_selection that found three segments, with some facts changed."""
    summary = {
        "verdict": "segments",
        "k": 3,
        "why": "because",
        "criterion": "prediction",
        "evidence": 5.0,
        "evidence_needed": 3.5,
        "false_alarm_rate": 0.01,
        "people": 60_000,
        "people_judged": 10_000,
        "tried": [
            {
                "k": k,
                "wssse": 9.0 / k,
                "silhouette": None if k == 1 else 0.1 * k,
                "calinski_harabasz": None if k == 1 else 10.0 * k,
                "prediction": 0.1 * k - 0.1,
                "smallest_segment": 100_000 // (k * k),
            }
            for k in (1, 2, 3)
        ],
        "users": 100_000,
        "profiles": 5,
        "engine": "numpy",
        "bytes_in": 1,
        "bytes_out": 1,
        "seconds": 1.0,
    }
    return manifest("3", KSelectionConfig().model_dump(), {**summary, **facts})


def clustered(*solidities: str, **facts: Any) -> dict[str, Any]:
    """The manifest of a kmeans with a cluster of each solidity, for a k that was given, with some facts changed."""
    k = len(solidities)
    summary = {
        "k": k,
        "requested_k": k,
        "verdict": None,
        "label": None,
        "wssse": 1.0,
        "iterations": 1,
        "converged": True,
        "scores": {"silhouette": None},
        "learned_from": {"users": 900, "min_actions": FIT_MIN_ACTIONS, "wssse": 1.0},
        "engine": "numpy",
        "users": 100 * k,
        "profiles": 50,
        "clustering_inputs": {},
        "clusters": [
            {"cluster_id": place, "users": 100, "diameter": 1.0, "solidity": solidity, "top_pages": []}
            for place, solidity in enumerate(solidities)
        ],
        "bytes_in": 1,
        "bytes_out": 1,
        "seconds": 1.0,
    }
    return manifest("4", KMeansConfig().model_dump(), {**summary, **facts})


def profiled(*solidities: str) -> dict[str, Any]:
    """The same as of code version 5, which says what each segment is."""
    segments = [
        {
            "cluster_id": place,
            "name": f"Segment of ${place}",
            "people": None if solidity == "unknown" else 100,
            "share": 0.5,
            "solidity": solidity,
            "distinctive": [
                {"dimension_name": "Page", "lift": None, "low": 2.0},
                {"dimension_name": "Other", "lift": 12.0, "low": 3.4},
            ],
        }
        for place, solidity in enumerate(solidities)
    ]
    return clustered(*solidities, segments=segments)


def manifest(code_version: str, config: dict[str, Any], summary: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": summary,
        "config": config,
        "code_version": code_version,
        "fingerprint": "f",
        "inputs": ["i"],
    }


def shown(asset: str, made: dict[str, Any]) -> dict[str, Any]:
    """What the record of an output shows."""
    found = metadata.of_computed(asset, "/root/folder", Store(root="/root"), made, {})
    return {name: on_one_line(value.value) if name in TEXTS else value for name, value in found.items()}


def test_the_texts_are_in_short_lines_and_short_enough_to_be_shown_on_the_page() -> None:
    """The UI cuts off what is wider than the page, and hides Markdown of 1,000 characters or more behind a link."""
    for made in (selected(), selected(verdict="none", k=1), selected(verdict="too_few", k=1)):
        found = metadata.of_computed("k_selection", "/root/folder", Store(root="/root"), made, {})
        for name in TEXTS:
            assert len(found[name].value) < 1000
            assert max(map(len, found[name].value.split("  \n"))) <= 58


def test_a_verdict_that_was_judged_on_a_sample_says_so() -> None:
    found = shown("k_selection", selected())
    assert found["finding"] == "3 segments among 100,000 people. The smallest has about 11,110 people (11%)."
    assert found["how_sure"].startswith("Sure that there are segments: the evidence is 5.0, and 3.5 is enough"), (
        "less than twice what is needed"
    )
    assert f"Judged on 10,000 of the 60,000 people with {ACTIVE}, drawn at random." in found["how_sure"]


def test_where_no_clustering_could_be_accepted_the_record_names_the_options_that_decided_it() -> None:
    why = "No segments: with any number of them, one has fewer than 10 people."
    found = shown("k_selection", selected(verdict="none", k=1, why=why, evidence=None))
    assert found["finding"] == why
    assert "min_segment is 10, min_segment_share is 0.02" in found["what_to_do"]


def test_who_learns_from_everybody_already_is_not_told_to_lower_fit_min_actions() -> None:
    made = selected(verdict="too_few", k=1, evidence=None, tried=[], users=9, people=9, people_judged=9)
    made["config"]["fit_min_actions"] = 1
    found = shown("k_selection", made)
    assert "fewer than 10 of fewer than 10 people have at least 1 action, and" in found["finding"]
    assert "fit_min_actions" not in found["what_to_do"]


def test_a_given_k_says_that_nobody_asked_whether_there_are_segments() -> None:
    found = shown("kmeans", clustered("solid", "fair", "doubtful"))
    assert "verdict" not in found
    assert "k = 3 was given, so nobody asked whether there are segments." in found["finding"]
    assert found["how_sure"].startswith("1 solid, 1 fair, 1 doubtful.")
    assert found["what_to_do"].startswith("To learn whether there are segments at all, run it without k.")
    assert "Don't rely on cluster 2, which would often come out otherwise." in found["what_to_do"]


def test_clusters_that_were_learned_from_everybody_say_so() -> None:
    made = clustered("unknown", "unknown", learned_from={"users": 200, "min_actions": 0, "wssse": 1.0})
    found = shown("kmeans", made)
    assert f"learned from everybody: too few people have {ACTIVE}" in found["finding"]
    assert found["how_sure"].startswith("How solid the clusters are is not known")


@pytest.mark.parametrize(
    ("asset", "made"),
    [
        ("k_selection", selected(verdict="too_few", k=1, evidence=None, tried=[], users=0, people=0, people_judged=0)),
        ("kmeans", clustered(verdict="too_few", users=0)),
    ],
)
def test_a_category_that_nobody_was_on_says_what_to_check(asset: str, made: dict[str, Any]) -> None:
    found = shown(asset, made)
    assert found["finding"].startswith("Nobody: ")
    assert "Check the page ids in the category file" in found["what_to_do"]


# --- outputs of code version 2 ---------------------------------------------------------------------------------------


def test_a_k_selection_of_code_version_2_is_shown_as_it_is() -> None:
    made = selected(criterion="silhouette")
    for name in ("verdict", "why", "evidence", "evidence_needed", "false_alarm_rate", "people", "people_judged"):
        del made["summary"][name]
    for row in made["summary"]["tried"]:
        del row["prediction"], row["smallest_segment"]
    made["config"] = {"criterion": "silhouette", "k_min": 2, "k_max": 12, "n_init": 10, "seed": 0}
    found = shown("k_selection", made)
    assert not {"verdict", *TEXTS} & found.keys()
    assert (found["k"], found["criterion"]) == (3, "silhouette")
    assert [column.name for column in found["tried"].schema.columns] == [
        *("k", "wssse", "silhouette", "calinski_harabasz")
    ]
    assert found["picture"].value.startswith("![scores by k]")


def test_a_kmeans_of_code_version_2_is_shown_as_it_is() -> None:
    made = clustered("", "")
    del made["summary"]["verdict"], made["summary"]["learned_from"]
    for cluster in made["summary"]["clusters"]:
        del cluster["solidity"]
    found = shown("kmeans", made)
    assert not {"verdict", "solidity", "fit_users", *TEXTS} & found.keys()
    assert [row.data["solidity"] for row in found["clusters"].records] == ["not known"] * 2


def test_where_few_others_like_a_page_its_lift_is_shown_as_the_least_it_is() -> None:
    row = shown("kmeans", profiled("solid", "unknown"))["segments"].records[0].data
    assert row["into"] == "Page (at least 2×), Other (12×)"


# --- pictures --------------------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> "list[Figure]":
    """The figures that are drawn."""
    figures: list[Figure] = []

    def keep(figure: "Figure", alternative: str) -> str:
        figures.append(figure)
        return alternative

    monkeypatch.setattr(pictures, "_markdown", keep)
    return figures


def test_the_picture_of_the_tried_k_marks_the_one_that_was_chosen(drawn: "list[Figure]") -> None:
    pictures.tried_k(selected()["summary"])
    (axes,) = drawn[0].axes
    assert axes.get_title().endswith("; 3 chosen")
    assert any(list(line.get_xdata()) == [3, 3] for line in axes.lines)


def test_without_segments_the_picture_marks_no_k(drawn: "list[Figure]") -> None:
    pictures.tried_k(selected(verdict="none", k=1)["summary"])
    (axes,) = drawn[0].axes
    assert axes.get_title().endswith("; no segments, none chosen")
    assert not any(list(line.get_xdata()) == [1, 1] for line in axes.lines)


def test_each_bar_is_named_and_says_how_solid_its_segment_is(drawn: "list[Figure]") -> None:
    pictures.clusters(profiled("solid", "doubtful", "unknown")["summary"], 10)
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.texts] == [
        r"Segment of \$0: 100 people, solid",
        r"Segment of \$1: 100 people, doubtful",
        r"Segment of \$2: few people",
    ]
    assert [bar.get_width() for bar in axes.patches] == [100, 100, 0]


@pytest.mark.filterwarnings("error")
def test_a_picture_shows_names_without_a_word_on_what_is_in_them() -> None:
    summary = profiled("solid", "doubtful")["summary"]
    for name, segment in zip(("\x1b[2J\u202e$\n", "コーヒー 👩‍🍳"), summary["segments"], strict=True):
        segment["name"] = name
    assert pictures.clusters(summary, 10).startswith("![")


def test_each_bar_of_code_version_4_says_how_solid_its_cluster_is(drawn: "list[Figure]") -> None:
    pictures.clusters(clustered("solid", "doubtful", "unknown")["summary"], 10)
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.texts] == [
        "0: 100 users, solid. ",
        "1: 100 users, doubtful. ",
        "2: 100 users. ",
    ]


def test_no_axis_crosses_the_texts_of_the_bars(drawn: "list[Figure]") -> None:
    pictures.clusters(profiled("solid", "doubtful")["summary"], 10)
    (axes,) = drawn[0].axes
    assert {text.get_position()[0] for text in axes.texts} == {0}
    assert not axes.spines["left"].get_visible()
