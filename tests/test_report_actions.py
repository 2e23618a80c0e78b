"""What a report says of what people do: in words, in a bar, in a CSV, and not where too few do it."""

import csv
import io
import json
from pathlib import Path
from urllib.parse import unquote

import pytest

from spark_jobs.audience_report.mix import Doing, doing
from spark_jobs.clusters.action_mix import UNIT, Mix, publish
from spark_jobs.config import ACTIONS
from tests.published_segments import list_again, make_k_selection, make_kmeans
from tests.test_report import Page, make, run


def published_mix(people: int, *shares: float) -> dict[str, dict[str, float | None]]:
    """The published mix of some people; an action with a share of 0 is done by nobody."""
    of = dict(zip(ACTIONS, shares, strict=True))
    doing = {action: people if share else 0 for action, share in of.items()}
    return publish(Mix(people, doing, {action: round(people * share * UNIT) for action, share in of.items()}), 10)


def told(people: int, own: tuple[float, ...], of_all: tuple[float, ...]) -> str:
    found = doing(published_mix(people, *own), published_mix(100_000, *of_all), people)
    assert found is not None
    return found.told


def test_it_says_what_they_mostly_do_and_what_is_clearly_more_common_than_elsewhere() -> None:
    assert told(10_000, (0.6, 0, 0.1, 0.3), (0.62, 0, 0.24, 0.14)) == (
        "They mostly like pages (60%). Post comments are 2.1× as common as among all people of the category (14%)."
    )
    assert told(10_000, (0.3, 0, 0.45, 0.25), (0.55, 0, 0.3, 0.15)) == (
        "They like posts (45%) and like pages (30%). Page likes are less common than among all people of the category"
        " (55%)."
    )
    assert told(10_000, (0.6, 0, 0.4, 0), (0.5, 0, 0.5, 0)) == (
        "They mostly like pages (60%; all people of the category: 50%)."
    )


def test_an_action_that_all_people_hardly_do_is_more_common_not_some_number_of_times() -> None:
    of_all = published_mix(10_000, 0.9, 0, 0.1, 0)
    of_all["page_comment"] = {"people": 100, "share": 0.0}
    found = doing(published_mix(10_000, 0.8, 0.2, 0, 0), of_all, 10_000)
    assert found is not None
    assert found.told.endswith("Page comments are more common than among all people of the category (0%).")


def test_a_difference_that_chance_can_make_or_that_says_little_is_not_spoken_of() -> None:
    of_all = (0.5, 0, 0.5, 0)
    assert told(50, (0.6, 0, 0.4, 0), of_all) == "They mostly like pages (60%)."
    assert told(10_000, (0.57, 0, 0.43, 0), of_all) == "They mostly like pages (57%)."
    assert told(10_000, (0.97, 0, 0.03, 0), (0.99, 0, 0.01, 0)) == "They mostly like pages (97%)."


def test_where_they_do_one_thing_only_the_others_are_not_named() -> None:
    assert told(1_000, (0, 1.0, 0, 0), (0, 1.0, 0, 0)) == "They mostly comment on pages (100%)."


@pytest.mark.parametrize("people", [None, 40])
def test_of_people_of_whose_actions_nothing_may_be_said_nothing_is(people: int | None) -> None:
    nothing = {action: {"people": None, "share": None} for action in ACTIONS}
    assert doing(nothing, published_mix(1_000, 1, 0, 0, 0), people) is None


def test_the_parts_of_a_bar_follow_each_other_and_do_not_exceed_it() -> None:
    rounded_up = {action: {"people": 20, "share": 0.33} for action in ACTIONS}
    found = doing(rounded_up, published_mix(1_000, 0.5, 0, 0.25, 0.25), 60)
    assert isinstance(found, Doing)
    (_, own), (_, of_all) = found.bars
    assert [(start, width) for _, start, width in own] == [(25 * place, 25.0) for place in range(4)]
    assert of_all == [("page_like", 0, 50), ("post_like", 50, 25), ("post_comment", 75, 25)]


def test_each_card_says_what_its_people_do(tmp_path: Path) -> None:
    page = Page(make(tmp_path, users=10_944))
    assert "They mostly like pages (72%; all people of the category: 55%)." in page.text
    assert "each person counts the same, however much they do" in page.text
    assert len([1 for name, attributes in page.elements if name == "svg" and attributes.get("class") == "mix"]) == 4


def test_the_csv_has_every_action_and_no_figure_of_a_few(tmp_path: Path) -> None:
    page = Page(make(tmp_path, users=10_944))
    (link,) = [of["href"] for name, of in page.elements if name == "a" and of.get("download") == "actions.csv"]
    assert link is not None
    rows = list(csv.DictReader(io.StringIO(unquote(link.split(",", 1)[1]))))
    assert [row["action"] for row in rows] == list(ACTIONS) * 4
    assert {row["people"] + row["share"] for row in rows if row["action"] == "page_comment"} == {""}
    assert all(row["share"] and row["share_of_all"] for row in rows if row["action"] != "page_comment")


def test_one_audience_is_told_what_it_does(tmp_path: Path) -> None:
    page = Page(make(tmp_path, k=1, verdict="none"))
    assert "What they do" in page.text
    assert "They mostly like pages (55%)." in page.text


def test_of_clusters_of_an_older_version_the_mix_is_left_out(tmp_path: Path) -> None:
    clusters = Path(make_kmeans(tmp_path / "kmeans"))
    summary = json.loads((clusters / "summary.json").read_text())
    del summary["actions"]
    for segment in summary["segments"]:
        del segment["actions"]
    (clusters / "summary.json").write_text(json.dumps(summary))
    list_again(clusters)
    run(str(clusters), str(tmp_path / "report"), make_k_selection(tmp_path / "k"))
    assert "What they do" not in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_of_a_few_dozen_people_nothing_is_said_for_their_numbers_are_rounded_to_tens() -> None:
    likes = published_mix(12, 0.5, 0, 0.5, 0)
    assert doing(likes, published_mix(100_000, 0.5, 0, 0.5, 0), 10) is None
