"""Your own data: what annotation tools write becomes a data set, checked, counted or written anew.

It knows files, names and masks; it refuses to know models, and how a model is trained on them.
"""
