"""A category file changes: a dry run says what that costs, and it is computed again; then it breaks a rule and fails by
name. No other is touched."""

import json
from pathlib import Path

from acceptance.browser.conftest import keep_categories
from acceptance.conftest import Explorer

MONTH = "2018-12"


def test_only_the_changed_category_is_computed(explorer: Explorer, ansible: Path) -> None:
    explorer.bring(ansible, MONTH)
    keep_categories(explorer, "cloud", "files", "network", "system")
    explorer.pipeline("--month", MONTH)

    file = explorer.root / "categories" / "files.json"
    category = json.loads(file.read_text())
    category["facebook"] = category["facebook"][:-3]
    file.write_text(json.dumps(category))
    dry_run = explorer.command("audience-explorer", "pipeline", "--month", MONTH, "--dry-run", "--json")
    changed = explorer.pipeline("--month", MONTH)

    planned = {f"{p['asset']} {p['partition']}": p for p in json.loads(dry_run.stdout)["partitions"]}
    assert {name for name, target in planned.items() if target["action"] == "launch"} == changed.launched
    assert planned[f"clustering_inputs files|{MONTH}"]["why"] == "category file changed"
    assert changed.launched == {
        f"{asset} files|{MONTH}"
        for asset in ("clustering_inputs", "k_selection", "kmeans", "segments", "audience_report")
    }

    category["facebook"].append(category["facebook"][0])
    file.write_text(json.dumps(category))
    broken = explorer.pipeline("--month", MONTH, ok=False)

    assert broken.exit_code == 1
    assert set(broken.failed) == changed.launched
    assert "is listed twice" in broken.failed[f"kmeans files|{MONTH}"]
    assert len(broken.reused) == 1 + 5 * 3
