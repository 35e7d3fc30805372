"""Data sets: where the files are, how many there are, and how file *i* becomes an Example.

It knows official layouts and what they mean; it refuses to know tensors, tokens and models.
"""
