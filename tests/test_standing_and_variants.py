"""What lists of variants say of each, and what keeps an output from being the deployment's own."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest

from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.records import standing as standings
from audience_explorer_dagster.records import variants
from audience_explorer_dagster.records.history import Record
from audience_explorer_dagster.records.standing import foreign_parameters, standing, steps_to, with_pinned_k
from audience_explorer_dagster.records.variants import Choice, choose, find_named, side_by_side, told
from audience_explorer_dagster.run_config import MonthRunConfig
from audience_explorer_dagster.store import OWN, Current
from spark_jobs.config import ClusteringInputsConfig, GroupedUsersConfig, KMeansConfig, KSelectionConfig, StepConfig
from spark_jobs.errors import InputError
from tests.test_tweaks import START, TEA, at, record, rows

KMEANS = KMeansConfig().model_dump(mode="json")
OTHER_K_MAX = KSelectionConfig(k_max=3).model_dump(mode="json")


# --- one choice


@pytest.mark.parametrize("choice", [Choice(label="a"), Choice(folder="a"), Choice(automatic=True), Choice(label="")])
def test_a_choice_names_one_thing(choice: Choice) -> None:
    choice.check()


@pytest.mark.parametrize(
    "choice",
    [
        Choice(),
        Choice("a", "b"),
        Choice("a", automatic=True),
        Choice(folder="b", automatic=True),
        Choice("a", "b", True),
    ],
)
def test_a_choice_of_none_or_several_is_refused_with_what_there_is_to_name(choice: Choice) -> None:
    with pytest.raises(
        InputError, match=r"^Name the output, by a label or by a folder; or end a promotion, by automat"
    ):
        choice.check()


def test_the_newest_output_of_a_label_or_folder_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "is_whole", lambda _folder, step: step == "kmeans")
    known = [record("c", 3, "x"), record("b", 2), record("a", 1, "x"), record("c", 0, "y")]
    assert choose(known, Choice(label="x")) is known[0]
    assert choose(known, Choice(label="y")) is known[3]
    assert choose(known, Choice(folder="b")) is known[1]
    assert choose(known, Choice(folder=at("a").folder)) is known[2]
    with pytest.raises(InputError, match=r"^No output on record has the label 'z'\. There are: x, y\.$"):
        choose(known, Choice(label="z"))
    with pytest.raises(InputError, match=r"^No output on record has the folder 'z'\. There are: c, b, a\.$"):
        choose(known, Choice(folder="z"))
    with pytest.raises(InputError, match=r"has the label 'x'\. There are: none\.$"):
        choose(known[1:2], Choice(label="x"))


def test_an_output_that_is_gone_is_refused_with_what_makes_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "is_whole", lambda *_: False)
    config = dg.MetadataValue.json({**KMEANS, "k": 4, "seed": 7, "label": "x"})
    with pytest.raises(InputError) as refused:
        choose([record("a", 1, "x", config=config, k=3, requested_k=4)], Choice(label="x"))
    assert str(refused.value) == (
        f"The output {at('a').folder} is gone. Make it again, by a pipeline with its parameters:"
        " k 3 of 4; kmeans||,100,0.001; seed 7."
    )


def test_a_name_is_a_labels_before_it_is_a_folders() -> None:
    known = [record("x", 4), record("b", 3, "x"), record("a", 2, "x"), record("b", 1, "b")]
    assert find_named(known, "x") is known[1]
    assert find_named(known, "a") is known[2]
    assert find_named(known, "b") is known[3]
    with pytest.raises(InputError, match=r"has the label or folder 'z'\. There are: x, b\.$"):
        find_named(known, "z")
    with pytest.raises(InputError, match=r"There are: none\.$"):
        find_named([], "z")


def test_a_clustering_that_names_no_fit_min_actions_learned_from_everybody() -> None:
    early = {name: value for name, value in KMEANS.items() if name != "fit_min_actions"}
    (made,) = side_by_side([record("a", config=dg.MetadataValue.json(early))], None)
    assert made.parameters == "kmeans||,100,0.001; fit_min_actions 1"


# --- lists


def test_an_output_is_listed_once_with_what_its_newest_record_says_and_when_its_first_was_made() -> None:
    known = [record("a", 5, "new", wssse=0.25, silhouette=0.125), record("b", 3), record("a", 1, "old", wssse=9.0)]
    first, second = side_by_side(known, at("a", promoted=True))
    assert (first.name, second.name) == ("b", "a"), "the last computed first"
    assert (second.labels, second.wssse, second.silhouette) == (("new", "old"), 0.25, 0.125)
    assert second.computed_at == known[2].recorded_at
    assert [(each.current, each.promoted) for each in (first, second)] == [(False, False), (True, True)]
    assert [(each.current, each.promoted) for each in side_by_side(known, at("b"))] == [(True, False), (False, False)]
    assert not any(each.current or each.promoted for each in side_by_side(known, None))
    assert (second.clustering_inputs, second.solidity, second.verdict) != ({}, None, None)


def test_a_row_says_each_thing_as_a_person_reads_it() -> None:
    details: dict[str, Any] = {"wssse": 1234567.891, "silhouette": 0.12345, "solidity": "1 solid", "users": 1230}
    (made,) = side_by_side([record("a", 0, "x", **details)], at("a"))
    (row,) = rows(variants.as_metadata([made], at("a"))["tweaks"])
    assert row == {
        "current": "yes",
        "label": "x",
        "k": "2",
        "parameters": "kmeans||,100,0.001",
        "users": "1,230",
        "sizes": "10, few",
        "solidity": "1 solid",
        "wssse": "1.23457e+06",
        "silhouette": "0.123",
        "computed (UTC)": f"{START:%Y-%m-%d %H:%M}",
        "folder": "a",
    }
    of_few = record("b", 0, users="fewer than 10", wssse=0.5, silhouette=0.5)
    (made,) = side_by_side([of_few], None)
    assert (made.users, made.wssse, made.silhouette) == (None, None, None)
    (row,) = rows(variants.as_metadata([made], at("a"))["tweaks"])
    assert (row["current"], row["users"], row["wssse"], row["silhouette"]) == ("", "few", "", "")


@pytest.mark.parametrize(
    ("k", "requested", "given", "verdict", "says"),
    [
        (3, 3, 3, None, "3"),
        (3, 5, 5, None, "3 of 5"),
        (4, 4, None, None, "4 chosen"),
        (4, 4, None, "segments", "4 chosen"),
        (1, 1, None, "none", "1 (no segments)"),
    ],
)
def test_k_is_said_with_who_chose_it(k: int, requested: int, given: int | None, verdict: str | None, says: str) -> None:
    config = dg.MetadataValue.json({**KMEANS, "k": given})
    details: dict[str, Any] = {"k": k, "requested_k": requested, "config": config}
    (made,) = side_by_side([record("a", **details, **({"verdict": verdict} if verdict else {}))], None)
    assert told(TEA, made).endswith(f": a, k {k}, kmeans||,100,0.001")
    (row,) = rows(variants.as_metadata([made], at("a"))["tweaks"])
    assert row["k"] == says


@pytest.mark.parametrize(
    ("count", "shown"), [(0, ""), (1, "10"), (5, "10, 20, 30, 40, 50"), (6, "10, 20, 30, 40, 50, …")]
)
def test_the_sizes_of_the_largest_five_clusters_are_shown(count: int, shown: str) -> None:
    sizes = ", ".join(str(10 * (number + 1)) for number in range(count)) or "none"
    (made,) = side_by_side([record("a", sizes=dg.MetadataValue.text(sizes))], None)
    (row,) = rows(variants.as_metadata([made], at("a"))["tweaks"])
    assert row["sizes"] == shown


def test_the_twenty_last_are_shown_and_the_current_one() -> None:
    many = side_by_side([record(f"t{place}", place) for place in reversed(range(21))], at("t0"))
    assert len(rows(variants.as_metadata(many, at("t0"))["tweaks"])) == 21
    others = side_by_side([record(f"t{place}", place) for place in reversed(range(22))], at("t21"))
    shown = rows(variants.as_metadata(others, at("t21"))["tweaks"])
    assert [row["folder"] for row in shown] == [f"t{place}" for place in range(21, 1, -1)]


def test_which_output_is_current_is_told_to_a_person() -> None:
    (made,) = side_by_side([record("a", 0)], at("a", promoted=True))
    assert told(TEA, made) == "current output of kmeans tea|2024-01: a, promoted, k 2, kmeans||,100,0.001"
    assert told(TEA, None) == "kmeans tea|2024-01 has no current output"


# --- the deployment's own


@pytest.mark.parametrize(
    ("configs", "label", "why"),
    [
        ({"kmeans": KMEANS}, None, ""),
        ({"kmeans": None, "k_selection": None}, None, ""),
        ({"kmeans": KMEANS}, "x", "label x"),
        ({"kmeans": {**KMEANS, "k": 6}}, None, "k 6 (the deployment's own: not given)"),
        ({"k_selection": OTHER_K_MAX, "kmeans": KMEANS}, None, "k_max 3 (the deployment's own: 12)"),
        (
            {"k_selection": OTHER_K_MAX, "kmeans": {**KMEANS, "k": 6}},
            "x",
            "label x; k 6 (the deployment's own: not given)",
        ),
        ({"k_selection": OTHER_K_MAX}, None, "k_max 3 (the deployment's own: 12)"),
    ],
)
def test_what_differs_from_the_deployments_own_is_named_but_not_how_a_given_k_would_be_chosen(
    configs: dict[str, Any], label: str | None, why: str
) -> None:
    assert foreign_parameters(configs, label, MonthRunConfig()) == why


class Made:
    """The records of an asset; it notes of which partition they are asked for."""

    def __init__(self, *known: Record):
        self.known = known
        self.asked: list[Partition] = []

    def all(self, partition: Partition) -> Iterator[Record]:
        self.asked.append(partition)
        return iter(self.known)


def test_an_output_is_the_deployments_own_if_all_that_it_was_made_from_is() -> None:
    def made(fingerprint: str, config: StepConfig, *inputs: str, **details: Any) -> Record:
        return replace(
            record(fingerprint, config=dg.MetadataValue.json(config.model_dump(mode="json")), **details),
            fingerprint=fingerprint,
            inputs=inputs,
        )

    def is_own(clusters: Record, **of: Record) -> bool:
        known: Any = {asset: Made(made("newer", KSelectionConfig(k_max=2)), each) for asset, each in of.items()}
        for asset in steps_to("kmeans"):
            known.setdefault(asset, Made())
        found = standings.is_own(clusters, known, MonthRunConfig())
        assert set(known["grouped_users"].asked) <= {Partition("2024-01")}
        assert set(known["clustering_inputs"].asked) == {TEA}
        return found

    users, inputs = made("u", GroupedUsersConfig()), made("i", ClusteringInputsConfig(), "u")
    clusters = made("c", KMeansConfig(), "i")
    assert is_own(clusters)
    assert is_own(clusters, clustering_inputs=inputs, grouped_users=users)
    assert not is_own(made("c", KMeansConfig(), "i", label="x"), clustering_inputs=inputs)
    assert not is_own(made("c", KMeansConfig(k=3), "i"), clustering_inputs=inputs)
    assert not is_own(clusters, clustering_inputs=made("i", ClusteringInputsConfig(scaling="none"), "u"))
    other = made("u", GroupedUsersConfig(max_reject_ratio=0.5))
    assert not is_own(clusters, clustering_inputs=inputs, grouped_users=other)
    assert is_own(clusters, clustering_inputs=made("i", ClusteringInputsConfig(), "v"), grouped_users=other)


def test_the_deployments_own_label_is_none_of_a_variant() -> None:
    own = MonthRunConfig()
    own = own.model_copy(update={"kmeans": own.kmeans.model_copy(update={"label": "ours"})})
    assert foreign_parameters({}, "ours", own) == ""
    assert foreign_parameters({}, "other", own) == "label other"


def test_a_pinned_k_is_the_deployments_own_and_nothing_else_changes() -> None:
    own = MonthRunConfig()
    assert with_pinned_k(own, None) is own
    pinned = with_pinned_k(own, 4)
    assert pinned.kmeans == own.kmeans.model_copy(update={"k": 4})
    assert pinned.model_copy(update={"kmeans": own.kmeans}) == own
    assert foreign_parameters({"kmeans": {**KMEANS, "k": 4}}, None, pinned) == ""


def test_steps_come_in_the_order_in_which_they_are_made_each_once() -> None:
    assert steps_to("grouped_users") == ("grouped_users",)
    assert steps_to("kmeans") == ("grouped_users", "clustering_inputs", "k_selection", "kmeans")
    assert steps_to("audience_report") == (*steps_to("kmeans"), "segments", "audience_report")
    assert set(standings._MADE_FROM) == set(steps_to("audience_report"))


@pytest.mark.parametrize(
    ("folder", "current", "beside", "is_new", "says"),
    [
        ("a", Current("r/a", why="w"), "", False, "current: w"),
        ("a", Current("r/a"), "k 6", True, "current"),
        ("a", Current("r/a", promoted=True, why="by me"), "k 6", False, "promoted: by me"),
        ("b", Current("r/a"), "k 6", True, "beside a: k 6"),
        ("b", Current("r/a"), "", True, f"beside a: {OWN}"),
        ("b", Current("r/a", promoted=True), "k 6", True, "beside a, which is promoted: k 6"),
        (
            *("b", Current("r/a", promoted=True), "", True),
            f"beside a, which is promoted: newer, and {OWN}. To make it current: promote --automatic",
        ),
        (
            *("b", Current("r/a", promoted=True), "", False),
            f"beside a, which is promoted: {OWN}. To make it current: promote --automatic",
        ),
    ],
)
def test_an_output_says_how_it_stands_to_the_current_one(
    folder: str, current: Current, beside: str, is_new: bool, says: str
) -> None:
    assert standing(f"r/{folder}", current, beside, is_new=is_new) == says
    if not is_new:
        assert standing(f"r/{folder}", current, beside) == says
