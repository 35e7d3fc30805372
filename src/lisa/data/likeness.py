"""Which pictures are nearly the same: a fingerprint that survives scaling, and groups by it.

The fingerprint is the difference hash (N. Krawetz, "Kind of Like That", 2013): 64 bits, each saying
whether a place of the picture in grey is darker than the place to its right. This file knows
pictures; it refuses to know why it matters that they are alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

SIDE = 8
NEAR = 6  # bits in which two fingerprints of one motif may differ


def fingerprint(image: Image.Image) -> int:
    """64 bits that nearly agree for a picture and its scaled, recompressed or retouched copy."""
    small = image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX)
    values = np.asarray(small, np.int16)
    bits = (values[:, :-1] < values[:, 1:]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def alike(one: int, other: int, near: int = NEAR) -> bool:
    """Whether two fingerprints are of one motif."""
    return (one ^ other).bit_count() <= near


def groups_of(fingerprints: Sequence[int], near: int = NEAR) -> list[list[int]]:
    """Places in the sequence, those of one motif together, in order of their first.

    Two of a group may be less alike than ``near`` if others lie between them.
    """
    values = np.array(fingerprints, np.uint64)
    group = list(range(len(values)))

    def root(place: int) -> int:
        while group[place] != place:
            group[place] = group[group[place]]
            place = group[place]
        return place

    for place, value in enumerate(values):
        distances = np.bitwise_count(values[place + 1 :] ^ value)
        for later in np.flatnonzero(distances <= near):
            one, other = root(place), root(place + 1 + int(later))
            group[max(one, other)] = min(one, other)
    found: dict[int, list[int]] = {}
    for place in range(len(values)):
        found.setdefault(root(place), []).append(place)
    return list(found.values())
