"""What may be said of people to people: nothing of fewer than `min_people` of them.

A count of fewer is None, and any other is rounded to a multiple of `min_people`, so that what is not said does not
follow from totals and parts either. Shares are of rounded counts. Other figures are rounded so far that they don't
give a count away. Exact figures are for the systems that act: `data.json`, `meta-data.json`, `assignments.parquet`.
"""

import math

import numpy as np
import pyarrow as pa

from spark_jobs.config import KMeansConfig
from spark_jobs.outputs.schemas import AT_LEAST_0, TableRules

SEGMENT_PROFILE = pa.schema(
    [
        ("cluster_id", pa.int32()),
        ("dimension_id", pa.string()),
        ("dimension_name", pa.string()),
        ("people", pa.int64()),
        ("share", pa.float64()),
        ("rest_people", pa.int64()),
        ("rest_share", pa.float64()),
        ("month_share", pa.float64()),
        ("lift", pa.float64()),
        ("lift_low", pa.float64()),
        ("lift_high", pa.float64()),
        ("z", pa.float64()),
        ("distinctive", pa.bool_()),
    ]
)
_FIGURES = tuple(SEGMENT_PROFILE.names[3:-1])
SEGMENT_PROFILES = TableRules(
    "profiles.parquet",
    SEGMENT_PROFILE,
    non_empty=("dimension_id",),
    ranges={
        **dict.fromkeys(("cluster_id", "people", "rest_people", "lift", "lift_low", "lift_high"), AT_LEAST_0),
        **dict.fromkeys(("share", "rest_share", "month_share"), (0, 1)),
    },
    optional=_FIGURES,  # where they would say something of fewer than `min_people`
)

EVERYBODY, SEGMENT = "everybody", "segment"  # baselines: all people, the segment's own too; and one other segment
SEGMENT_COMPARISON = pa.schema(
    [
        ("cluster_id", pa.int32()),
        ("baseline", pa.string()),
        ("baseline_cluster_id", pa.int32()),
        ("dimension_id", pa.string()),
        ("dimension_name", pa.string()),
        ("people", pa.int64()),
        ("share", pa.float64()),
        ("baseline_people", pa.int64()),
        ("baseline_share", pa.float64()),
        ("lift", pa.float64()),
        ("lift_low", pa.float64()),
        ("lift_high", pa.float64()),
        ("z", pa.float64()),
        ("distinctive", pa.bool_()),
    ]
)
SEGMENT_COMPARISONS = TableRules(
    "comparisons.parquet",
    SEGMENT_COMPARISON,
    non_empty=("baseline", "dimension_id"),
    ranges={
        **dict.fromkeys(("cluster_id", "baseline_cluster_id", "people", "baseline_people"), AT_LEAST_0),
        **dict.fromkeys(("lift", "lift_low", "lift_high"), AT_LEAST_0),
        **dict.fromkeys(("share", "baseline_share"), (0, 1)),
    },
    # No other segment where everybody is the baseline; no figures where they would say something of too few people.
    optional=("baseline_cluster_id", "baseline_people", "baseline_share", "lift", "lift_low", "lift_high", "z"),
)

_POWERS = 10.0 ** np.arange(-20, 21)
MIN_PEOPLE: int = KMeansConfig.model_fields["min_people"].default  # of what is said before k-means, or of no config


def count(people: int, min_people: int) -> int | None:
    """So many people, to the nearest multiple of `min_people` (a half up); None for fewer than that."""
    return None if people < min_people else (2 * people + min_people) // (2 * min_people) * min_people


def in_words(people: int, min_people: int = MIN_PEOPLE) -> str:
    """So many people for a text, such as `1,230`, or `fewer than 10`."""
    said = count(people, min_people)
    return f"fewer than {min_people}" if said is None else f"{said:,}"


def share(people: int, of: int, min_people: int) -> float | None:
    """The share of `people` among `of`, from 0 to 1 in whole percents; None where one of both is not said."""
    part, whole = count(people, min_people), count(of, min_people)
    return None if part is None or whole is None else min(1.0, round(part / whole, 2))


def ratio(value: float) -> float | None:
    """A lift, or an end of its interval: two significant digits; None for one that is not known."""
    return float(f"{value:.2g}") if math.isfinite(value) else None


def ratios(values: np.ndarray) -> np.ndarray:
    """The same of many, (n,): NaN for those that are not known."""
    known = np.isfinite(values) & (values > 0)
    magnitude = np.searchsorted(_POWERS, np.where(known, values, 1.0), side="right") - 1
    tens = _POWERS[magnitude]
    digits = np.rint(np.where(known, values, 1.0) / tens * 10)  # two: from 10 to 100
    # Divided, as a decimal number is read: to the nearest float.
    rounded = np.where(tens < 10, digits / np.maximum(10 / tens, 1).round(), digits * (tens / 10))
    return np.where(known, rounded, np.where(values == 0, 0.0, np.nan))


def z_score(value: float) -> float | None:
    """One decimal; None for one that is not known."""
    return round(float(value), 1) + 0.0 if math.isfinite(value) else None  # + 0.0: never -0.0


def z_scores(values: np.ndarray) -> np.ndarray:
    """The same of many, (n,): NaN for those that are not known."""
    return np.where(np.isfinite(values), np.round(values, 1) + 0.0, np.nan)
