"""Photographs with named regions, as training sees them: a ``Scene`` is a picture and its regions.

A ``PhotoFolder`` is a COCO-format folder (``annotations.json`` with RLE masks, pictures under
``images/``). Scenes can be cropped, mirrored and recoloured before any question is made of them, so
that "left" means what the model will see.

This file knows pictures, names and how they are stored; it refuses to know questions, tokens and
models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from lisa.data.records import field, read_json
from lisa.data.regions import Region, Scene
from lisa.errors import DataError
from lisa.image import load_image
from lisa.masks import decode_rle, is_crowd

EDGE = 1  # pixels that a whole thing keeps from the edge of its photograph
WHOLE_LEAST = 0.15  # of the photograph's longer side that a thing worth cutting out has
WHOLE_FILLED = 0.25  # of its box that a thing fills at least
HELD_OUT_EVERY = 20
LABELLED_FOLDERS = ("imagelevel_imagenet1000", "imagelevel_caltech101")
PARTS = ("train", "held-out", "all")
MISSPELT = ("marsmallow", "marshmallow")  # in the categories of uj_staple_pantry
DESCRIBING = frozenset(
    [
        *("yellow", "red", "brown", "green", "blue", "pink", "silver", "colorful", "plain"),
        *("very", "little", "small", "large", "male", "another"),
    ]
)


class PhotoFolder(Sequence[Scene]):
    """A folder of photographs with COCO-format masks; index in, same scene out.

    Every record is checked on construction, so that a broken one stops a run before it starts;
    photographs and masks are read when asked for.

    Args:
        folder: holds ``annotations.json`` and ``images/``.
        part: "train" leaves out every twentieth photograph, "held-out" has only those, "all" all.
        exhaustive: every thing of the folder's categories is annotated, so that the other
            categories are known to be absent.
        annotations: a file to read in place of the folder's own; photographs that it names and the
            folder does not hold are left out.

    Raises:
        DataError: ``annotations.json`` is missing or malformed; the message names the file and the
            record. Indexing raises it for a mask that cannot be read or does not fit its
            photograph, and ImageError for a photograph that cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        part: str = "all",
        exhaustive: bool = False,
        annotations: Path | None = None,
    ) -> None:
        if part not in PARTS:
            raise DataError(f"part {part!r} of '{folder}'; expected one of {', '.join(PARTS)}")
        self.folder, self.path = folder, annotations or folder / "annotations.json"
        self.exhaustive = exhaustive
        content = read_json(self.path)
        self.names = self._read_names(content)
        images = read_images(content, self.path)
        self.annotations = self._read_annotations(content, images)
        self.images = [
            image
            for number, image in enumerate(images)
            if part == "all" or (number % HELD_OUT_EVERY == 0) == (part == "held-out")
        ]
        if annotations:
            there = {path.name for path in (folder / "images").glob("*")}
            self.images = [image for image in self.images if image["file_name"] in there]
        info = field({"info": {}, **content}, "info", dict, f"'{self.path}'")
        self.instances = "instances" in str(info.get("masks", "instances"))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Scene:  # type: ignore[override]  # no slices
        record = self.images[index]
        image = np.asarray(load_image(self.folder / "images" / record["file_name"]))
        annotations = self.annotations[record["id"]]
        regions = tuple(
            self._region(annotation, image)
            for annotation in annotations
            if not is_crowd(annotation)
        )
        present = {self.names[annotation["category_id"]] for annotation in annotations}
        absent = [name for name in self.names.values() if self.exhaustive and name not in present]
        return Scene(image, regions, tuple(absent), self.instances)

    def picture(self, index: int) -> tuple[np.ndarray, list[str]]:
        """A photograph without its masks: uint8 [H, W, 3], and the names that are in it."""
        record = self.images[index]
        image = np.asarray(load_image(self.folder / "images" / record["file_name"]))
        return image, [self.names[a["category_id"]] for a in self.annotations[record["id"]]]

    def thing(self, image_index: int, number: int) -> tuple[np.ndarray, Region]:
        """A photograph uint8 [H, W, 3] and one of its regions."""
        record = self.images[image_index]
        image = np.asarray(load_image(self.folder / "images" / record["file_name"]))
        return image, self._region(self.annotations[record["id"]][number], image)

    def _read_names(self, content: Any) -> dict[int, str]:
        """Names by category id."""
        names = {}
        for number, category in enumerate(field(content, "categories", list, f"'{self.path}'")):
            where = f"category {number} of '{self.path}'"
            name = field(category, "name", str, where).replace(*MISSPELT)
            names[field(category, "id", int, where)] = name
        return names

    def _read_annotations(
        self, content: Any, images: Sequence[dict[str, Any]]
    ) -> dict[int, list[dict[str, Any]]]:
        """The annotations of each photograph, by its id."""
        found: dict[int, list[dict[str, Any]]] = {
            field(image, "id", int, f"image '{image['file_name']}' of '{self.path}'"): []
            for image in images
        }
        for number, annotation in enumerate(field(content, "annotations", list, f"'{self.path}'")):
            where = f"annotation {number} of '{self.path}'"
            image, category = (
                field(annotation, k, int, where) for k in ("image_id", "category_id")
            )
            if image not in found:
                raise DataError(f"{where}: image_id {image} is not among the images")
            if category not in self.names:
                raise DataError(f"{where}: category_id {category} is not among the categories")
            field(annotation, "segmentation", dict, where)
            found[image].append(annotation)
        return found

    def _region(self, annotation: dict[str, Any], image: np.ndarray) -> Region:
        where = f"annotation {annotation.get('id', '')} of '{self.path}'"
        try:
            mask = decode_rle(annotation["segmentation"])
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        if mask.shape != image.shape[:2]:
            sizes = f"mask of {list(mask.shape)}, photograph of {list(image.shape[:2])}"
            raise DataError(f"{where}: {sizes}; expected the same height and width")
        return Region(self.names[annotation["category_id"]], mask)


