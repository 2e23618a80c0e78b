"""Mutants: small faults, seeded into a copy of the project, that its tests are to notice.

`docs/reliability/mutants.md` says what came of it.
"""
