"""Where things are: the one place that makes paths below the root."""

import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

import dagster as dg
from pydantic import Field

from audience_explorer_dagster.partitions import Partition
from spark_jobs import storage
from spark_jobs.outputs import is_finished
from spark_jobs.vectors.category_files import category_folder, list_category_files

Why = Literal["computed", "reused", "promoted"]

_CURRENT = "current.json"


@dataclass(frozen=True)
class Current:
    """The output of a partition that readers take."""

    folder: str
    promoted: bool = False  # by a person, not by being the newest


class Store(dg.ConfigurableResource[None]):
    """The root under which raw data, category files and all outputs are."""

    root: str = Field(description="A local folder or s3://bucket/prefix.")

    @property
    def all_raw(self) -> str:
        """The folder of the raw actions of all months."""
        return storage.join(self._root, "raw")

    def raw(self, month: str) -> str:
        """The folder of a month's raw actions."""
        return storage.join(self.all_raw, f"month={month}")

    @property
    def categories(self) -> str:
        """The folder of the category files."""
        return category_folder(self.root)

    def category_file(self, category: str) -> str:
        """The file of a category."""
        return storage.join(self.categories, f"{category}.json")

    def category_names(self) -> list[str]:
        """The names of all category files, in order; whether they are allowed is not checked."""
        return list(list_category_files(self.categories))

    def all_outputs(self, asset: str) -> str:
        """The folder of the outputs of all partitions of an asset."""
        return storage.join(self._root, asset)

    def outputs(self, asset: str, partition: Partition) -> str:
        """The folder that holds all output folders of a partition; `{category}` may stand for a category."""
        parts = [self.all_outputs(asset), f"month={partition.month}"]
        return storage.join(*parts, *([f"category={partition.category}"] if partition.category is not None else []))

    def holds(self, folder: str) -> bool:
        """Whether a folder is below this root."""
        return folder.startswith(self._root + "/")

    def current(self, asset: str, partition: Partition) -> Current | None:
        """The current output of a partition, as `current.json` names it; None if there is no such file."""
        try:
            named = json.loads(storage.at(self._current_file(asset, partition)).read_text(encoding="utf-8"))
            return Current(named["folder"], named.get("promoted", False))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None  # a file that says nothing is written anew

    def point_current(
        self,
        asset: str,
        partition: Partition,
        folder: str,
        fingerprint: str,
        why: Why = "computed",
    ) -> Current:
        """Make an output the current one of its partition, for readers outside Dagster; which one that is now.

        What was just computed or promoted becomes current. What is merely reused does so as well, but for where another
        one was promoted and is still there: a pipeline that finds nothing to do takes no promotion back.
        """
        if why == "reused":
            current = self.current(asset, partition)
            if current is not None and (current.folder == folder or (current.promoted and self._has(current.folder))):
                return current
        current = Current(folder, promoted=why == "promoted")
        named = {
            "folder": folder,
            "fingerprint": fingerprint,
            "recorded_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            **({"promoted": True} if current.promoted else {}),
        }
        storage.write_text(self._current_file(asset, partition), json.dumps(named, indent=1) + "\n")
        return current

    def _current_file(self, asset: str, partition: Partition) -> str:
        return storage.join(self.outputs(asset, partition), _CURRENT)

    def _has(self, folder: str) -> bool:
        return self.holds(folder) and is_finished(folder)

    @property
    def _root(self) -> str:
        return storage.absolute(self.root)


def new_folder_name() -> str:
    """A name that no other materialization uses, and that sorts by time."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
