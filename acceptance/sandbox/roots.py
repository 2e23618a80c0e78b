"""The roots of images: Debian's, made by debootstrap, and on it, as layers of an overlay, what instances wrote."""

import contextlib
import fcntl
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from moto.ec2.models.amis import Ami

from acceptance.sandbox.machine import MachineFailed

_RELEASE = "trixie"  # Debian 13
# What Debian's image has and a root of debootstrap's has not; the machine ends with its process 1.
_SHUTDOWN = "#!/bin/sh\nkill -TERM 1\n"


@dataclass(frozen=True)
class SavedImage:
    """An image as it is kept: what EC2 knows of it, and which images' layers lie below its own."""

    id: str
    name: str
    description: str
    created: str
    tags: dict[str, str]
    below: list[str]


class Roots:
    """A folder of roots.

    Sandboxes at the same time may share one; an image that one of them deregisters must not be in use by another.

    Args:
        folder: It is made if need be.
    """

    def __init__(self, folder: Path):
        self._folder = folder.resolve()
        self._debian = self._folder / "debian-13"
        self._images = self._folder / "images"
        self._forgotten: list[str] = []

    def images(self) -> list[SavedImage]:
        """The images that are kept."""
        return [SavedImage(**json.loads(file.read_text())) for file in sorted(self._images.glob("*/image.json"))]

    def layers(self, image_id: str) -> list[Path]:
        """The folders that make up an image's root, from the top; only Debian's for an image that is not kept.

        Raises:
            MachineFailed: Debian's root could not be made.
        """
        return [*(self._layer(each) for each in self._stack(image_id)), self._make_debian()]

    def is_debian(self, image_id: str) -> bool:
        """Whether an image is Debian's own."""
        return not self._file(image_id).exists()

    def keep(self, image: Ami, disk: Path) -> None:
        """Let what an instance wrote be the top layer of an image; it is moved."""
        layer = self._layer(image.id)
        with self._locked():
            layer.parent.mkdir(parents=True)
            # Unlike shutil's, this takes an overlay's device nodes and attributes to another file system, too.
            subprocess.run(["mv", str(disk), str(layer)], check=True)
            self.save(image, self._stack(image.instance.image_id))

    def save(self, image: Ami, below: list[str] | None = None) -> None:
        """Keep what EC2 knows of an image; of one that has no root here, nothing is kept."""
        file = self._file(image.id)
        if below is None:
            if not file.exists():
                return
            below = SavedImage(**json.loads(file.read_text())).below
        tags = {tag["key"]: tag["value"] for tag in image.get_tags()}
        created = image.creation_date.isoformat()
        saved = SavedImage(image.id, image.name or "", image.description or "", created, tags, below)
        draft = file.with_suffix(".new")
        draft.write_text(json.dumps(asdict(saved), indent=1))
        draft.replace(file)

    def forget(self, image_id: str) -> None:
        """Let an image go at the end: until then instances may run from it."""
        self._forgotten.append(image_id)

    def close(self) -> None:
        """Delete the images that were let go, and the layers that lie below none any more."""
        with self._locked():
            for image_id in self._forgotten:
                self._file(image_id).unlink(missing_ok=True)
            kept = self.images()
            needed = {image.id for image in kept}.union(*(image.below for image in kept))
            for folder in self._images.glob("*/"):
                if folder.name not in needed:
                    shutil.rmtree(folder)

    def _file(self, image_id: str) -> Path:
        return self._images / image_id / "image.json"

    def _layer(self, image_id: str) -> Path:
        return self._images / image_id / "layer"

    def _stack(self, image_id: str) -> list[str]:
        """An image, and those below it, but for Debian's."""
        if self.is_debian(image_id):
            return []
        return [image_id, *SavedImage(**json.loads(self._file(image_id).read_text())).below]

    def _make_debian(self) -> Path:
        """Debian's root, made at its first use: half a minute, and packages from Debian's mirrors."""
        with self._locked():
            if not self._debian.exists():
                draft = self._debian.with_suffix(".new")
                shutil.rmtree(draft, ignore_errors=True)
                command = ["debootstrap", "--variant=minbase", "--include=ca-certificates", _RELEASE, str(draft)]
                made = subprocess.run(command, capture_output=True, text=True, check=False)
                if made.returncode:
                    raise MachineFailed(f"debootstrap failed: {made.stdout[-1000:]}{made.stderr[-1000:]}")
                shutdown = draft / "usr" / "sbin" / "shutdown"
                shutdown.write_text(_SHUTDOWN)
                shutdown.chmod(0o755)
                draft.rename(self._debian)
        return self._debian

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other threads and sandboxes from making the same."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def created_at(image: SavedImage) -> datetime:
    """When an image was made."""
    return datetime.fromisoformat(image.created)
