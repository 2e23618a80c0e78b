"""Stories of the system doing what it is for, through its command line, on real input."""
