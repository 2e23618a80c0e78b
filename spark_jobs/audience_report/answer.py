"""What a report says first: how many people there are, in how many segments, and what to do."""

from collections.abc import Mapping, Sequence
from typing import Any

from spark_jobs.audience_report.cards import Row
from spark_jobs.audience_report.months import period

_WORDS = ["No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve"]


def in_words(number: int) -> str:
    """A number of things, at the beginning of a sentence."""
    return _WORDS[number] if number < len(_WORDS) else str(number)


def who(month: str, min_actions: int) -> str:
    """Who is counted, and what being on a page is."""
    often = f" at least {min_actions} times in all" if min_actions > 1 else ""
    return (
        f"People who liked or commented on one or more of this category's pages, or posts of theirs,{often} in"
        f" {period(month)}. Whoever did so is “on” that page."
    )


def answer(
    summary: Mapping[str, Any], rows: Sequence[Row], people: int | None, users: int, min_people: int
) -> tuple[str, list[str], str]:
    """The headline, what comes after it, and what to do."""
    verdict, k = summary["verdict"], int(summary["k"])
    if not users:
        return (
            "Nobody",
            ["No user of this month has an action on this category's pages."],
            "Ask whoever runs Audience Explorer to check this category's page ids, and whether the month's raw data has"
            " these pages.",
        )
    if people is None:
        return f"Fewer than {min_people} people", ["Of so few people, nothing more is said."], ""
    if verdict == "none":
        return (
            f"No segments: {people:,} people are one audience",
            ["What somebody likes says nothing about what else they like, beyond what is popular with everybody."],
            "Treat them as one audience. To look again, with more people and more pages, ask whoever runs Audience"
            " Explorer to put this category together with related ones.",
        )
    if verdict == "too_few":
        return (
            f"Too few active people to tell segments: {people:,} in all",
            ["There may be segments, but so few people can't show them."],
            "Treat them as one audience for now. Wait for a month with more people, or ask whoever runs Audience"
            " Explorer to add pages to this category.",
        )
    if k == 1:
        return f"{people:,} people, in one group as asked for", [], ""
    if verdict is None:
        headline = f"{in_words(len(rows))} groups among {people:,} people"
        origin = [
            f"Somebody set the number to {in_words(k).lower()}. Whether there really are {in_words(k).lower()} was not"
            " checked."
        ]
    else:
        headline, origin = f"{in_words(len(rows))} segments among {people:,} people", []
    return headline, [_sizes(rows, min_people), *origin], ""


def _sizes(rows: Sequence[Row], min_people: int) -> str:
    largest, smallest = rows[0], rows[-1]

    def told(row: Row) -> str:
        return f"fewer than {min_people} people" if row.share is None else f"{row.share:.0%}"

    return (
        f"The largest is “{largest.name}” with {told(largest)}, the smallest “{smallest.name}” with {told(smallest)}."
    )
