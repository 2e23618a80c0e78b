"""Figures that may be shown to people: none says something of fewer than `min_people`, nor do sums and differences.

A count below `min_people` is not said; any other is rounded to the nearest multiple of it. Shares are made from rounded
counts, so they say nothing that the counts do not.
"""


def count(people: int, min_people: int) -> int | None:
    """A number of people as it is published: to the nearest multiple of `min_people`; None below that."""
    if people < min_people:
        return None
    return (people + min_people // 2) // min_people * min_people


def share(people: int, of: int, min_people: int) -> float | None:
    """The share that some people are of others, in whole percents, 0 to 1; None if either is not published."""
    part, whole = count(people, min_people), count(of, min_people)
    if part is None or not whole:
        return None
    return min(1.0, round(part / whole, 2))
