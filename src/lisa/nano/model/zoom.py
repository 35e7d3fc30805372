"""A second, closer view of what a mask marks.

This file knows boxes and masks; it refuses to know models."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Tensor

PIECE_SHARE = 0.5  # of the largest piece of a mask has a piece that belongs to one thing
CLOSER_MARGIN, CLOSER_LEAST, CLOSER_MOST = 0.3, 0.3, 0.6
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


def main_pieces(mask: np.ndarray) -> np.ndarray:
    """Of a mask bool [H, W] the connected pieces that are not small beside the largest one."""
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    areas = boxes[:, cv2.CC_STAT_AREA]
    areas[0] = 0  # of what is not in the mask
    kept: np.ndarray = (areas >= PIECE_SHARE * areas.max(initial=1))[labels] & mask
    return kept


def zoom_box(mask: np.ndarray) -> Box | None:
    """Where to look closer: (left, top, right, bottom) in pixels around a mask bool [H, W].

    ``CLOSER_MARGIN`` of the mask's sides around it, no side under ``CLOSER_LEAST`` of the
    picture's. None where there is no mask, or too little would be gained.
    """
    spans = [
        closer_span(np.flatnonzero(mask.any(axis=other)), length)
        for other, length in ((0, mask.shape[1]), (1, mask.shape[0]))
        if mask.any()
    ]
    if not spans:
        return None
    (left, right), (top, bottom) = spans
    if (right - left) * (bottom - top) > CLOSER_MOST * mask.size:
        return None
    return left, top, right, bottom


def fuse_views(whole: Tensor, closer: Tensor, box: Box, size: tuple[int, int]) -> Tensor:
    """Two masks of one thing, logits [h, w] each, made one: the mean of their probabilities.

    Args:
        whole: of the whole picture.
        closer: of the part in ``box`` alone.
        box: (left, top, right, bottom) in pixels.
        size: (height, width) of the picture.

    Returns:
        Logits [h, w] of the part in ``box``.
    """
    left, top, right, bottom = box
    rows = sampled(whole, top / size[0], bottom / size[0])
    part = sampled(rows.T, left / size[1], right / size[1]).T
    return (part.sigmoid() + closer.sigmoid()).div(2).logit(eps=1e-6)


def sampled(logits: Tensor, start: float, stop: float) -> Tensor:
    """The rows of ``logits`` [h, w] between two shares of the height, stretched to h rows."""
    count = len(logits)
    centres = (torch.arange(count, device=logits.device) + 0.5) / count
    places = ((start + centres * (stop - start)) * count - 0.5).clamp(0, count - 1)
    before = places.floor().long()
    after = (before + 1).clamp(max=count - 1)
    return torch.lerp(logits[before], logits[after], (places - before)[:, None])


def closer_span(covered: np.ndarray, length: int) -> tuple[int, int]:
    """The part of a side of ``length`` pixels around those that are covered."""
    first, last = int(covered[0]), int(covered[-1]) + 1
    size = min(length, max((last - first) * (1 + 2 * CLOSER_MARGIN), CLOSER_LEAST * length))
    start = min(max(0, (first + last - size) / 2), length - size)
    return math.floor(start), math.ceil(start + size)
