"""What a builder gets: the files of this folder that make a machine, and the list of the packages that it needs."""

import hashlib
import io
import os
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from spark_jobs import REQUIRES
from spark_jobs.launch.targz import write_tar_gz

HERE = Path(__file__).parent
FILES = (
    HERE / "audience-explorer-boot",
    HERE / "audience-explorer-scratch",
    HERE / "audience-explorer-scratch.service",
    HERE / "boot.py",
    HERE / "builder.py",
    HERE / "cloud-init.conf",
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
    contents = {file.name: file.read_bytes() for file in FILES} | {"requirements.txt": requirements().encode()}
    packed = io.BytesIO()
    write_tar_gz(packed, sorted(contents.items()), {file.name for file in FILES if os.access(file, os.X_OK)})
    return hashlib.sha256(packed.getvalue()).hexdigest(), packed.getvalue()
