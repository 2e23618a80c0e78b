"""Vectors: category files, profiles over their pages, scaling, and reading them back."""
