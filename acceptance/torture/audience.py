"""A tiny audience, so that a whole pipeline takes seconds: two tastes a category, and a few months."""

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

from acceptance.conftest import Explorer

CATEGORIES = ("coffee", "tea")
MONTHS = ("2024-01", "2024-02")
# So much work that jobs run beside each other, in workers, which are started after a second of it.
RUN_CONFIG = "k_selection: {k_max: 4}\nkmeans: {n_init: 4}\n"
_USERS, _PAGES = 200, 8


def months_from(first: str, count: int) -> list[str]:
    """So many months, one after another."""
    year, month = map(int, first.split("-"))
    return [f"{year + (month - 1 + n) // 12:04}-{(month - 1 + n) % 12 + 1:02}" for n in range(count)]


def make_audience(root: Path, months: Sequence[str] = MONTHS, categories: Sequence[str] = CATEGORIES) -> None:
    """Write category files and raw actions; the same each time."""
    for name in categories:
        pages = [{"id": f"{name}-{page}", "name": f"{name} {page}"} for page in range(_PAGES)]
        _write(root / "categories" / f"{name}.json", json.dumps({"id": 1, "facebook": pages}))
    for month in months:
        folder = root / "raw" / f"month={month}"
        _write(folder / "actions.jsonl", "".join(_actions(month, categories)))
        (folder / "_SUCCESS").touch()


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def _actions(month: str, categories: Sequence[str]) -> list[str]:
    """The actions of a month, a line each: half of the users like the even pages, the others the odd ones."""
    chance = random.Random(month)
    return [
        json.dumps({"user_id": f"u{user}", "page_id": f"{name}-{page}", "action": "page_like", "count": 3}) + "\n"
        for user in range(_USERS)
        for name in categories
        for page in range(_PAGES)
        if chance.random() < (0.8 if page % 2 == user % 2 else 0.1)
    ]


class TinyExplorer(Explorer):
    """Audience Explorer on a copy of a tiny audience, with temporary files in a folder of its own."""

    def __init__(self, folder: Path, audience: Path, records: Path | None = None):
        """Make it in a folder, with `audience`'s data, and the DAGSTER_HOME `records`; without, commands make one."""
        super().__init__(folder)
        if records is not None:
            shutil.copytree(records, self.home, dirs_exist_ok=True)
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        config = folder / "run_config.yaml"
        config.write_text(RUN_CONFIG)
        self.environment = {
            **self.environment,
            "TMPDIR": str(self.temporary),
            "AUDIENCE_EXPLORER_RUN_CONFIG": str(config),
            "AUDIENCE_EXPLORER_START_MONTH": "2024-01",
        }
        shutil.copytree(audience, self.root, dirs_exist_ok=True)
