"""The jobs of Audience Explorer: each computes one step, and knows nothing of Dagster but the Pipes protocol."""
