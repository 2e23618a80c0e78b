"""The current reports of a root: which there are, the index of them, and a server that shows both."""
