"""COCO json: pictures, categories, and annotations with polygons or run lengths.

    {"images": [{"id", "file_name", "height"?, "width"?}],
     "categories": [{"id", "name"}],
     "annotations": [{"image_id", "category_id", "segmentation", "iscrowd"?}]}

Format: https://cocodataset.org/#format-data. A crowd is where no score is taken. A folder may hold
one such file, or one for each split (``annotations/instances_val2017.json``, or
``valid/_annotations.coco.json`` as Roboflow writes it).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lisa.annotation.formats.source import SPLITS, Source, find_picture, load_or_none
from lisa.data.annotated import (
    MarkedPicture,
    RunLengths,
    Thing,
    plain_words,
    united,
    unpacked,
)
from lisa.data.records import BadRecords, field, read_json
from lisa.errors import DataError
from lisa.image import upright_size
from lisa.masks import is_crowd

Marked = tuple[str, RunLengths, bool]  # name, mask, whether a crowd
PATTERNS = ("*.json", "annotations/*.json", "*/_annotations.coco.json")


def recognise(source: Source) -> bool:
    """Whether a file, or any in a folder, has what COCO's have."""
    return any(looks_right(load_or_none(path)) for path in candidates(source.path))


def looks_right(content: Any) -> bool:
    """Whether the content of a file is COCO's, with masks."""
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        return False
    annotations = content["annotations"]
    some = annotations[0] if isinstance(annotations, list) and annotations else {}
    return "categories" in content or (isinstance(some, dict) and "segmentation" in some)


def candidates(path: Path) -> list[Path]:
    """The files that may be COCO's."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".json" else []
    return sorted(file for pattern in PATTERNS for file in path.glob(pattern))


def read(source: Source, bad: BadRecords) -> Iterator[MarkedPicture]:
    """The pictures of every file, in its order."""
    files = candidates(source.path)
    if source.path.is_dir():
        files = [path for path in files if looks_right(load_or_none(path))] or files[:1]
    if not files:
        raise DataError(f"no COCO json in '{source.path}'; expected {', '.join(PATTERNS)}")
    several = len(files) > 1
    for path in files:
        file = None
        with bad.of():
            file = CocoFile.open(path, source)
        if file:
            yield from file.pictures(split_of(path) if several else None, bad)


def split_of(path: Path) -> str | None:
    """The split that a file's name or its folder's tells: "instances_val2017.json" -> "val"."""
    words = re.findall(r"[a-z]+", f"{path.parent.name} {path.stem}".lower())
    return next((SPLITS[word] for word in reversed(words) if word in SPLITS), None)


def image_of(record: Any, key: str) -> int | None:
    """The number of a picture that a record gives, if it gives one."""
    number = record.get(key) if isinstance(record, dict) else None
    return number if isinstance(number, int) else None


@dataclass(frozen=True)
class CocoFile:
    """One file, its lists checked for being lists."""

    path: Path
    folders: tuple[Path | None, ...]
    images: list[Any]
    names: dict[int, str]
    annotations: list[Any]

    @classmethod
    def open(cls, path: Path, source: Source) -> CocoFile:
        content = read_json(path)
        names = {}
        for number, category in enumerate(field(content, "categories", list, f"'{path}'")):
            where = f"category {number} of '{path}'"
            names[field(category, "id", int, where)] = plain_words(
                field(category, "name", str, where)
            )
        here, above = path.parent, path.parent.parent
        named = re.sub(r"^(instances|annotations)_", "", path.stem)  # instances_val2017 -> val2017
        folders = (source.images, here, here / "images", above / "images", above / named, above)
        images = field(content, "images", list, f"'{path}'")
        return cls(path, folders, images, names, field(content, "annotations", list, f"'{path}'"))

    def pictures(self, split: str | None, bad: BadRecords) -> Iterator[MarkedPicture]:
        """Each picture with its things; without those that cannot be read."""
        records: dict[int, dict[str, Any]] = {}
        for number, record in enumerate(self.images):
            with bad.of(f"image {number} of '{self.path}'"):
                checked = self.checked(record)
                if checked["id"] in records:
                    raise DataError(f"the id {checked['id']} is that of an earlier image")
                records[checked["id"]] = checked
        found, incomplete = self.by_picture(records, bad)
        for key, record in records.items():
            crowds = [mask for _, mask, crowd in found[key] if crowd]
            yield MarkedPicture(
                image=record["path"],
                name=Path(record["file_name"].replace("\\", "/")).name,
                height=record["height"],
                width=record["width"],
                things=tuple(Thing(name, mask) for name, mask, crowd in found[key] if not crowd),
                ignore=united(crowds) if crowds else None,
                complete=key not in incomplete and not crowds,
                split=split,
            )

    def checked(self, record: Any) -> dict[str, Any]:
        """An image's record with its file and its size, which must be the file's own."""
        name = field(record, "file_name", str)
        path = find_picture(name, self.folders)
        width, height = upright_size(path)
        told = [record.get("height", height), record.get("width", width)]
        if told != [height, width]:
            raise DataError(f"'{name}' is said to be {told}, and is {[height, width]}")
        key = field(record, "id", int)
        return {"id": key, "file_name": name, "path": path, "height": height, "width": width}

    def by_picture(
        self, records: dict[int, dict[str, Any]], bad: BadRecords
    ) -> tuple[dict[int, list[Marked]], set[int]]:
        """What is marked in each picture, and the pictures where something could not be read."""
        found: dict[int, list[Marked]] = {key: [] for key in records}
        skipped = {image_of(record, "id") for record in self.images} - records.keys()
        incomplete: set[int] = set()
        for number, annotation in enumerate(self.annotations):
            image, before = image_of(annotation, "image_id"), len(bad.messages)
            if image is not None and image in skipped:
                continue
            with bad.of(f"annotation {number} of '{self.path}'"):
                marked = self.marked(annotation, records)
                found[annotation["image_id"]].append(marked)
            if image is not None and len(bad.messages) > before:
                incomplete.add(image)
        return found, incomplete

    def marked(self, annotation: Any, records: dict[int, dict[str, Any]]) -> Marked:
        image = field(annotation, "image_id", int)
        category = field(annotation, "category_id", int)
        if image not in records:
            raise DataError(f"image_id {image} is not among the images")
        if category not in self.names:
            raise DataError(f"category_id {category} is not among the categories")
        record = records[image]
        mask = unpacked(annotation.get("segmentation"), record["height"], record["width"])
        return self.names[category], mask, is_crowd(annotation)
