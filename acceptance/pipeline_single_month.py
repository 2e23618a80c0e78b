"""A month of real actions, all 13 categories: the first time everything is computed, the second time nothing."""

from pathlib import Path

import pyarrow.parquet as pq

from acceptance.conftest import Explorer
from tests.golden import read_json_lines

MONTH = "2018-12"


def test_a_month_is_computed_once(explorer: Explorer, ansible: Path) -> None:
    explorer.bring(ansible, MONTH)
    categories = sorted(file.stem for file in (ansible / "categories").iterdir())
    assert len(categories) == 13

    first = explorer.pipeline("--month", MONTH)

    assert len(first.launched) == 1 + 5 * 13
    assert first.log.count("make_clustering_inputs 2018-12 starts") == 1, "the month is read once for all categories"

    # Every user of a category is in one cluster, and the two files that applications read agree with the rest.
    for category in categories:
        clusters = first.folders[f"kmeans {category}|{MONTH}"]
        members = pq.read_table(first.folders[f"clustering_inputs {category}|{MONTH}"] / "members.parquet")
        data = read_json_lines(clusters / "data.json")
        meta_data = read_json_lines(clusters / "meta-data.json")
        users = [user for cluster in data for user in cluster["user_ids"]]
        assert sorted(users) == members["user_id"].to_pylist()
        assert [len(c["user_ids"]) for c in data] == [c["cluster_member_count"] for c in meta_data]
        sizes = [c["cluster_member_count"] for c in meta_data]
        assert sizes == sorted(sizes, reverse=True)

    second = explorer.pipeline("--month", MONTH)

    assert second.launched == set()
    assert second.reused == first.launched
    assert second.folders == first.folders
    assert " starts" not in second.log, "no job ran"
