"""Masks for tests: drawn by hand, smooth, and at random."""

import cv2
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

SIDES = st.integers(1, 14)
MASKS = arrays.arrays(bool, st.tuples(SIDES, SIDES))


def from_drawing(*rows: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in row] for row in rows])


# A ring with an island in its hole, two pixels that touch at a corner, and one on the border.
RICH = from_drawing(
    "#####...",
    "#...#...",
    "#.#.#.#.",
    "#...#..#",
    "#####...",
)


def ellipse(height: int, width: int, centre: tuple[int, int], axes: tuple[int, int]) -> np.ndarray:
    canvas = np.zeros((height, width), np.uint8)
    return cv2.ellipse(canvas, centre, axes, 0, 0, 360, 1, -1).astype(bool)


def without_holes(mask: np.ndarray) -> np.ndarray:
    """Each component, and all that a walk by the four directions cannot reach from outside it."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    filled = np.zeros_like(mask)
    for label in range(1, count):
        around = np.pad((labels == label).astype(np.uint8), 1)
        cv2.floodFill(around, None, (0, 0), 2, flags=4)
        filled |= (around != 2)[1:-1, 1:-1]
    return filled
