"""Commands are killed at random moments, and two meet: a short form of `python -m acceptance.torture` (`make torture`).

The seed is fixed, the moments are not: they are of this machine's time.
"""

from pathlib import Path

from acceptance.torture.at_once import two_commands
from acceptance.torture.rounds import kill_round, run_undisturbed


def test_nothing_is_lost_to_kills_and_nothing_is_computed_twice(tmp_path: Path) -> None:
    undisturbed = run_undisturbed(tmp_path)
    rounds = [
        kill_round(tmp_path / "killed", undisturbed, "story 1", most_kills=2),
        two_commands(tmp_path / "two", undisturbed, "story 2"),
    ]
    assert [one.violations for one in rounds] == [[], []], "\n".join(one.line() for one in rounds)
