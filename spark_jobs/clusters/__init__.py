"""Clusters: seeding, Lloyd, scores, the choice of k, stability, MLlib."""
