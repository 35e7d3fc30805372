"""The words of the command line, one file for what belongs together.

It knows options, what is printed and where it is written; it refuses to know how anything is done.
"""
