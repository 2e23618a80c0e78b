"""Parts of a launch on EC2 that decide what is said of it."""

from typing import Any

import pytest

from ami.instances import Instance
from audience_explorer_dagster.launchers.ec2 import prices
from audience_explorer_dagster.launchers.ec2.errors import JobFailed, Refused
from audience_explorer_dagster.launchers.ec2.outcome import Limits, Snapshot, find_problem
from spark_jobs.launch.status import Status

LIMITS = Limits(boot_timeout=600, max_runtime=3600)


def instance(**changed: Any) -> Instance:
    values: dict[str, Any] = {"launched_at": None, "tags": {}, "state": "terminated", "market": "spot"}
    return Instance(**{"id": "i-1", "type": "t", "zone": "z", **values, **changed})


@pytest.mark.parametrize(
    ("code", "how"), [(0, "exited with code 0"), (2, "exited with code 2"), (-9, "was ended by SIGKILL")]
)
def test_a_process_that_left_jobs_undone_is_told_by_how_it_ended(code: int, how: str) -> None:
    seen = Snapshot(instance(), 9.0, 5.0, status=Status(exit_code=code), unended=2, last_words="it broke")
    assert find_problem(seen, LIMITS) == (
        JobFailed,
        f"the process of the jobs {how}, with 2 jobs not done; its last words:\nit broke\n",
    )


@pytest.mark.parametrize(
    ("explanation", "says"), [("the volume's key is disabled", "the volume's key is disabled"), ("", "REASON")]
)
@pytest.mark.parametrize(
    "reason", ["Client.InternalError", "Client.InvalidSnapshot.NotFound", "Client.VolumeLimitExceeded"]
)
def test_what_ec2_cannot_start_however_often_is_refused_in_its_words(reason: str, explanation: str, says: str) -> None:
    seen = Snapshot(instance(reason=reason, explanation=explanation), 9.0, is_gone=True, unended=2)
    said = says.replace("REASON", reason)
    assert find_problem(seen, LIMITS) == (Refused, f"EC2 can't start it ({said}), with 2 jobs not done")


def test_a_price_is_by_the_hour_and_what_is_not_known_costs_nothing_that_is() -> None:
    assert prices.Price(0.5).of(5400) == 0.75
    assert prices.Price(0.0).of(60) == 0
    assert prices.Price(None, "why").of(60) is None
