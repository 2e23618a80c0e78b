"""Settings that are read from the environment, with errors that name the variable and what it may be."""

import os

from spark_jobs.errors import InputError


def number(name: str, default: float, most: float, what: str) -> float:
    """A number from 0 to `most`.

    Raises:
        InputError: It is none; the message says `what` it must be.
    """
    text = os.environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= most:
        raise InputError(f"{name} is {text!r}; it must be {what}.")
    return value


def switch(name: str, what: str) -> bool:
    """Whether a setting is 1; it is 0 by default.

    Raises:
        InputError: It is neither; the message says `what` 1 means.
    """
    text = os.environ.get(name) or "0"
    if text not in ("0", "1"):
        raise InputError(f"{name} is {text!r}; it must be 1 ({what}) or 0.")
    return text == "1"
