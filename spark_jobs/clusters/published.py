"""What may be said of people to people: nothing of fewer than `min_people` of them.

A count of fewer is None, and any other is rounded to a multiple of `min_people`, so that what is not said does not
follow from totals and parts either. Shares are of rounded counts. Other figures are rounded so far that they don't
give a count away. Exact figures are for the systems that act: `data.json`, `meta-data.json`, `assignments.parquet`.
"""


def count(people: int, min_people: int) -> int | None:
    """So many people, to the nearest multiple of `min_people` (a half up); None for fewer than that."""
    return None if people < min_people else (2 * people + min_people) // (2 * min_people) * min_people


def share(people: int, of: int, min_people: int) -> float | None:
    """The share of `people` among `of`, from 0 to 1 in whole percents; None where one of both is not said."""
    part, whole = count(people, min_people), count(of, min_people)
    return None if part is None or whole is None else min(1.0, round(part / whole, 2))
