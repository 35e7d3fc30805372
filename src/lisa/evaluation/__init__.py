"""Measuring: every question of a data set is asked, every mask scored, with intervals.

It knows samples and scores; it is handed something that answers and refuses to know what that is.
"""
