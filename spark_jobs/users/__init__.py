"""Users: the shuffle that groups actions by user, its counts and checks, and reading grouped users."""
