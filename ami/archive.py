"""What a builder gets: the files of this folder that make a machine, and the list of the packages that it needs."""

import gzip
import hashlib
import io
import os
import tarfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from spark_jobs import REQUIRES

HERE = Path(__file__).parent
FILES = (
    HERE / "audience-explorer-boot",
    HERE / "audience-explorer-scratch",
    HERE / "audience-explorer-scratch.service",
    HERE / "boot.py",
    HERE / "builder.py",
    HERE / "jars.py",
    HERE / "jars.txt",
    HERE / "provision.sh",
    HERE / "self_check.py",
    HERE / "spark-defaults.conf",
    HERE / "spark-env.sh",
    HERE.parent / "constraints.txt",
)


def requirements() -> str:
    """What pip installs: the distributions that jobs need, in the versions that pyproject.toml allows."""
    allowed = {canonicalize_name(r.name): r for r in map(Requirement, metadata.requires("audience-explorer") or [])}
    lines = []
    for name in REQUIRES:
        requirement = allowed[canonicalize_name(name)]
        requirement.marker = None  # that of the project's extra
        lines.append(f"{requirement}\n")
    return "".join(lines)


def pack() -> tuple[str, bytes]:
    """The archive (tar.gz), and its SHA-256 in hex before it. The same files give the same bytes."""
    contents = {file.name: (file.read_bytes(), os.access(file, os.X_OK)) for file in FILES}
    contents["requirements.txt"] = (requirements().encode(), False)
    tarred = io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, (content, executable) in sorted(contents.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755 if executable else 0o644
            tar.addfile(entry, io.BytesIO(content))
    archive = gzip.compress(tarred.getvalue(), mtime=0)
    return hashlib.sha256(archive).hexdigest(), archive
