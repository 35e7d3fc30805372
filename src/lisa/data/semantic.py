"""Pictures in which every pixel has a class: ADE20K, COCO-Stuff, Mapillary Vistas.

    ade20k/images/SPLIT/*.jpg            ade20k/annotations/SPLIT/*.png
    coco/SPLIT/*.jpg                     cocostuff/SPLIT/*.png
    mapillary/SPLIT/images/*.jpg         mapillary/SPLIT/v2.0/labels/*.png, config_v2.0.json

An example asks for one class of one picture; what a label map leaves open is ignored. This file
knows label maps; it refuses to know instances, which are ``instances``'.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import PIL.Image

from lisa.data.image_dataset import ImageDataset, check_exists, check_size, drawn, folder_of
from lisa.data.prompts import paper_answer, paper_question
from lisa.data.records import BadRecords, field, read_json
from lisa.errors import DataError
from lisa.example import Example

ADE_FOLDERS = {"train": "training", "val": "validation"}
COCO_FOLDERS = {"train": "train2017", "val": "val2017"}
MAPILLARY_FOLDERS = ADE_FOLDERS
UNKNOWN = 255  # of a label map: no class, or none that can be asked for


@dataclass(frozen=True)
class Labels:
    """What the label maps of a data set mean.

    Attributes:
        pairs: each picture, and its label map.
        names: of the classes, by their value after ``renumber``.
        renumber: uint8 [256]: what each value of a file stands for.
    """

    pairs: Sequence[tuple[Path, Path]]
    names: Sequence[str]
    renumber: np.ndarray


class LabelMaps(ImageDataset):
    """One example for each picture: the class it asks for depends on the number alone.

    ``question`` and ``phrase`` are the name of the class; ``masks`` is bool [1, H, W]; ``ignore``
    is where the label map says nothing.

    Args:
        name, split: see ``ImageDataset``.
        labels: what there is.
        skip_bad: leave pictures without a label map out, and label maps without a picture.

    Raises:
        DataError: a picture has no label map, or there is no picture at all. Indexing and drawing
            raise it for a label map of another size than its picture, or with an unknown value.
    """

    def __init__(self, name: str, split: str | None, labels: Labels, skip_bad: bool) -> None:
        self.name, self.split, self.labels = name, split, labels
        bad = BadRecords(skip_bad)
        self.pairs: list[tuple[Path, Path]] = []
        for photo, label_map in labels.pairs:
            with bad.of(f"'{name}'"):
                self.pairs.append((check_exists(photo), check_exists(label_map)))
        self.photos = [photo for photo, _ in self.pairs]
        self.skipped = bad.messages

    def __len__(self) -> int:
        return len(self.pairs)

    def example(self, index: int) -> Example:
        image, label_map = self._read(index)
        random = np.random.default_rng(index)
        values = present(label_map)
        if not values:
            raise DataError(f"no class in '{self.pairs[index][1]}'; expected at least one")
        value = values[int(random.integers(len(values)))]
        return self._example(index, image, label_map, value, self.labels.names[value], None)

    def draw(self, index: int, random: np.random.Generator) -> list[Example]:
        image, label_map = self._read(index)
        examples = []
        for value in drawn(present(label_map), random):
            question = paper_question(self.labels.names[value], random)
            answer = paper_answer(random)
            examples.append(self._example(index, image, label_map, value, question, answer))
        return examples

    def _example(
        self,
        index: int,
        image: PIL.Image.Image,
        label_map: np.ndarray,
        value: int,
        question: str,
        answer: str | None,
    ) -> Example:
        return Example(
            image=image,
            question=question,
            answer=answer,
            masks=(label_map == value)[np.newaxis],
            ignore=label_map == UNKNOWN,
            name=f"{self.pairs[index][0].name}#{value}",
            tags=frozenset({"short"}),
            phrase=self.labels.names[value].lower(),
        )

    def _read(self, index: int) -> tuple[PIL.Image.Image, np.ndarray]:
        """A picture, and its classes uint8 [H, W] with ``UNKNOWN``."""
        photo, path = self.pairs[index]
        image = self.picture(photo)
        label_map = self.labels.renumber[read_label_map(path)]
        check_size(label_map.shape, image, f"label map '{path}'")
        highest = max(present(label_map), default=0)
        if highest >= len(self.labels.names):
            known = f"at most {len(self.labels.names) - 1}"
            raise DataError(f"class {highest} in label map '{path}'; expected {known}")
        return image, label_map


def present(label_map: np.ndarray) -> list[int]:
    """The classes of a label map, in order."""
    counts = np.bincount(label_map.ravel(), minlength=UNKNOWN + 1)
    return [int(value) for value in np.flatnonzero(counts[:UNKNOWN])]


def read_label_map(path: Path) -> np.ndarray:
    """uint8 [H, W]: the values of a grey picture, or the places in the palette of one with colours.

    Raises:
        DataError: it is no picture, or one of colours without a palette.
    """
    try:
        with PIL.Image.open(path) as picture:
            values = np.asarray(picture)
    except Exception as error:  # Pillow's decoders raise many types on damaged files
        reason = " ".join(str(error).split())
        raise DataError(f"cannot read label map '{path}': {reason}; expected png") from error
    if values.dtype != np.uint8 or values.ndim != 2:
        found = f"{values.dtype} {list(values.shape)}"
        raise DataError(f"label map '{path}' is {found}; expected one byte a pixel")
    return values


# ------------------------------------------------------------------ the data sets


def ade20k(root: Path, split: str | None, skip_bad: bool = False) -> LabelMaps:
    """ADE20K, 150 classes. Value 0 is no class; the others are one too high."""
    folder = folder_of(root, "ade20k", ".", what="ADE20K")
    part = _official(split, ADE_FOLDERS)
    renumber = np.arange(256, dtype=np.uint8) - np.uint8(1)
    renumber[[0, 255]] = UNKNOWN
    pairs = _pairs(folder / "images" / part, ".jpg", folder / "annotations" / part, ".png")
    return LabelMaps("ade20k", split, Labels(pairs, class_names("ade20k"), renumber), skip_bad)


def coco_stuff(root: Path, split: str | None, skip_bad: bool = False) -> LabelMaps:
    """COCO-Stuff, 182 classes, without those whose name has a hyphen, as in the paper."""
    part = _official(split, COCO_FOLDERS)
    labels = folder_of(root, f"cocostuff/{part}", what="label maps of COCO-Stuff")
    names = class_names("coco-stuff")
    renumber = np.arange(256, dtype=np.uint8)
    renumber[[value for value, name in enumerate(names) if "-" in name]] = UNKNOWN
    pairs = [
        (photo, label) for label, photo in _pairs(labels, ".png", root / "coco" / part, ".jpg")
    ]
    return LabelMaps("coco-stuff", split, Labels(pairs, names, renumber), skip_bad)


def mapillary(root: Path, split: str | None, skip_bad: bool = False) -> LabelMaps:
    """Mapillary Vistas 2.0; its names stand in its own ``config_v2.0.json``."""
    folder = folder_of(root, "mapillary", ".", what="Mapillary Vistas")
    part = folder / _official(split, MAPILLARY_FOLDERS)
    config = folder / "config_v2.0.json"
    labels = field(read_json(config), "labels", list, f"'{config}'")
    names = [
        field(label, "readable", str, f"label {number} of '{config}'").lower()
        for number, label in enumerate(labels)
    ]
    renumber = np.arange(256, dtype=np.uint8)
    found = _pairs(part / "v2.0" / "labels", ".png", part / "images", ".jpg")
    pairs = [(photo, label_map) for label_map, photo in found]
    return LabelMaps("mapillary", split, Labels(pairs, names, renumber), skip_bad)


def class_names(name: str) -> list[str]:
    """The classes of "ade20k" or "coco-stuff", by value."""
    text = resources.files("lisa.data").joinpath("classes.json").read_text(encoding="utf-8")
    names: list[str] = json.loads(text)[name]
    return names


def _official(split: str | None, folders: dict[str, str]) -> str:
    if split not in folders:
        raise DataError(f"unknown split '{split}'; expected one of {', '.join(folders)}")
    return folders[split]


def _pairs(folder: Path, ending: str, other: Path, other_ending: str) -> list[tuple[Path, Path]]:
    """The files of a folder, sorted, each with its partner in another folder."""
    paths = sorted(folder.glob(f"*{ending}"))
    if not paths:
        raise DataError(f"no *{ending} in '{folder}'; expected at least one")
    return [(path, other / f"{path.stem}{other_ending}") for path in paths]
