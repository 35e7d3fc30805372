"""Pictures that two lists have in common: the same file, or nearly the same picture.

Fingerprints find candidates; those of flat pictures agree by chance, so that candidates are looked
at. This file knows pictures; it refuses to know data sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lisa.data.likeness import NEAR, fingerprint
from lisa.errors import ImageError
from lisa.image import load_image

LIKE = 12.0  # of 255: mean difference in grey of two copies of one picture, at most
SIDE = 24  # pixels at which copies are compared


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
