"""How a launch ended."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

SCHEMA_VERSION = 1  # of a launch's description and status; those of earlier versions name none


@dataclass(frozen=True)
class Status:
    """How a launch ended.

    Attributes:
        exit_code: Of the process of the jobs, negative for a signal; None if it was not started.
        overdue: Whether it was ended because it took too long.
        out_of_memory: Whether the kernel ended a process for its memory meanwhile.
        error: What kept the jobs from being run, or what they said from being stored; None if nothing did.
        messages: How many messages were written.
        objects: How many objects of each stream were.
        seconds: From the agent's start to its end.
    """

    exit_code: int | None = None
    overdue: bool = False
    out_of_memory: bool = False
    error: str | None = None
    messages: int = 0
    objects: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @classmethod
    def parse(cls, text: bytes) -> "Status":
        """A status from its JSON; what else that has is left out."""
        known = {each.name for each in fields(cls)}
        read: dict[str, Any] = json.loads(text)
        return cls(**{name: value for name, value in read.items() if name in known})

    def as_json(self) -> bytes:
        """It as JSON."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)}, indent=1).encode()
