"""Category files: which are partitions, and their export from databases."""
