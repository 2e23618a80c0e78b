"""The local engine: processes of this machine, one a core, with pieces on disk; for small inputs threads of this one.

A thread that works on columns holds the interpreter's lock some of the time, which a few cores don't feel and many do.
But processes take the better part of a second to start. loky keeps them, takes closures, and says when one died.
"""

import contextlib
import os
import pickle
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from spark_jobs.arrow import leave_pandas_out
from spark_jobs.engines.engine import Counted, Engine, Exchange, Exchanged, Item, Merged, Turns
from spark_jobs.engines.pieces import Piece, Spill
from spark_jobs.errors import InputError
from spark_jobs.processes import end_with
from spark_jobs.resources import Resources

SMALL = 256 << 20  # bytes of items that threads of this process are done with before processes would be

# Of memory, measured (benchmarks/profiles): this process by itself, and one that runs tasks before its first.
_BASE_BYTES = 200 << 20
_PROCESS_BYTES = 150 << 20
_IDLE_SECONDS = 60  # until processes that have nothing to do end


class LocalEngine(Engine):
    """Runs tasks in processes of this machine."""

    def __init__(self, resources: Resources):
        self._resources = resources
        self._progress = "starting"

    @property
    def version(self) -> str:
        return "local"

    def progress(self) -> str:
        return self._progress

    def exchange(self, work: Exchange[Item, Counted, Merged]) -> Exchanged[Counted, Merged]:
        tasks = self._tasks(work, work.demand.split)
        here = sum(work.sizes) < SMALL or min(tasks, len(work.items)) == 1
        token, packed = uuid.uuid4().hex, b""
        if here:
            _functions[token] = (work.split, work.merge)
        else:
            import cloudpickle  # its import takes as long as a small job

            packed = cloudpickle.dumps((work.split, work.merge))
        try:
            with contextlib.ExitStack() as files:
                spills = [
                    files.enter_context(contextlib.closing(Spill(self._resources.scratch)))
                    for _ in range(min(tasks, len(work.items)))
                ]
                counted, places = self._split(work, spills, token, packed, here)
                merged = self._merge(work, spills, places, token, packed, here)
        finally:
            _functions.pop(token, None)
        return Exchanged(counted, merged)

    def _split(
        self, work: Exchange[Any, Any, Any], spills: list[Spill], token: str, packed: bytes, here: bool
    ) -> tuple[list[Any], dict[int, list["_Place"]]]:
        """What each item counted, and where the pieces of each key are."""
        counted: list[Any] = [None] * len(work.items)
        places: defaultdict[int, list[_Place]] = defaultdict(list)
        free = list(range(len(spills)))  # one task at a time writes to a file
        taken: dict[int, int] = {}

        def call(number: int) -> tuple[Any, ...]:
            taken[number] = free.pop()
            return (_split_item, token, packed, work.items[number], spills[taken[number]])

        largest_first = sorted(range(len(work.items)), key=lambda number: -work.sizes[number])
        ended = self._run(work, largest_first, call, len(spills), here)
        files, done = work.files or [1] * len(work.items), 0
        for number, (found, pieces) in ended:
            counted[number] = found
            for key, turn, piece in pieces:
                places[key].append(_Place(number, turn, taken[number], piece))
            free.append(taken.pop(number))
            done += files[number]
            self._progress = f"took apart {done:,} of {sum(files):,} files"
        return counted, places

    def _merge(
        self,
        work: Exchange[Any, Any, Any],
        spills: list[Spill],
        places: dict[int, list["_Place"]],
        token: str,
        packed: bytes,
        here: bool,
    ) -> dict[int, Any]:
        """What is made of each key's pieces."""
        sizes = {key: sum(place.piece.length for place in of_key) for key, of_key in places.items()}
        tasks = self._tasks(work, int(work.demand.merge * max(sizes.values(), default=0)))
        merged: dict[int, Any] = {}

        def call(key: int) -> tuple[Any, ...]:
            in_order = sorted(places[key], key=lambda place: (place.item, place.turn))
            used = {place.spill: spills[place.spill] for place in in_order}
            return (_merge_key, token, packed, key, used, [(place.spill, place.piece) for place in in_order])

        largest_first = sorted(sizes, key=lambda key: (-sizes[key], key))
        for key, made in self._run(work, largest_first, call, tasks, here):
            merged[key] = made
            self._progress = f"merged {len(merged)} of {len(sizes)} parts"
        return merged

    def _tasks(self, work: Exchange[Any, Any, Any], of_task: int) -> int:
        """How many tasks may run at a time, each in a process of its own."""
        return self._resources.tasks(_BASE_BYTES, _PROCESS_BYTES + of_task, work.what)

    def _run(
        self,
        work: Exchange[Any, Any, Any],
        numbers: Iterable[int],
        call: Callable[[int], tuple[Any, ...]],
        tasks: int,
        here: bool,
    ) -> Iterator[tuple[int, Any]]:
        """Call a function for each number, so many at a time, and yield what each gives as it ends."""
        waiting, running = iter(numbers), dict[Future[Any], int]()
        try:
            with _threads(tasks) if here else _processes(tasks) as pool:
                while True:
                    while len(running) < tasks and (number := next(waiting, None)) is not None:
                        running[pool.submit(*call(number))] = number
                    if not running:
                        return
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        number, result = running.pop(future), future.result()
                        if isinstance(result, _Refused):
                            raise InputError(result.message)
                        yield number, result
        except BrokenProcessPool as error:
            raise InputError(
                f"{work.what}: one of {tasks} processes was killed, most likely for want of memory:"
                f" {self._resources.memory / 1e9:,.1f} GB may be used in all. Give it more (--memory, or memory in the"
                " config's resources), let fewer run at a time (--cores), or run it on a larger machine."
            ) from error


