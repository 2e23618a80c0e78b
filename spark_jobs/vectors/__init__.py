"""Vectors: category files, the shuffle that makes clustering inputs, profiles, scaling, checks, and reading inputs."""
