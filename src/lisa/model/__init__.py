"""The paper's model: a vision-language model, the [SEG] embedding as a prompt, a mask decoder.

It knows tensors, tokens and the two contracts of its parts; it refuses to know data and losses.
"""
