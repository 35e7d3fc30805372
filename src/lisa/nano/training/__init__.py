"""The recipe of lisa-nano, one file a stage, from the published parts to the files that ship.

It knows stages, losses and schedules; it refuses to know how a model is measured and shown.
"""
