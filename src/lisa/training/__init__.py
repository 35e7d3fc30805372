"""Training: the paper's losses and schedule, and one loop for your data and the paper's.

It knows what is trained, how long and how fast; it refuses to know file formats and scores.
"""
