"""Segments that are known, nulls that have none, and other ways to find how many there are."""
