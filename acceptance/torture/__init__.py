"""Kills what can be killed, at random moments, and checks that nothing is lost: `python -m acceptance.torture`."""
