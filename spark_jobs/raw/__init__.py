"""Raw input: a module a format reads files; `rules` checks their rows; `files` picks the reader by a file's name."""
