"""Masks in the forms that other tools read, one file each and one row in ``lisa.result``.

It knows what the documents hold; it refuses to know files, questions and models.
"""
