"""A new month lands, and then more actions of it arrive: only that month is computed."""

import gzip
import json
from pathlib import Path

from acceptance.conftest import Explorer


def test_only_the_new_month_is_computed(explorer: Explorer, ansible: Path) -> None:
    explorer.bring(ansible, "2019-01")
    three = ("--category", "cloud", "--category", "network", "--category", "system")
    explorer.pipeline("--month", "2019-01", *three)

    explorer.bring(ansible, "2019-02")
    both = ("--month", "2019-01", "--month", "2019-02", *three)
    with_new = explorer.pipeline(*both)

    assert len(with_new.launched) == 1 + 5 * 3
    assert all(name.endswith("2019-02") for name in with_new.launched)

    late = {"user_id": "latecomer", "page_id": "cloud/amazon/ec2", "action": "page_like"}
    (explorer.root / "raw" / "month=2019-02" / "late.jsonl.gz").write_bytes(gzip.compress(json.dumps(late).encode()))
    with_late = explorer.pipeline(*both)

    assert {name for name in with_late.launched if name.startswith("grouped")} == {"grouped_users 2019-02"}
    assert all(name.endswith("2019-02") for name in with_late.launched)


def test_a_month_that_cannot_be_read_fails_by_name_and_the_other_is_done(explorer: Explorer, ansible: Path) -> None:
    explorer.bring(ansible, "2019-01", "2019-02")
    raw = explorer.root / "raw" / "month=2019-01" / "actions.jsonl.gz"
    raw.write_bytes(raw.read_bytes()[:1000])

    ended = explorer.pipeline("--month", "2019-01", "--month", "2019-02", "--category", "cloud", ok=False)

    assert ended.exit_code == 1
    assert f"{raw} can't be read" in ended.failed["grouped_users 2019-01"]
    assert ended.failed["clustering_inputs cloud|2019-01"] == "not run, because group_by_user 2019-01 failed"
    assert "kmeans cloud|2019-02" in ended.launched
    assert not list((explorer.root / "grouped_users" / "month=2019-01").rglob("manifest.json"))
