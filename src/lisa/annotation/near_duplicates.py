"""Which pictures are nearly the same: a fingerprint that survives scaling, and groups by it.

The fingerprint is the difference hash (N. Krawetz, "Kind of Like That", 2013): 64 bits, each saying
whether a place of the picture in grey is darker than the place to its right. Those of flat pictures
agree by chance, so that stamps have the last word: small pictures of one brightness and contrast.
This file knows pictures; it refuses to know why it matters that they are alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lisa.errors import ImageError
from lisa.image import load_image

LIKE = 12.0  # of 255: mean difference in grey of two copies of one picture, at most
SIDE = 24  # pixels at which copies are compared

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


class Fingerprints:
    """The fingerprint of each picture that was asked for, taken once."""

    def __init__(self) -> None:
        self._known: dict[Path, int | None] = {}

    def of(self, path: Path) -> int | None:
        """64 bits; None for a picture that cannot be read."""
        if path not in self._known:
            try:
                self._known[path] = fingerprint(load_image(path))
            except ImageError:
                self._known[path] = None
        return self._known[path]

    def of_all(self, paths: Sequence[Path]) -> dict[Path, int]:
        """Those of the pictures that can be read, each once."""
        found = {path: self.of(path) for path in dict.fromkeys(paths)}
        return {path: mark for path, mark in found.items() if mark is not None}


def shared(
    ones: Sequence[Path], others: Sequence[Path], marks: Fingerprints
) -> list[tuple[Path, Path]]:
    """The pictures of ``others`` that are nearly equal to one of ``ones``: (one, other) each."""
    known = marks.of_all(ones)
    paths, values = list(known), np.array(list(known.values()), np.uint64)
    pairs = []
    for other, mark in marks.of_all(others).items():
        near = np.flatnonzero(np.bitwise_count(values ^ np.uint64(mark)) <= NEAR)
        copies = (paths[place] for place in near)
        one = next((path for path in copies if path == other or is_copy(path, other)), None)
        if one is not None:
            pairs.append((one, other))
    return pairs


def is_copy(one: Path, other: Path) -> bool:
    """Whether two pictures look the same at the size of a stamp."""
    first, second = (
        np.asarray(load_image(path).convert("L").resize((SIDE, SIDE)), np.float32)
        for path in (one, other)
    )
    return float(np.abs(first - second).mean()) <= LIKE