@dataclass(frozen=True)
class _Place:
    """Where a piece is, and where it belongs among those of its key."""

    item: int
    turn: int
    spill: int
    piece: Piece


@dataclass(frozen=True)
class _Refused:
    """What a task gives back that found its input unusable."""

    message: str


class _ThisThread(Executor):
    """This very thread."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **_: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future


@contextlib.contextmanager
def _threads(count: int) -> Iterator[Executor]:
    """So many threads of this process; after an error, none of them starts another task."""
    if count == 1:
        yield _ThisThread()
        return
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _processes(count: int) -> Iterator[Executor]:
    """So many processes, which stay for the next exchange and the next job, but are ended by an error."""
    from loky import get_reusable_executor

    pool = get_reusable_executor(
        max_workers=count, timeout=_IDLE_SECONDS, initializer=_prepare, initargs=(os.getpid(),)
    )
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=True, kill_workers=True)
        raise


# --- in the processes ------------------------------------------------------------------------------

_functions: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {}  # by the token of the exchange


def _prepare(parent: int) -> None:
    leave_pandas_out()
    end_with(parent)


def _functions_of(token: str, packed: bytes) -> tuple[Callable[..., Any], Callable[..., Any]]:
    if token not in _functions:
        _functions.clear()  # of an exchange before
        _functions[token] = pickle.loads(packed)  # noqa: S301  # from the process that started this one
    return _functions[token]


def _split_item(token: str, packed: bytes, item: Any, spill: Spill) -> Any:
    """What an item counted, and its pieces: of which key, which of its turns, and where."""
    split, _ = _functions_of(token, packed)
    turns = Turns(split(item))
    try:
        kept = [(key, turn, spill.put(piece)) for turn, pieces in enumerate(turns) for key, piece in pieces.items()]
    except InputError as error:
        return _Refused(str(error))
    return turns.counted, kept


def _merge_key(token: str, packed: bytes, key: int, spills: dict[int, Spill], places: list[tuple[int, Piece]]) -> Any:
    _, merge = _functions_of(token, packed)
    try:
        return merge(key, (spills[spill].take(piece) for spill, piece in places))
    except InputError as error:
        return _Refused(str(error))
