"""The predecessor's published example goes through Dagster, from its own grouped users on.

Its entry of zero can't come from raw actions, so the grouped users are brought in as they are, as an output with a
record of its own, the way in which somebody would who has the months of the predecessor.
"""

import json
import shutil
from pathlib import Path

import dagster as dg
import pyarrow as pa

from acceptance.conftest import Explorer
from spark_jobs import group_by_user, outputs
from spark_jobs.config import GroupedUsersConfig
from spark_jobs.reporting import Reporter
from spark_jobs.users import grouped_users
from spark_jobs.users.grouping import GROUPED_USER
from tests.golden import assert_golden

MONTH = "2024-01"


def test_the_golden_case_through_dagster(explorer: Explorer, golden: Path) -> None:
    categories = explorer.root / "categories"
    categories.mkdir(parents=True)
    shutil.copy(golden / "category.json", categories)
    explorer.command("audience-explorer", "categories", "sync")
    folder = explorer.root / "grouped_users" / f"month={MONTH}" / "brought-in"
    coded = pa.Table.from_batches(grouped_users.read_json_lines(str(golden / "grouped_users.jsonl")))
    users = pa.Table.from_pylist(coded.to_pylist(), GROUPED_USER)
    with outputs.writing(
        group_by_user.STEP,
        group_by_user.CODE_VERSION,
        str(folder),
        Reporter(),
        config=GroupedUsersConfig(),
        inputs=[],
        fingerprint="golden",
    ) as made:
        made.write_table("users/part-00000.parquet", users)
        made.complete(rows={"users": users.num_rows}, summary={})
    with dg.DagsterInstance.from_config(str(explorer.home)) as instance:
        instance.report_runless_asset_event(
            dg.AssetMaterialization(
                "grouped_users", partition=MONTH, metadata={"fingerprint": "golden", "folder": str(folder)}
            )
        )

    config = {"ops": {"segments": {"config": {"clustering_inputs": {"scaling": "none"}, "kmeans": {"k": 2}}}}}
    explorer.command(
        *("dagster", "asset", "materialize", "-m", "audience_explorer_dagster.definitions"),
        *("--select", "clustering_inputs,kmeans", "--partition", f"category|{MONTH}", "--config-json"),
        json.dumps(config),
    )

    (clusters,) = (path.parent for path in explorer.root.rglob("data.json"))
    assert_golden(clusters, golden)
