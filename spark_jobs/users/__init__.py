"""Users: actions grouped by user, and read back."""
