"""The report of a category in a month: what it says (`content`), and the page that says it (`page`)."""
