"""The parts of lisa-nano: vision tower, mask decoder, language model, retrieval of names.

It knows tensors and the small model's sizes; it refuses to know data and losses.
"""
