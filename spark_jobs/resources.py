"""What a job may use of the machine: memory, cores, and a folder for what does not stay in memory.

By default what the machine has or, in a container, what its cgroup (version 1 or 2) leaves of it.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from spark_jobs.errors import InputError

_SIZE = re.compile(r"(\d{1,18}(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE | re.ASCII)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_CGROUPS = Path("/sys/fs/cgroup")


class ResourcesConfig(BaseModel):
    """What the jobs may use. The result does not depend on it, so it is in no fingerprint."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    memory: str | None = Field(
        default=None, description="Memory, such as 6GB or 512MiB; if not given, what the machine or container has."
    )
    cores: int | None = Field(default=None, ge=1, description="Cores; if not given, those of the machine or container.")
    scratch: str | None = Field(
        default=None, description="Folder for what does not stay in memory; if not given, that of temporary files."
    )

    @field_validator("memory")
    @classmethod
    def _is_size(cls, text: str | None) -> str | None:
        if text is not None:
            parse_size(text)
        return text

    def resolve(self) -> "Resources":
        """The resources on this machine.

        Raises:
            InputError: The scratch folder does not exist.
        """
        scratch = self.scratch or tempfile.gettempdir()
        if not os.path.isdir(scratch):
            raise InputError(f"The scratch folder {scratch} does not exist. Make it, or name another with --scratch.")
        return Resources(
            parse_size(self.memory) if self.memory else memory_of_machine(), self.cores or cores_of_machine(), scratch
        )


@dataclass(frozen=True)
class Resources:
    """Bytes of memory, a number of cores, and a folder."""

    memory: int
    cores: int
    scratch: str

    def tasks(self, base: int, of_task: int, what: str) -> int:
        """How many tasks fit at a time: at most one a core.

        Args:
            base: Bytes that the process needs by itself.
            of_task: Bytes that each task needs.
            what: What needs them, for the error.

        Raises:
            InputError: Not even one does.
        """
        if base + of_task > self.memory:
            raise InputError(
                f"{what} needs {base + of_task:,} bytes of memory, and may use {self.memory:,}. Give it more (--memory,"
                " or memory in the config's resources), or run it on a larger machine."
            )
        return min(self.cores, (self.memory - base) // max(1, of_task))


def parse_size(text: str) -> int:
    """The bytes of a size such as `6GB` (powers of 1000) or `6GiB` (of 1024).

    Raises:
        ValueError: It is not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    number, power, binary = match.groups() if match else ("0", "", "")
    size = int(float(number) * (1024 if binary else 1000) ** _POWERS[power.upper()])
    if size == 0:
        raise ValueError(f"{text!r} is not a size, such as 6GB or 512MiB")
    return size


def memory_of_machine() -> int:
    """Bytes of memory that this process and its children can have: the machine's, or its cgroup's smallest limit."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for folder in _own_cgroups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            if (text := _read(folder / name)).isdigit():
                limits.append(int(text))
    return min(limits)


def cores_of_machine() -> int:
    """Cores that this process may run on, less what its cgroup withholds; at least 1."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    for folder in _own_cgroups("cpu"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if not period:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit():
            cores = min(cores, int(quota) / int(period))
    return max(1, int(cores))


def _own_cgroups(controller: str) -> Iterator[Path]:
    """The folders of this process's cgroup and those above it, whose limits hold as well."""
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        # Version 2 has one hierarchy. Within a container the path may be that on the host, and the root is its own.
        root = _CGROUPS / controller if controllers else _CGROUPS
        own = root / path.lstrip("/")
        yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(root))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
