"""YOLO-seg: ``data.yaml`` and a text file of outlines for each picture.

    data.yaml         names: [cup, plate] or {0: cup, 1: plate}; train, val, test: folders; path
    images/…/A.jpg    labels/…/A.txt: a line a thing, CLASS x1 y1 x2 y2 …, shares of the picture

Format: https://docs.ultralytics.com/datasets/segment/. A picture without a text file shows none of
the names. Lines of five numbers are boxes, which have no outline, and are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lisa.annotation.formats.source import Source, pictures_in, read_text
from lisa.data.annotated import MarkedPicture, Thing, filled, plain_words
from lisa.data.records import BadRecords
from lisa.errors import DataError
from lisa.image import upright_size

SPLITS = ("train", "val", "test")


def recognise(source: Source) -> bool:
    """Whether there is a YAML file that names classes."""
    return settings_file(source.path) is not None


def settings_file(path: Path) -> Path | None:
    """The file with the names: ``path`` itself, or the first one in the folder."""
    files = [path] if path.is_file() else sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
    for file in files:
        if file.suffix.lower() in (".yaml", ".yml"):
            try:
                content = settings(file)
            except DataError:
                content = None
            if (isinstance(content, dict) and "names" in content) or file.stem == "data":
                return file
    return None


def settings(path: Path) -> Any:
    """The content of the YAML file."""
    import yaml

    try:
        return yaml.safe_load(read_text(path))
    except (yaml.YAMLError, ValueError) as error:
        raise DataError(f"'{path}' is not YAML: {' '.join(str(error).split())}") from error


def read(source: Source, bad: BadRecords) -> Iterator[MarkedPicture]:
    """The pictures of every split."""
    path = settings_file(source.path)
    if path is None:
        raise DataError(f"no data.yaml with names in '{source.path}'; expected one")
    content = settings(path)
    if not isinstance(content, dict):
        raise DataError(f"'{path}' holds no settings; expected names and folders")
    names = read_names(content.get("names"), path)
    found = False
    for split in SPLITS:
        for image in images_of(content, split, path):
            found = True
            picture = None
            with bad.of(f"'{image}'"):
                picture = read_picture(image, names, split, bad)
            if picture:
                yield picture
    if not found:
        raise DataError(f"'{path}' leads to no pictures; expected 'train' to be their folder")


def read_names(names: Any, path: Path) -> dict[int, str]:
    """Names by class number."""
    pairs = names.items() if isinstance(names, dict) else enumerate(names or [])
    try:
        found = {int(number): plain_words(str(name)) for number, name in pairs}
    except (TypeError, ValueError) as error:
        raise DataError(f"'names' of '{path}' are malformed ({error}); expected a list") from error
    if not found:
        raise DataError(f"'names' of '{path}' are missing; expected a list of names")
    return found


def images_of(content: dict[str, Any], split: str, path: Path) -> list[Path]:
    """The pictures of a split: a folder, several, or a text file that lists them."""
    places = content.get(split) or []
    roots = [path.parent / str(content.get("path") or "."), path.parent]
    found: list[Path] = []
    for place in places if isinstance(places, list) else [places]:
        trimmed = str(place).removeprefix("../")  # Roboflow counts from a folder that is not there
        options = [root / name for name in (str(place), trimmed) for root in roots]
        there = next((option for option in options if option.exists()), None)
        if there is None:
            raise DataError(f"'{split}: {place}' of '{path}' is not there; expected a folder")
        found += listed(there) if there.is_file() else pictures_in(there)
    return found


def listed(path: Path) -> list[Path]:
    """The pictures that a text file lists, a line each."""
    lines = read_text(path).splitlines()
    return [path.parent / line.strip() for line in lines if line.strip()]


def labels_of(image: Path) -> Path:
    """``…/images/…/A.jpg`` -> ``…/labels/…/A.txt``."""
    parts = list(image.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def read_picture(image: Path, names: dict[int, str], split: str, bad: BadRecords) -> MarkedPicture:
    """One picture with the lines of its text file."""
    width, height = upright_size(image)
    path = labels_of(image)
    lines = read_text(path).splitlines() if path.is_file() else []
    things, before = [], len(bad.messages)
    for number, line in enumerate(lines, start=1):
        if line.strip():
            with bad.of(f"line {number} of '{path}'"):
                things.append(read_line(line, names, height, width))
    complete = len(bad.messages) == before
    return MarkedPicture(
        image, image.name, height, width, tuple(things), complete=complete, split=split
    )


def read_line(line: str, names: dict[int, str], height: int, width: int) -> Thing:
    """CLASS x1 y1 x2 y2 … as a thing."""
    try:
        first, *rest = line.split()
        number, shares = int(first), np.array([float(value) for value in rest])
    except ValueError:
        raise DataError(f"{line[:40]!r} is not all numbers; expected CLASS x1 y1 x2 …") from None
    if number not in names:
        raise DataError(f"class {number} has no name; expected one of {sorted(names)}")
    if len(shares) == 4:
        raise DataError("it is a box; expected an outline of at least 3 points")
    if len(shares) % 2:
        raise DataError(f"it has {len(shares)} numbers after the class; expected pairs")
    if not np.all((shares >= -1) & (shares <= 2)):
        raise DataError("a position is NaN or far outside; expected shares from 0 to 1")
    points = shares.reshape(-1, 2) * [width, height]
    return Thing(names[number], filled([points.tolist()], height, width))
