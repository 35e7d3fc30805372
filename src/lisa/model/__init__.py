"""The model: configuration, contracts, parts, and how they are put together."""
