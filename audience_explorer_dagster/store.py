"""Where things are: the one place that makes paths below the root."""

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, TypeVar

import dagster as dg
from pydantic import Field

from audience_explorer_dagster.partitions import Partition
from spark_jobs import storage
from spark_jobs.json_texts import parse_json
from spark_jobs.outputs import is_finished, is_whole
from spark_jobs.schema_versions import FIELD, check_schema_version
from spark_jobs.storage import conditional
from spark_jobs.vectors.category_files import category_folder, check_name, list_category_files

_CURRENT = "current.json"
_SCHEMA_VERSION = 1  # of current.json

OWN = "made with the deployment's own parameters"


@dataclass(frozen=True)
class Current:
    """The output of a partition that readers take."""

    folder: str
    promoted: bool = False  # asked for by a person, and so until a person ends that
    fingerprint: str | None = field(default=None, compare=False)  # None where an earlier version wrote `current.json`
    why: str = field(default="", compare=False)  # it is current; empty where an earlier version wrote `current.json`


CurrentOrNone = TypeVar("CurrentOrNone", bound=Current | None)


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

    @property
    def all_edits(self) -> str:
        """The folder of what people said of segments."""
        return storage.join(self._root, "edits")

    def edits_file(self, category: str) -> str:
        """The file of what people said of a category's segments; see `spark_jobs.following.edits`.

        Raises:
            BadCategory: No category can have that name.
        """
        return storage.join(self.all_edits, f"{check_name(category)}.yaml")

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

    def place(self, folder: str) -> str:
        """The name of an output folder relative to the root, such as `kmeans/month=2024-01/category=tea/2024…`."""
        return folder.removeprefix(self._root).lstrip("/")

    def locate(self, asset: str, partition: Partition, folder: str, root: str | None) -> str | None:
        """The output folder that a record names, if it is one of this root's.

        It must have its exact place below the root, so an output of a root within this one is none of it. One that was
        made below another root belongs to this one if it is here: the root was moved.

        Args:
            asset: The asset of the record.
            partition: Its partition.
            folder: As recorded: relative to the root, or absolute by earlier versions.
            root: The root at that time; None if earlier versions recorded none.
        """
        below = self.outputs(asset, partition)
        before, found, name = folder.rpartition(f"{self.place(below)}/")
        if not found or not name or "/" in name or not (before == "" or before.endswith("/")):
            return None
        here = storage.join(below, name)
        made_below = root if before == "" else before.removesuffix("/")
        return here if made_below == self._root or is_finished(here) else None

    def current(self, asset: str, partition: Partition) -> Current | None:
        """The current output of a partition, as `current.json` names it; None if there is no such file."""
        return self._current_of(asset, partition, self._read_current(asset, partition))

    def point_current(
        self,
        asset: str,
        partition: Partition,
        folder: str,
        fingerprint: str,
        beside: str = "",
        promoted: str = "",
    ) -> Current:
        """Settle which output of a partition is current, for readers outside Dagster, now that one was made or found.

        What was promoted becomes current, and stays so until a person ends that. What has the deployment's own
        parameters becomes current where none is promoted. What stands beside does so only where there is no other.

        Args:
            asset: The asset.
            partition: The partition.
            folder: The output that was made or found; it is there.
            fingerprint: Its fingerprint.
            beside: Why it is to stand beside the others; empty if it has the deployment's own parameters.
            promoted: Who made it current, if a person did.
        """

        def settle(known: Current | None) -> Current:
            if known is not None and known.folder != folder and not is_whole(known.folder, asset):
                known = None
            if promoted:
                return Current(folder, promoted=True, fingerprint=fingerprint, why=promoted)
            if known is not None and (known.promoted or beside):
                return known if known.fingerprint else replace(known, fingerprint=fingerprint)
            return Current(folder, fingerprint=fingerprint, why=f"there was no other; {beside}" if beside else OWN)

        return self._change_current(asset, partition, settle)

    def point_along(
        self, asset: str, partition: Partition, folder: str, fingerprint: str, source: str, made_from: str
    ) -> bool:
        """Make an output current if what it was made from is, and say whether: of an asset that goes with another one.

        Args:
            asset: The asset.
            partition: The partition.
            folder: The output that was made or found; it is there.
            fingerprint: Its fingerprint.
            source: The other asset.
            made_from: The fingerprint of the output of it that this one was made from.
        """
        current = Current(folder, fingerprint=fingerprint, why=f"it was made from the current {source}")

        def follow(_: Current | None) -> Current | None:
            # Once this file was read: if the source changes from now on, so does this file, by whoever changes that.
            return current if self.current_fingerprint(source, partition) == made_from else None

        return self._change_current(asset, partition, follow) is not None

    def current_fingerprint(self, asset: str, partition: Partition) -> str | None:
        """The fingerprint of the current output of a partition; None if there is no such file."""
        fingerprint = self._read_current(asset, partition).get("fingerprint")
        return None if fingerprint is None else str(fingerprint)

    def point_nowhere(self, asset: str, partition: Partition) -> None:
        """Say that no output of a partition is current."""
        storage.at(self._current_file(asset, partition)).unlink(missing_ok=True)

    def end_promotion(self, asset: str, partition: Partition) -> Current | None:
        """Let the next output with the deployment's own parameters be current; until then, what is current stays."""

        def end(known: Current | None) -> Current | None:
            if known is None or not known.promoted:
                return known
            return replace(known, promoted=False, why="it was promoted, and a person ended that")

        return self._change_current(asset, partition, end)

    def _read_current(self, asset: str, partition: Partition) -> dict[str, Any]:
        """What `current.json` says; empty if there is none, or it says nothing.

        Raises:
            NewerVersion: A newer version wrote it.
        """
        file = self._current_file(asset, partition)
        return _parse(conditional.read(file)[0], file)

    def _current_of(self, asset: str, partition: Partition, named: dict[str, Any]) -> Current | None:
        # The folder lies beside the file, wherever the root is now.
        name = str(named.get("folder", "")).rstrip("/").rpartition("/")[2]
        if not name:
            return None
        folder = storage.join(self.outputs(asset, partition), name)
        return Current(folder, bool(named.get("promoted")), named.get("fingerprint"), str(named.get("why", "")))

    def _change_current(
        self, asset: str, partition: Partition, change: Callable[[Current | None], CurrentOrNone]
    ) -> CurrentOrNone:
        """Change which output is current, from what it is: again and again, if others change that at the same time."""
        file = self._current_file(asset, partition)
        while True:
            text, version = conditional.read(file)
            written = _parse(text, file)
            current = change(self._current_of(asset, partition, written))
            # It is written again where the root was moved: its readers take the folder as it stands.
            said = {name: value for name, value in written.items() if name not in (FIELD, "recorded_at")}
            if current is None or _as_json(current) == said:
                return current
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            named = {FIELD: _SCHEMA_VERSION, **_as_json(current), "recorded_at": now}
            if conditional.replace(file, json.dumps(named, indent=1) + "\n", version):
                return current

    def _current_file(self, asset: str, partition: Partition) -> str:
        return storage.join(self.outputs(asset, partition), _CURRENT)

    @property
    def _root(self) -> str:
        return storage.absolute(self.root)


def _parse(text: str | None, file: str) -> dict[str, Any]:
    """What a file `current.json` says; nothing, if it is not there or makes no sense, so that it is written anew."""
    try:
        named = parse_json(text or "{}")
    except ValueError:
        return {}
    if not isinstance(named, dict) or not isinstance(named.get("folder"), str):
        return {}
    check_schema_version(named, file, _SCHEMA_VERSION)
    return named


def _as_json(current: Current) -> dict[str, Any]:
    return {
        "folder": current.folder,
        "fingerprint": current.fingerprint,
        **({"promoted": True} if current.promoted else {}),
        **({"why": current.why} if current.why else {}),
    }


def new_folder_name() -> str:
    """A name that no other materialization uses, and that sorts by time."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
