"""Errors reach a person from whatever process they come from."""

import pickle

import pytest

from spark_jobs.errors import DamagedOutput, InputError, NewerVersion, SchemaViolation, UnreadableFile
from spark_jobs.vectors.category_files import BadCategory


@pytest.mark.parametrize(
    "error",
    [
        InputError("No."),
        UnreadableFile("a.csv", "line 2: no"),
        DamagedOutput("its file a is gone", "out"),
        NewerVersion("manifest.json", 3, 1),
        SchemaViolation("users", "column a must have no null"),
        BadCategory("it has no 'id'.", "its list 'facebook' is empty."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_another_process_is_the_same_error(error: InputError) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 # its own bytes
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
