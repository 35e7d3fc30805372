"""Which pictures are nearly the same: a fingerprint that survives scaling, and groups by it.

The fingerprint is the difference hash (N. Krawetz, "Kind of Like That", 2013): 64 bits, each saying
whether a place of the picture in grey is darker than the place to its right. Those of flat pictures
agree by chance, so that stamps have the last word: small pictures of one brightness and contrast.
This file knows pictures; it refuses to know why it matters that they are alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

SIDE = 8
NEAR = 6  # bits in which two fingerprints of one motif may differ
STAMP = 16  # pixels of a side
SAME = 0.95  # correlation of two stamps of one motif, at least


def fingerprint(image: Image.Image) -> int:
    """64 bits that nearly agree for a picture and its scaled, recompressed or retouched copy."""
    small = image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX)
    values = np.asarray(small, np.int16)
    bits = (values[:, :-1] < values[:, 1:]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def alike(one: int, other: int, near: int = NEAR) -> bool:
    """Whether two fingerprints are of one motif."""
    return (one ^ other).bit_count() <= near


def stamp(image: Image.Image) -> np.ndarray:
    """The picture in small: float16 [STAMP * STAMP] of length 1, or all 0 if it is of one grey."""
    small = image.convert("L").resize((STAMP, STAMP), Image.Resampling.BOX)
    values = np.asarray(small, np.float32).ravel()
    values = values - values.mean()
    length = float(np.linalg.norm(values))
    return (values / length if length else values).astype(np.float16)


def groups_of(
    fingerprints: Sequence[int], stamps: Sequence[np.ndarray], near: int = NEAR
) -> list[list[int]]:
    """Places in the sequences, those of one motif together, in order of their first.

    Two of a group may be less alike than ``near`` and ``SAME`` if others lie between them.
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
        for later in (int(found) + place + 1 for found in np.flatnonzero(distances <= near)):
            if float(stamps[place].astype(np.float32) @ stamps[later]) >= SAME:
                one, other = root(place), root(later)
                group[max(one, other)] = min(one, other)
    found: dict[int, list[int]] = {}
    for place in range(len(values)):
        found.setdefault(root(place), []).append(place)
    return list(found.values())
