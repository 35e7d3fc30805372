"""Data sets: where the files are, how many there are, and how file *i* becomes an Example."""
