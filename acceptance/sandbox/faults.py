"""What can be made to go wrong, when a test or a person orders it."""

import os
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Literal

from acceptance.sandbox.hypervisor import Instance, Market, NotPossible, Orders
from acceptance.sandbox.machine import Limits

Caller = Literal["operator", "launcher", "instance"]
"""Who calls the API: who runs the sandbox (`Sandbox.client`), whoever uses its environment, or an instance."""

_GROWN = 256  # vCPUs at a time on a market, of an account that is not new


class Faults:
    """The faults that can be ordered; those that last for some time, or some calls, end by themselves.

    No fault concerns the operator, that is, the clients that `Sandbox.client` gives.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Take back what was ordered and did not happen yet, or still lasts."""
        with self._lock:
            self._no_capacity: set[tuple[str, Market]] = set()
            self._refusals: list[_Refusal] = []
            self._lost_answers: list[str] = []
            self._cuts: dict[str, float] = {}
            self._invisible = 0.0
            self._role_known_at = 0.0
            self._vcpus: dict[Market, int] = {}
            self._next = Orders()

    # Launching

    def no_capacity(self, instance_type: str, market: Market | None = None) -> None:
        """There is no capacity for a type, on one market or on both, until the faults are cleared."""
        markets: tuple[Market, ...] = (market,) if market else ("spot", "on-demand")
        with self._lock:
            self._no_capacity.update((instance_type, each) for each in markets)

    def lose_capacity(self) -> None:
        """The next instance is accepted, and then ends before it runs: `Server.InsufficientInstanceCapacity`."""
        self._order(loses_capacity=True)

    def boot_never_finishes(self) -> None:
        """The next instance runs, and its user data does nothing."""
        self._order(never_boots=True)

    def disk_size(self, size: int) -> None:
        """The next instance has a disk of so many bytes (light: for scratch). Needs root."""
        _require_root("a disk of limited size is a file system of its own")
        self._order(disk=size)

    def memory_limit(self, size: int) -> None:
        """The next instance has so many bytes of memory; when they are used up, the kernel kills. Needs root."""
        _require_root("memory is limited by a cgroup")
        self._order(memory=size)

    def invisible(self, seconds: float) -> None:
        """For so long after its launch an instance is not found by those who launched it, as the API is only
        eventually consistent: `InvalidInstanceID.NotFound`, and filters do not show it."""
        with self._lock:
            self._invisible = seconds

    def new_role(self, seconds: float) -> None:
        """For so long the instance profile and its role are known to nobody yet, as after they are made: EC2 refuses to
        launch with the profile, and S3 the role."""
        with self._lock:
            self._role_known_at = time.monotonic() + seconds

    def quota(self, market: Market, vcpus: int) -> None:
        """The account may have so many vCPUs at a time on a market; 5 is a new one's. Until the faults are cleared:
        without them it has 256, as an account that has grown."""
        with self._lock:
            self._vcpus[market] = vcpus

    # The API

    def throttle(
        self,
        count: int | None = None,
        *,
        seconds: float | None = None,
        action: str | None = None,
        caller: Caller | None = None,
    ) -> None:
        """Refuse calls with `RequestLimitExceeded` (S3: `SlowDown`).

        Args:
            count: So many calls, or
            seconds: calls for so long.
            action: Only those of this action, such as `RunInstances` or `PutObject`.
            caller: Only those of `launcher` or `instance`.
        """
        self._refuse(_Refusal("throttle", _times(count, seconds), action, caller))

    def server_errors(
        self,
        count: int | None = None,
        *,
        seconds: float | None = None,
        action: str | None = None,
        caller: Caller | None = None,
    ) -> None:
        """Answer calls with an error of the server's: 503 `SlowDown` from S3, 500 `InternalError` from the others.

        The arguments are those of `throttle`.
        """
        self._refuse(_Refusal("server_error", _times(count, seconds), action, caller))

    def lose_answer(self, action: str) -> None:
        """Do what the next call of a launcher's for this action asks for, and then drop the connection."""
        with self._lock:
            self._lost_answers.append(action)

    # A running instance

    def interrupt(self, instance: Instance, seconds: float = 2.0) -> None:
        """Announce a spot interruption to an instance now, and end it after so many seconds (AWS: two minutes)."""
        if instance.market != "spot":
            raise NotPossible(f"{instance.id} is on demand: only spot instances are interrupted")
        instance.interrupt(datetime.now(timezone.utc) + timedelta(seconds=seconds))

    def kill_boot(self, instance: Instance) -> None:
        """Kill an instance's boot program with signal 9."""
        killed = instance.running_machine.kill("boot.py")
        if not killed:
            raise NotPossible(f"{instance.id} runs no boot.py; what it printed is in {instance.log}")

    def fill_disk(self, instance: Instance) -> None:
        """Fill an instance's disk, of which the size was ordered with `disk_size` before the launch."""
        machine = instance.running_machine
        if machine.limits.disk is None:
            raise NotPossible(f"{instance.id} shares this machine's disk: order disk_size(…) before its launch")
        machine.fill_disk()

    def cut_network(self, instance: Instance, seconds: float) -> None:
        """An instance's connections to the API break for so long. Its metadata service is not behind the network."""
        with self._lock:
            self._cuts[instance.id] = time.monotonic() + seconds

    def terminate(self, instance: Instance) -> None:
        """Terminate an instance, as a person does from the console."""
        instance.terminate()

    # What the sandbox asks

    def has_capacity(self, instance_type: str, market: Market) -> bool:
        """Whether an instance can be launched."""
        with self._lock:
            return (instance_type, market) not in self._no_capacity

    def vcpus(self, market: Market) -> int:
        """How many vCPUs the account may have at a time."""
        with self._lock:
            return self._vcpus.get(market, _GROWN)

    def role_is_new(self) -> bool:
        """Whether the instances' profile and role are not known yet."""
        with self._lock:
            return time.monotonic() < self._role_known_at

    def take_orders(self) -> Orders:
        """What was ordered for the instance that is being launched."""
        with self._lock:
            taken, self._next = self._next, Orders()
            return taken

    def hides(self, launched_seconds_ago: float) -> bool:
        """Whether an instance is not visible yet."""
        with self._lock:
            return launched_seconds_ago < self._invisible

    def refuses(self, caller: Caller, action: str) -> str | None:
        """Whether a call is refused: `throttle`, `server_error` or None."""
        with self._lock:
            return next((refusal.kind for refusal in self._refusals if refusal.concerns(caller, action)), None)

    def loses_answer(self, caller: Caller, action: str) -> bool:
        """Whether the answer to a call is lost."""
        with self._lock:
            if caller != "launcher" or action not in self._lost_answers:
                return False
            self._lost_answers.remove(action)
            return True

    def cuts(self, instance_id: str) -> bool:
        """Whether an instance's network is cut."""
        with self._lock:
            return time.monotonic() < self._cuts.get(instance_id, 0)

    def _order(
        self,
        disk: int | None = None,
        memory: int | None = None,
        loses_capacity: bool = False,
        never_boots: bool = False,
    ) -> None:
        with self._lock:
            limits = Limits(disk or self._next.limits.disk, memory or self._next.limits.memory)
            self._next = Orders(
                limits, self._next.loses_capacity or loses_capacity, self._next.never_boots or never_boots
            )

    def _refuse(self, refusal: "_Refusal") -> None:
        with self._lock:
            self._refusals.append(refusal)


class _Refusal:
    def __init__(self, kind: str, happens: Callable[[], bool], action: str | None = None, caller: Caller | None = None):
        self.kind, self._happens, self._action, self._caller = kind, happens, action, caller

    def concerns(self, caller: Caller, action: str) -> bool:
        """Whether it refuses this call, which is then counted."""
        return self._action in (None, action) and self._caller in (None, caller) and self._happens()


def _times(count: int | None, seconds: float | None) -> Callable[[], bool]:
    """Says yes so often, or for so long."""
    if (count is None) == (seconds is None):
        raise TypeError("either a count or seconds must be given")
    if seconds is not None:
        end = time.monotonic() + seconds
        return lambda: time.monotonic() < end
    left = iter(range(count or 0))
    return lambda: next(left, None) is not None


def _require_root(why: str) -> None:
    if os.geteuid() != 0:
        raise NotPossible(f"this fault needs root: {why}")
