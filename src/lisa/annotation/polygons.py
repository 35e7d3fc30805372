"""Masks as polygons of pixels, for files that hold nothing else: the way back of ``rasterise``.

This file knows masks and rings of corners; it refuses to know whose they are.
"""

from __future__ import annotations

import cv2
import numpy as np

from lisa.data.reasonseg import TARGET, Shape, rasterise


def as_polygons(mask: np.ndarray) -> list[np.ndarray]:
    """bool [H, W] as polygons int32 [N, 2] of (x, y) that ``rasterise`` paints as the mask.

    Corners are pixels of the border. A hole is joined to its outline by a cut of no width, which
    may cost the few pixels that it crosses.
    """
    contours, hierarchy = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    polygons = []
    for number, contour in enumerate(contours):
        if hierarchy[0][number][3] < 0:
            ring = contour[:, 0]
            for place, hole in enumerate(contours):
                if hierarchy[0][place][3] == number:
                    ring = joined(ring, hole[:, 0])
            polygons.append(np.resize(ring, (max(3, len(ring)), 2)))
    return polygons


def joined(ring: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """One ring around an outline and, on the way, around a hole, at their closest corners."""
    distances = np.abs(ring[:, None] - hole[None]).sum(-1)
    at, to = np.unravel_index(int(distances.argmin()), distances.shape)
    around = np.concatenate([hole[to:], hole[: to + 1]])
    return np.concatenate([ring[: at + 1], around, ring[at:]])


def kept_by_polygons(mask: np.ndarray) -> float:
    """IoU of a mask with what its polygons paint."""
    shapes = [Shape("target", points) for points in as_polygons(mask)]
    painted = rasterise(shapes, *mask.shape) == TARGET
    return float((painted & mask).sum() / (painted | mask).sum())
