"""Views of a scene: cropped, mirrored, recoloured, with cut-outs pasted on it.

This file knows scenes; it refuses to know where they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from PIL import Image

from lisa.data.regions import Region, Scene

PASTED_SHARE = 0.25  # of views get cut-outs pasted on them
MINIMUM_REGION_SHARE = 0.0015  # of the picture: smaller regions cannot be learnt at 256 pixels


def augment(
    scene: Scene,
    random: np.random.Generator,
    *,
    side: int,
    mirror: bool = True,
    cutouts: Sequence[tuple[np.ndarray, str]] = (),
) -> Scene:
    """A random view of a scene: crop, cut-outs, mirror image, light and colour.

    Args:
        scene: left as it is.
        random: decides everything.
        side: of the view, in pixels.
        mirror: whether the view may be a mirror image: no, where names say left and right.
        cutouts: (uint8 [h, w, 4], name), of which some are pasted on some views.
    """
    scene = crop(scene, crop_box(scene, random), side)
    if cutouts and random.random() < PASTED_SHARE:
        for _ in range(int(random.integers(1, 4))):
            cutout, name = cutouts[int(random.integers(len(cutouts)))]
            scene = paste(scene, cutout, name, random)
    if mirror and random.random() < 0.5:
        scene = flip(scene)
    return replace(scene, image=recolour(scene.image, random))


def crop_box(scene: Scene, random: np.random.Generator) -> tuple[int, int, int, int]:
    """A random box (left, top, width, height) in pixels, inside the picture.

    One in five holds everything; of the others, three quarters hold a pixel of a random region.
    """
    height, width = scene.image.shape[:2]
    if random.random() < 0.2:
        return whole(scene)
    scale = random.uniform(0.35, 1.0) ** 0.5
    stretch = np.exp(random.uniform(-0.25, 0.25))
    box_width = int(min(width, max(32, width * scale * stretch)))
    box_height = int(min(height, max(32, height * scale / stretch)))
    left, top = random.integers(width - box_width + 1), random.integers(height - box_height + 1)
    if scene.regions and random.random() < 0.75:
        rows, columns = np.nonzero(scene.regions[int(random.integers(len(scene.regions)))].mask)
        if len(rows):
            pick = int(random.integers(len(rows)))
            left = np.clip(columns[pick] - random.integers(box_width), 0, width - box_width)
            top = np.clip(rows[pick] - random.integers(box_height), 0, height - box_height)
    return int(left), int(top), box_width, box_height


def crop(scene: Scene, box: tuple[int, int, int, int], side: int) -> Scene:
    """The box (left, top, width, height), stretched to a square of ``side`` pixels.

    Regions that are left too small to be seen (``MINIMUM_REGION_SHARE``) are dropped.
    """
    left, top, width, height = box
    cut = np.s_[top : top + height, left : left + width]
    square = Image.fromarray(scene.image[cut]).resize((side, side), Image.Resampling.BILINEAR)
    regions = [Region(region.name, resize_mask(region.mask[cut], side)) for region in scene.regions]
    return replace(scene, image=np.asarray(square), regions=large_enough(regions), described=())


def window(scene: Scene, random: np.random.Generator, side: int) -> Scene:
    """A random square part of a scene, ``side`` pixels of it, neither larger nor smaller."""
    height, width = scene.image.shape[:2]
    if (height, width) == (side, side):
        return scene
    left, top = int(random.integers(width - side + 1)), int(random.integers(height - side + 1))
    return crop(scene, (left, top, side, side), side)


def resize_mask(mask: np.ndarray, side: int) -> np.ndarray:
    """bool [side, side]: True where any of the area under a pixel is."""
    pixels = mask.astype(np.uint8)
    return cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA) > 0


def large_enough(regions: Sequence[Region]) -> tuple[Region, ...]:
    """The regions that can be seen."""
    return tuple(region for region in regions if region.mask.mean() >= MINIMUM_REGION_SHARE)


def paste(scene: Scene, cutout: np.ndarray, name: str, random: np.random.Generator) -> Scene:
    """Put a cut-out (uint8 [h, w, 4]) on a square scene; what it covers is no longer seen."""
    small, (top, left) = place(cutout, len(scene.image), random)
    where = np.s_[top : top + len(small), left : left + small.shape[1]]
    alpha = small[..., 3:].astype(np.float32) / 255
    image, covered = scene.image.copy(), np.zeros(scene.image.shape[:2], bool)
    image[where] = (small[..., :3] * alpha + image[where] * (1 - alpha)).astype(np.uint8)
    covered[where] = alpha[..., 0] > 0.5
    seen = [Region(region.name, region.mask & ~covered) for region in scene.regions]
    regions = (*large_enough(seen), Region(name, covered))
    return replace(scene, image=image, regions=regions, described=())


def place(
    cutout: np.ndarray, side: int, random: np.random.Generator
) -> tuple[np.ndarray, tuple[int, int]]:
    """A cut-out at a random size, and the (top, left) of a random place in a square of ``side``."""
    scale = side * random.uniform(0.15, 0.55) / max(cutout.shape[:2])
    size = (max(8, int(cutout.shape[1] * scale)), max(8, int(cutout.shape[0] * scale)))
    small = np.asarray(Image.fromarray(cutout).resize(size, Image.Resampling.BILINEAR))
    top, left = random.integers(side - len(small) + 1), random.integers(side - small.shape[1] + 1)
    return small, (int(top), int(left))


def whole(scene: Scene) -> tuple[int, int, int, int]:
    """The box that holds everything."""
    return 0, 0, scene.image.shape[1], scene.image.shape[0]


def flip(scene: Scene) -> Scene:
    """The mirror image."""
    regions = tuple(Region(region.name, region.mask[:, ::-1]) for region in scene.regions)
    return replace(scene, image=scene.image[:, ::-1], regions=regions, described=())


def recolour(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Brightness, contrast and saturation by up to a third; one picture in twenty turns grey."""
    pixels = image.astype(np.float32)
    grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    saturation = 0.0 if random.random() < 0.05 else random.uniform(0.7, 1.3)
    pixels = grey[..., None] + (pixels - grey[..., None]) * saturation
    contrast, brightness = random.uniform(0.75, 1.3), random.uniform(0.75, 1.25)
    pixels = (pixels - grey.mean()) * contrast + grey.mean() * brightness
    return pixels.clip(0, 255).astype(np.uint8)
