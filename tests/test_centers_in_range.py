"""A center that lies anywhere but among the data is found, in whatever dimension and on whichever side."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from spark_jobs.clusters.checks import centers_in_range
from spark_jobs.outputs.checks import CheckResult

LOW, HIGH = np.array([0.0, -2.0, 5.0]), np.array([1.0, 3.0, 5.0])
INSIDE = [0.5, 0.0, 5.0]


def check(centers: Sequence[Sequence[float]], described: Sequence[Sequence[float]] | None = None) -> CheckResult:
    batches = [pa.record_batch({"center": pa.array([center], pa.list_(pa.float64()))}) for center in centers]
    return centers_in_range(batches, LOW, HIGH, centers if described is None else described)


@pytest.mark.parametrize("center", [INSIDE, LOW, HIGH, [1.0, -2.0, 5.0 + 1e-12]])
def test_a_center_among_the_data_passes_also_on_its_edge_and_in_its_last_bits(center: Sequence[float]) -> None:
    found = check([INSIDE, center])
    assert found.passed
    assert found.found == {"centers": 2, "dimensions": 3, "outside": 0}


@pytest.mark.parametrize(
    ("dimension", "value"), [(0, -1e-6), (0, 1 + 1e-6), (1, -2 - 1e-6), (1, 3 + 1e-6), (2, 5 - 1e-6), (2, 5 + 1e-6)]
)
def test_a_center_a_little_beyond_the_data_fails_with_its_number_and_dimension(dimension: int, value: float) -> None:
    center = [*INSIDE[:dimension], value, *INSIDE[dimension + 1 :]]
    found = check([INSIDE, center])
    assert not found.passed
    assert found.why.startswith(f"center 1 is {value:.6g} in dimension {dimension}, where the data lie from ")
    assert found.found["outside"] == 1


def test_every_value_that_is_outside_is_counted_and_other_centers_in_meta_data_are_found() -> None:
    found = check([[-1.0, 9.0, 5.0], INSIDE, [2.0, 0.0, 5.0]])
    assert found.found["outside"] == 3
    assert found.why.count("center ") == 2
    assert not check([INSIDE], described=[[0.5, 0.0, 5.1]]).passed
    assert not check([INSIDE], described=[]).passed
