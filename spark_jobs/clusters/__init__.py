"""Clusters: k-means in memory or by MLlib, scores, the choice of k, stability; the files of clusters, and checks."""
