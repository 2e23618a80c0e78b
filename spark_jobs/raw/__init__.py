"""Raw input: files in, checked rows and rejects out."""
