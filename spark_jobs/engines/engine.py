"""What an engine does: it takes items apart in many tasks, brings together what belongs to each key, and merges it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Counted = TypeVar("Counted")
Merged = TypeVar("Merged")


@dataclass(frozen=True)
class Demand:
    """What the tasks of an exchange need: bytes of memory, measured (benchmarks/profiles)."""

    split: int  # of a task that takes an item apart
    merge: float  # of one that merges a key, a byte of its packed pieces


@dataclass(frozen=True)
class Exchange(Generic[Item, Counted, Merged]):
    """One shuffle of a job.

    What moves are pieces that the caller has packed. So an engine handles thousands of byte strings instead of hundreds
    of millions of rows, and never needs more memory than the tasks that run at a time.

    Functions, items and what they give may cross to other processes, so all of it must be picklable (by cloudpickle).
    """

    what: str  # it does, such as `Grouping s3://…`; for errors
    items: Sequence[Item]
    sizes: Sequence[int]  # bytes of each item, about
    # Yields pieces of an item, by key from 0 to `keys` - 1, any number of times, and returns what it counted. It may be
    # done again after a failure.
    split: Callable[[Item], Generator[Mapping[int, bytes], None, Counted]]
    # Makes something of a key's pieces, which come in the order of the items and of their yields.
    merge: Callable[[int, Iterator[bytes]], Merged]
    keys: int  # how many there may be
    demand: Demand
    files: Sequence[int] = ()  # that each item is of, to say how far it is; by default one


@dataclass(frozen=True)
class Exchanged(Generic[Counted, Merged]):
    """What came of an exchange."""

    counted: list[Counted]  # of each item
    merged: dict[int, Merged]  # of each key that had a piece


class Turns(Generic[Counted]):
    """What `split` yields of an item, and what it has counted once that is over."""

    counted: Counted

    def __init__(self, split: Generator[Mapping[int, bytes], None, Counted]):
        self._split = split

    def __iter__(self) -> Iterator[Mapping[int, bytes]]:
        self.counted = yield from self._split


class Engine(ABC):
    """Runs the tasks of a job."""

    @property
    @abstractmethod
    def version(self) -> str:
        """Its name and version, such as `spark 4.2.0`."""

    @abstractmethod
    def exchange(self, work: Exchange[Item, Counted, Merged]) -> Exchanged[Counted, Merged]:
        """Do an exchange.

        Raises:
            InputError: A task raised one, or there is too little memory or scratch room; the message says what is
                needed.
        """

    @abstractmethod
    def progress(self) -> str:
        """How far the exchange is that runs now, in words; another thread may ask."""
