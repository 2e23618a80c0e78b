"""Following segments from month to month: which of this month's clusters is which known segment, and what happened."""
