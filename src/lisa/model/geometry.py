"""The geometry of CLIP and SAM: a picture to each one's square, and masks back to the picture.

Bit for bit what the official code feeds its two towers, given Pillow's 8-bit resampling: CLIP sees
the central square; SAM sees the whole picture in the upper left corner, with zeros (the mean
colour) beside it. This file knows pixels and sizes; it refuses to know models and questions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torch.nn import functional as F

BAND_PIXELS = 2**22  # of a full-size mask that are computed at once

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of values in [0, 1]
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
SAM_MEAN = (123.675, 116.28, 103.53)  # of values in [0, 255]
SAM_STD = (58.395, 57.12, 57.375)

CLIP_SIDE = 224
SAM_SIDE = 1024

Size = tuple[int, int]  # height, width


def longest_side_size(height: int, width: int, side: int = SAM_SIDE) -> Size:
    """The size of a picture whose longest side becomes ``side``; a sliver keeps one pixel."""
    scale = side / max(height, width)
    return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


def shortest_side_size(height: int, width: int, side: int = CLIP_SIDE) -> Size:
    """The size of a picture whose shortest side becomes ``side``."""
    short, long = sorted((height, width))
    longer = int(side * long / short)
    return (longer, side) if height > width else (side, longer)


def clip_pixels(
    image: PIL.Image.Image,
    side: int = CLIP_SIDE,
    mean: Sequence[float] = CLIP_MEAN,
    std: Sequence[float] = CLIP_STD,
) -> Tensor:
    """The central square of an RGB picture as CLIP takes it: float32 [3, side, side]."""
    height, width = shortest_side_size(image.height, image.width, side)
    resized = image.resize((width, height), PIL.Image.Resampling.BICUBIC)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.asarray(resized)[top : top + side, left : left + side]
    values = (square * (1 / 255)).astype(np.float32)  # the product in float64, as in the original
    normal = (values - np.array(mean, np.float32)) / np.array(std, np.float32)
    return torch.from_numpy(normal).permute(2, 0, 1).contiguous()


def sam_pixels(
    image: PIL.Image.Image,
    side: int = SAM_SIDE,
    mean: Sequence[float] = SAM_MEAN,
    std: Sequence[float] = SAM_STD,
) -> tuple[Tensor, Size]:
    """The whole RGB picture as SAM takes it, float32 [3, side, side], and its size therein.

    The picture keeps its proportions and stands in the upper left corner.
    """
    height, width = longest_side_size(image.height, image.width, side)
    resized = image.resize((width, height), PIL.Image.Resampling.BILINEAR)
    values = torch.from_numpy(np.array(resized)).permute(2, 0, 1)
    normal = (values - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    return F.pad(normal, (0, side - width, 0, side - height)), (height, width)


def restore_masks(
    low_res_masks: Tensor, resized: Size, original: Size, side: int = SAM_SIDE
) -> Tensor:
    """Logits of the square [N, h, w] -> float32 logits of the picture [N, height, width].

    Enlarged to ``side``, cut to the part that holds the picture, and brought to its own size; both
    steps bilinear. Above 0 is mask.
    """
    square = F.interpolate(low_res_masks[:, None].float(), (side, side), mode="bilinear")
    inside = square[..., : resized[0], : resized[1]]
    return F.interpolate(inside, original, mode="bilinear")[:, 0]


def stretch_above(logits: Tensor, full: np.ndarray, threshold: float) -> None:
    """Stretch ``logits`` [h, w] to the shape of ``full`` [H, W]; write where they are above.

    The same places as ``interpolate(mode="bilinear", align_corners=False)``, one band of rows after
    the other, so that only ``full`` is as large as the picture. W must not be longer than H.
    """
    height, width = full.shape
    left, right, share = neighbours(range(width), width, logits.shape[1])
    columns = torch.lerp(logits[:, left], logits[:, right], share)  # [h, W]
    for rows in bands(height, max(1, BAND_PIXELS // width)):
        above, below, share = neighbours(rows, height, logits.shape[0])
        band = torch.lerp(columns[above], columns[below], share[:, None])  # [rows, W]
        full[rows.start : rows.stop] = (band > threshold).numpy()


def neighbours(targets: range, length: int, source_length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where pixels ``targets`` of a line of ``length`` fall on one of ``source_length``.

    Returns:
        For each the pixel before, the pixel after, and how far (0 to 1) it is on the way to that.
    """
    centres = torch.arange(targets.start, targets.stop, dtype=torch.float64) + 0.5
    places = (centres * source_length / length - 0.5).clamp(0, source_length - 1)
    before = places.floor().long()
    after = (before + 1).clamp(max=source_length - 1)
    return before, after, (places - before).float()


def bands(length: int, size: int) -> Iterator[range]:
    """0 to ``length`` in steps of ``size``."""
    for start in range(0, length, size):
        yield range(start, min(start + size, length))
