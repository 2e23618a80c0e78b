"""What is there, and what is known of it: materializations, metadata, checks, variants."""
