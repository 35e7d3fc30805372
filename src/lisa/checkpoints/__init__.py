"""Model directories: opened, converted, merged, checked for completeness, measured for memory.

It knows files, tensor names and number formats; it refuses to know questions, data and scores.
"""
