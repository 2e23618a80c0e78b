"""A pipeline of categories that are no neighbours in the order of Dagster's partitions leaves those between alone."""

import pytest

from tests.project import LAUNCHES, Project

pytestmark = pytest.mark.filterwarnings("ignore")

MONTH = "2024-01"


def test_categories_that_are_no_neighbours_are_made_and_no_other(project: Project) -> None:
    made = project.pipeline([MONTH], ["coffee", "tea"])
    assert {outcome.status for outcome in made.values()} == {"launched"}
    assert {outcome.partition.category for outcome in made.values()} == {None, "coffee", "tea"}  # type: ignore[union-attr]
    assert len(LAUNCHES) == 1, "in one launch"
    assert not list(project.root.glob("*/month=*/category=games"))

    again = project.pipeline([MONTH])
    launched = {outcome.partition.category for outcome in again.values() if outcome.status == "launched"}  # type: ignore[union-attr]
    assert launched == {"games"}, "and the one between is all that is left to do"


def test_one_that_is_not_there_keeps_no_other_from_being_made(project: Project) -> None:
    """The run's config names them, as of a backfill; there is no partition range in which others would lie."""
    result = project.run_month(MONTH, categories=["coffee", "milk", "tea"])
    assert not result.success
    made = {path.parents[1].name for path in project.root.glob("kmeans/month=*/*/*/manifest.json")}
    assert made == {"category=coffee", "category=tea"}
