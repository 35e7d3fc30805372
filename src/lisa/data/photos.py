"""Photographs with named regions, as training sees them: a ``Scene`` is a picture and its regions.

A ``PhotoFolder`` is a COCO-format folder (``annotations.json`` with RLE masks, pictures under
``images/``). Scenes can be cropped, mirrored and recoloured before any question is made of them, so
that "left" means what the model will see. This file knows pictures and names; it refuses to know
questions, tokens and models.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from lisa.errors import DataError
from lisa.image import load_image

HELD_OUT_EVERY = 20
MINIMUM_REGION_SHARE = 0.0015  # of the picture: smaller regions cannot be learnt at 256 pixels


@dataclass(frozen=True)
class Region:
    """A named part of a picture."""

    name: str
    mask: np.ndarray  # bool [H, W]


@dataclass(frozen=True)
class Scene:
    """A picture, what is known to be in it, and what is known not to be."""

    image: np.ndarray  # uint8 [H, W, 3]
    regions: tuple[Region, ...]
    absent: tuple[str, ...]  # names that an exhaustive annotation did not find
    instances: bool  # a region is one thing (else: all things of the name together)

    def union(self, name: str) -> np.ndarray:
        """Everything of that name, bool [H, W]."""
        masks = [region.mask for region in self.regions if region.name == name]
        return np.logical_or.reduce(masks) if masks else np.zeros(self.image.shape[:2], bool)

    @property
    def names(self) -> list[str]:
        """The names present, each once, in order of appearance."""
        return list(dict.fromkeys(region.name for region in self.regions))


class PhotoFolder(Sequence[Scene]):
    """A folder of photographs with COCO-format masks; index in, same scene out.

    Args:
        folder: holds ``annotations.json`` and ``images/``.
        part: "train" leaves out every twentieth photograph, "held-out" has only those, "all" has all.
        exhaustive: every thing of the folder's categories is annotated, so that the other categories
            are known to be absent.

    Raises:
        DataError: ``annotations.json`` is missing or malformed (the message names it).
    """

    def __init__(self, folder: Path, part: str = "all", exhaustive: bool = False) -> None:
        self.folder = folder
        content = read_json(folder / "annotations.json")
        try:
            self.names = {c["id"]: str(c["name"]).replace("marsmallow", "marshmallow") for c in content["categories"]}
            self.images: list[dict[str, Any]] = sorted(content["images"], key=lambda i: i["file_name"])
            self.annotations: dict[int, list[dict[str, Any]]] = {i["id"]: [] for i in self.images}
            for annotation in content["annotations"]:
                self.annotations[annotation["image_id"]].append(annotation)
        except (KeyError, TypeError) as error:
            raise DataError(f"'{folder / 'annotations.json'}' is not COCO format: {error!r} is missing") from error
        if part != "all":
            self.images = [i for n, i in enumerate(self.images) if (n % HELD_OUT_EVERY == 0) == (part == "held-out")]
        self.exhaustive = exhaustive
        self.instances = "instances" in str(content.get("info", {}).get("masks", "instances"))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Scene:  # type: ignore[override]
        record = self.images[index]
        image = np.asarray(load_image(self.folder / "images" / record["file_name"]))
        annotations = [a for a in self.annotations[record["id"]] if not a.get("iscrowd")]
        regions = tuple(Region(self.names[a["category_id"]], decode_rle(a["segmentation"])) for a in annotations)
        present = {self.names[a["category_id"]] for a in self.annotations[record["id"]]}
        absent = tuple(n for n in self.names.values() if n not in present) if self.exhaustive else ()
        return Scene(image, regions, absent, self.instances)


def read_json(path: Path) -> Any:
    """The content of a JSON file, or a ``DataError`` that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}; expected a JSON file") from error
    except ValueError as error:
        raise DataError(f"'{path}' is not valid JSON: {error}") from error


def decode_rle(segmentation: dict[str, Any]) -> np.ndarray:
    """Compressed COCO run lengths -> bool [H, W]."""
    decoded = coco_mask.decode({"size": segmentation["size"], "counts": segmentation["counts"].encode()})
    return decoded.astype(bool)


# ------------------------------------------------------------------ changing a scene


def augment(scene: Scene, random: np.random.Generator, *, side: int, mirror: bool = True) -> Scene:
    """A random view of a scene: crop, mirror image, light and colour; ``side`` pixels square."""
    scene = crop(scene, crop_box(scene, random), side)
    if mirror and random.random() < 0.5:
        scene = flip(scene)
    return replace(scene, image=recolour(scene.image, random))


def crop_box(scene: Scene, random: np.random.Generator) -> tuple[int, int, int, int]:
    """A random box (left, top, width, height); three quarters of them around a random region."""
    height, width = scene.image.shape[:2]
    if random.random() < 0.2:
        return 0, 0, width, height
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
    """The box, stretched to a square; regions that are left too small are dropped."""
    left, top, width, height = box
    cut = np.s_[top : top + height, left : left + width]
    square = Image.fromarray(scene.image[cut]).resize((side, side), Image.Resampling.BILINEAR)
    regions = []
    for region in scene.regions:
        mask = cv2.resize(region.mask[cut].astype(np.uint8), (side, side), interpolation=cv2.INTER_AREA) > 0
        if mask.mean() >= MINIMUM_REGION_SHARE:
            regions.append(Region(region.name, mask))
    return replace(scene, image=np.asarray(square), regions=tuple(regions))


def whole(scene: Scene) -> tuple[int, int, int, int]:
    """The box that holds everything."""
    return 0, 0, scene.image.shape[1], scene.image.shape[0]


def flip(scene: Scene) -> Scene:
    """The mirror image."""
    regions = tuple(Region(region.name, region.mask[:, ::-1]) for region in scene.regions)
    return replace(scene, image=scene.image[:, ::-1], regions=regions)


def recolour(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Brightness, contrast and saturation by up to a third; one picture in twenty turns grey."""
    pixels = image.astype(np.float32)
    grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    saturation = 0.0 if random.random() < 0.05 else random.uniform(0.7, 1.3)
    pixels = grey[..., None] + (pixels - grey[..., None]) * saturation
    pixels = (pixels - grey.mean()) * random.uniform(0.75, 1.3) + grey.mean() * random.uniform(0.75, 1.25)
    return pixels.clip(0, 255).astype(np.uint8)
