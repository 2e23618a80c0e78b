"""Settings come from the environment, and one that makes no sense is refused by its name."""

import pytest

from audience_explorer_dagster import settings
from spark_jobs.errors import InputError


def test_an_empty_variable_is_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    default = settings.read()
    for name in settings.Settings.model_fields:
        monkeypatch.setenv(settings.variable(name), "")
    assert settings.read() == default
    assert (default.root, default.launcher, default.start_month) == ("data", "local", None)


def test_only_a_variable_of_exactly_that_name_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("audience_explorer_drift", "0.1")
    monkeypatch.setenv("DRIFT", "0.1")
    assert settings.read().drift == 0.5
    monkeypatch.setenv("AUDIENCE_EXPLORER_DRIFT", "0.2")
    assert settings.read().drift == 0.2


@pytest.mark.parametrize(
    ("name", "wrong", "must"),
    [
        ("START_MONTH", "2018", "it must be a month"),
        ("START_MONTH", "2018-13", "it must be a month"),
        ("UI_URL", "javascript:alert(1)", "it must be the address of Dagster's webserver"),
        ("START_MONTH", "0001-01", "it must be a month from 1970 on"),
        ("LAUNCHER", "ec3", "allowed are local, ec2, spark-submit, emr-serverless"),
        ("AUTOMATIC", "true", "it must be 1 (new months run by themselves) or 0"),
        ("SETTLE_SECONDS", "nan", "it must be a number of seconds, 0 or more"),
        ("ARRIVAL_DAYS", "-1", "it must be a number of days, 0 to 366"),
        ("SCHEDULE", "every month", "it must be a schedule as in cron, such as 0 6 2 * *"),
        ("SCHEDULE", "60 * * * *", "it must be a schedule as in cron"),
        ("SCHEDULE", "0 6 31 2 *", "it must be a schedule as in cron"),  # a day that never comes
        ("DRIFT", "1.5", "it must be a number from 0 to 1, the share that may change"),
        ("REPORTS_URL", "reports.example", "it must be the address of the server of reports"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(
    name: str, wrong: str, must: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"AUDIENCE_EXPLORER_{name}", wrong)
    with pytest.raises(InputError) as refused:
        settings.read()
    assert str(refused.value).startswith(f"AUDIENCE_EXPLORER_{name} is '{wrong}'; {must}")


def test_all_that_is_wrong_is_named_at_once_and_nothing_else_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIENCE_EXPLORER_NOTIFY", "https://hooks.example.org/secret")
    monkeypatch.setenv("AUDIENCE_EXPLORER_DRIFT", "50%")
    monkeypatch.setenv("AUDIENCE_EXPLORER_AUTOMATIC", "yes")
    with pytest.raises(InputError, match=r"AUTOMATIC is 'yes'.*DRIFT is '50%'") as refused:
        settings.read()
    assert "secret" not in str(refused.value)
    monkeypatch.undo()
    monkeypatch.setenv("AUDIENCE_EXPLORER_NOTIFY", "https://hooks.example.org/secret")
    assert "secret" not in repr(settings.read())