class LabelledPhotos(Sequence[tuple[np.ndarray, str]]):
    """Photographs with one label each and no mask: index in, (uint8 [H, W, 3], label) out.

    Args:
        folder: holds ``annotations.json``, with ``file_name`` and ``label`` for each of its
            ``images``, and ``images/``.

    Raises:
        DataError: ``annotations.json`` is missing or malformed; the message names the file and the
            record.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / "annotations.json"
        self.images = [
            (image["file_name"], field(image, "label", str, f"'{image['file_name']}' in '{path}'"))
            for image in read_images(read_json(path), path)
        ]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:  # type: ignore[override]  # no slices
        file_name, label = self.images[index]
        return np.asarray(load_image(self.folder / "images" / file_name)), label


def labelled_folders(root: Path) -> list[LabelledPhotos]:
    """Those of ``LABELLED_FOLDERS`` that are under ``root/photos``."""
    folders = (root / "photos" / name for name in LABELLED_FOLDERS)
    return [LabelledPhotos(folder) for folder in folders if folder.is_dir()]


class Cutouts(Sequence[tuple[np.ndarray, str]]):
    """Things cut out with an alpha channel: index in, (uint8 [h, w, 4], name) out.

    Args:
        folder: holds pictures and ``index.json``, a list of ``{"file", "text"}``; only things whose
            text is a plain name ("A trumpet.") are kept.

    Raises:
        DataError: ``index.json`` is missing or malformed, or (on indexing) a picture is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / "index.json"
        entries = read_json(path)
        if not isinstance(entries, list):
            raise DataError(f"'{path}' holds a {type(entries).__name__}; expected a list")
        named = []
        for number, entry in enumerate(entries):
            where = f"entry {number} of '{path}'"
            name = plain_name(field(entry, "text", str, where))
            named.append((field(entry, "file", str, where), name))
        self.entries = sorted((file, name) for file, name in named if name)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:  # type: ignore[override]  # no slices
        file, name = self.entries[index]
        try:
            with Image.open(self.folder / file) as picture:
                return np.asarray(picture.convert("RGBA")), name
        except OSError as error:
            raise DataError(f"cannot read cut-out '{self.folder / file}': {error}") from error

    @property
    def names(self) -> list[str]:
        """The name of each."""
        return [name for _, name in self.entries]


class MaskedThings(Sequence[tuple[np.ndarray, str]]):
    """Whole things of photographs, cut out along their masks: (uint8 [h, w, 4], name) each.

    A thing is whole when its mask does not touch the edge of the photograph; of a mask in pieces
    the largest is taken.

    Args:
        photos: photographs with masks.

    Raises:
        DataError: run lengths are malformed; the message names the file.
    """

    def __init__(self, photos: PhotoFolder) -> None:
        self.photos = photos
        self.entries = [
            (index, number)
            for index, image in enumerate(photos.images)
            for number, annotation in enumerate(photos.annotations[image["id"]])
            if not is_crowd(annotation) and self._is_whole(annotation["segmentation"])
        ]

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:  # type: ignore[override]  # no slices
        image, region = self.photos.thing(*self.entries[index])
        _, labels, boxes, _ = cv2.connectedComponentsWithStats(region.mask.astype(np.uint8))
        largest = 1 + int(boxes[1:, cv2.CC_STAT_AREA].argmax())
        left, top, width, height = boxes[largest, : cv2.CC_STAT_AREA]
        cut = np.s_[top : top + height, left : left + width]
        inside = cv2.erode((labels[cut] == largest).astype(np.uint8), np.ones((2, 2), np.uint8))
        return np.dstack([image[cut], inside * np.uint8(255)]), region.name

    @property
    def names(self) -> list[str]:
        """The name of each."""
        records = [(self.photos.images[index]["id"], number) for index, number in self.entries]
        of_image = self.photos.annotations
        return [self.photos.names[of_image[image][n]["category_id"]] for image, n in records]

    def _is_whole(self, segmentation: dict[str, Any]) -> bool:
        try:
            height, width = segmentation["size"]
            rle = {"size": [height, width], "counts": segmentation["counts"].encode()}
            left, top, across, down = coco_mask.toBbox(rle)
            area = coco_mask.area(rle)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"malformed run lengths in '{self.photos.path}' ({error!r})") from error
        inside = min(left, top, width - left - across, height - top - down) > EDGE
        least = WHOLE_LEAST * max(width, height)
        return bool(inside and max(across, down) >= least and area >= WHOLE_FILLED * across * down)


def plain_name(text: str) -> str:
    """ "A yellow pear." -> "pear"; "" where the text is more than a name."""
    match = re.fullmatch(r"(?:An?|The) ((?:[a-z]+ ){0,2}[a-z]+)\.", text)
    words = match[1].split() if match else []
    return " ".join(word for word in words if word not in DESCRIBING)


def read_images(content: Any, path: Path) -> list[dict[str, Any]]:
    """The image records of a COCO-format file by ``file_name``, which each of them has."""
    records = field(content, "images", list, f"'{path}'")
    for number, record in enumerate(records):
        field(record, "file_name", str, f"image {number} of '{path}'")
    return sorted(records, key=lambda record: str(record["file_name"]))


# ------------------------------------------------------------------ changing a scene
