"""Where things are: the one place that makes paths below the root."""

import json
import secrets
from datetime import datetime, timezone

import dagster as dg
from pydantic import Field

from audience_explorer_dagster.partitions import Partition
from spark_jobs import storage
from spark_jobs.categories import list_category_files


class Store(dg.ConfigurableResource[None]):
    """The root under which raw data, category files and all outputs are."""

    root: str = Field(description="A local folder or s3://bucket/prefix.")

    def raw(self, month: str) -> str:
        """The folder of a month's raw actions."""
        return storage.join(self._root, "raw", f"month={month}")

    @property
    def categories(self) -> str:
        """The folder of the category files."""
        return storage.join(self._root, "categories")

    def category_file(self, category: str) -> str:
        """The file of a category."""
        return storage.join(self.categories, f"{category}.json")

    def category_names(self) -> list[str]:
        """The names of all category files, in order; whether they are allowed is not checked."""
        return list(list_category_files(self.categories))

    def outputs(self, asset: str, partition: Partition) -> str:
        """The folder that holds all output folders of a partition; `{category}` may stand for a category."""
        parts = [self._root, asset, f"month={partition.month}"]
        return storage.join(*parts, *([f"category={partition.category}"] if partition.category is not None else []))

    def holds(self, folder: str) -> bool:
        """Whether a folder is below this root."""
        return folder.startswith(self._root + "/")

    def point_current(self, asset: str, partition: Partition, folder: str, fingerprint: str) -> None:
        """Name the newest output of a partition, for readers outside Dagster."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        text = json.dumps({"folder": folder, "fingerprint": fingerprint, "recorded_at": now}, indent=1)
        storage.write_text(storage.join(self.outputs(asset, partition), "current.json"), text + "\n")

    @property
    def _root(self) -> str:
        return storage.absolute(self.root)


def new_folder_name() -> str:
    """A name that no other materialization uses, and that sorts by time."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
