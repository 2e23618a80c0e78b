"""The numbers that were tuned, by value: with others the same inputs give other segments, and that must be meant.

If a test here fails, a number changed that decides what comes out. Measure it (`benchmarks/segments` and
`benchmarks/following` are what these were tuned by), raise the CODE_VERSION of the steps that are named with it, and
take the new values.
"""

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from spark_jobs import follow_segments, kmeans, select_k
from spark_jobs.clusters import clustering, local_search, selection, stability
from spark_jobs.config import KMeansParams
from spark_jobs.following import follow, tastes

# Module, the steps whose output it decides with their code versions, and its numbers.
PINNED: list[tuple[ModuleType, dict[ModuleType, str], dict[str, Any]]] = [
    (
        selection,
        {select_k: "3"},
        {
            **{"FALSE_ALARMS": 0.01, "ENOUGH_PEOPLE": 50, "ENOUGH_PAGES": 4, "ENOUGH_EVIDENCE": 3.5},
            **{"_SPLITS": 4, "_FEW_PEOPLE_SPLITS": 8, "_FEW_PEOPLE": 2000, "_STRANGERS": 8, "_STRATA": 8},
            **{"_PEOPLE_A_STRATUM": 50, "_VISITS_A_PAGE": 10, "_PRIOR_PEOPLE": 10.0},
            **{"_AS_GOOD_ERRORS": 2.0, "_AS_GOOD_SHARE": 0.01, "_SURE_INITS": 3},
            **{"_PARAMS": KMeansParams("kmeans||", 100, 0.001), "_REFIT_MAX_ITER": 50, "_REFIT_TOL": 0.01},
        },
    ),
    (
        local_search,
        {select_k: "3", kmeans: "6"},
        {
            **{"_SPLIT_ITERATIONS": 5, "_CANDIDATES": 8, "_MOST_ROUNDS": 100, "_SMALLEST_GAIN": 1e-9, "_PATIENCE": 8},
            **{"THOROUGH": local_search.Tries(splits=8, new_centers=10)},
            **{"QUICK": local_search.Tries(splits=3, new_centers=3)},
        },
    ),
    (clustering, {select_k: "3", kmeans: "6"}, {"_SEARCHES": ((256, 5), (4096, 2)), "_CORESET": 16384}),
    (
        stability,
        {kmeans: "6"},
        {"_FEWEST_DRAWS": 10, "_MOST_DRAWS": 20, "_INITS": 2, "_PARAMS": KMeansParams("kmeans||", 50, 0.01)},
    ),
    (
        follow,
        {follow_segments: "4"},
        {
            **{"MONTHS_KEPT": 3, "_WELL_EXPLAINED": 0.75, "_PART": 0.15, "_OVERLAP": 0.25, "_LARGEST_LOG_ODDS": 2.0},
            **{"_EXPLAINED": 0.2, "_GONE": 0.25, "_ERRORS": 3.0, "_DECAY": 0.5, "_COMMON_VISITS": 0.5, "_REFINED": 5},
            **{"_ENOUGH_PEOPLE": 20, "_ENOUGH_RETURNED": 10},
        },
    ),
    (
        tastes,
        {follow_segments: "4"},
        {
            **{"_PRIOR_PEOPLE": 10.0, "_PRIOR_VISITS": 0.1, "_LARGEST_LOG_ODDS": 3.0, "_WEIGHT_ITERATIONS": 60},
            **{"_STRATA": 4, "_PEOPLE_A_STRATUM": 50, "_MOST_PAIRS": 10, "_TWO": 0.35},
            "UNKNOWN": tastes.Apart(0.0, np.inf),
        },
    ),
]


@pytest.mark.parametrize(("module", "steps", "numbers"), PINNED, ids=[module.__name__ for module, _, _ in PINNED])
def test_numbers_that_decide_what_comes_out_change_only_with_the_code_version(
    module: ModuleType, steps: dict[ModuleType, str], numbers: dict[str, Any]
) -> None:
    assert {name: getattr(module, name) for name in numbers} == numbers
    assert {step: step.CODE_VERSION for step in steps} == steps
