"""lisa-nano, the model in the package: its own parts, data, recipe and measures.

It knows one small model and builds on the general wings; those refuse to know it.
"""
