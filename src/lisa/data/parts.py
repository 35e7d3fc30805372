"""Things and their parts, one by one: PACO-LVIS and PASCAL-Part, both as COCO files.

    vlpart/paco/annotations/paco_lvis_v1_SPLIT.json     pictures under coco/
    vlpart/pascal_part/SPLIT.json                       VOCdevkit/VOC2010/JPEGImages

A category is a thing ("mug") or a part of one ("mug:handle"). An example asks for all that a
picture has of a category; training asks for single annotations, as the paper does. This file knows
the format; it refuses to know models and scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lisa.data.image_dataset import ImageDataset, check_exists, check_size, drawn, folder_of
from lisa.data.prompts import paper_answer, paper_question
from lisa.data.records import BadRecords, field, read_json
from lisa.errors import DataError
from lisa.example import Example
from lisa.masks import check_segmentation, decode_segmentation


@dataclass(frozen=True)
class Category:
    """A thing, or a part of one."""

    thing: str
    part: str = ""

    @property
    def name(self) -> str:
        """ "mug", "mug handle"."""
        return f"{self.thing} {self.part}".strip()

    def drawn_name(self, random: np.random.Generator) -> str:
        """The name, or as often "the handle of the mug"."""
        if not self.part or random.random() < 0.5:
            return self.name
        return f"the {self.part} of the {self.thing}"


@dataclass(frozen=True)
class Annotation:
    """One thing or part in a picture."""

    number: int
    category: Category
    segmentation: Any


@dataclass(frozen=True)
class Photo:
    """A picture and what is annotated in it."""

    path: Path
    size: tuple[int, int]  # height, width
    annotations: list[Annotation]


class Parts(ImageDataset):
    """One example for each category of each picture that has annotations.

    ``question`` and ``phrase`` are the category's name; ``masks`` is bool [1, H, W].

    Args:
        name, split: see ``ImageDataset``.
        path: the COCO file.
        photos: the folder of its pictures.
        read_name: the name of a category in the file -> what it means.
        skip_bad: leave broken records out.

    Raises:
        DataError: the file is missing or malformed, or nothing is annotated.
    """

    def __init__(
        self,
        name: str,
        split: str | None,
        path: Path,
        photos: Path,
        read_name: Callable[[str], Category],
        skip_bad: bool,
    ) -> None:
        self.name, self.split, self.path = name, split, path
        self._bad = BadRecords(skip_bad)
        content = read_json(path)
        categories = self._read_categories(content, read_name)
        self._photos = self._read(content, photos, categories)
        self._examples = [
            (index, category)
            for index, photo in enumerate(self._photos)
            for category in dict.fromkeys(a.category for a in photo.annotations)
        ]
        self.photos = [photo.path for photo in self._photos]
        self.skipped = self._bad.messages

    def __len__(self) -> int:
        return len(self._examples)

    def example(self, index: int) -> Example:
        place, category = self._examples[index]
        photo = self._photos[place]
        annotations = [a for a in photo.annotations if a.category == category]
        name = f"{photo.path.name}#{category.name}"
        return self._example(photo, annotations, category.name, name, category.name, None)

    def draw(self, index: int, random: np.random.Generator) -> list[Example]:
        photo, examples = self._photos[index], []
        chosen = drawn(photo.annotations, random)
        names = [annotation.category.drawn_name(random) for annotation in chosen]
        for annotation, phrase in zip(chosen, names, strict=True):
            question, answer = paper_question(phrase, random), paper_answer(random)
            name = f"{photo.path.name}#{annotation.number}"
            examples.append(self._example(photo, [annotation], phrase, name, question, answer))
        return examples

    def _example(
        self,
        photo: Photo,
        annotations: Sequence[Annotation],
        phrase: str,
        name: str,
        question: str,
        answer: str | None,
    ) -> Example:
        image = self.picture(photo.path)
        check_size(photo.size, image, f"image '{photo.path.name}' of '{self.path}'")
        mask = np.zeros(photo.size, bool)
        for annotation in annotations:
            with BadRecords().of(f"annotation {annotation.number} of '{self.path}'"):
                mask |= decode_segmentation(annotation.segmentation, *photo.size)
        return Example(
            image=image,
            question=question,
            answer=answer,
            masks=mask[np.newaxis],
            name=name,
            tags=frozenset({"short"}),
            phrase=phrase.lower(),
        )

    # ------------------------------------------------------------------ reading

    def _read_categories(
        self, content: Any, read_name: Callable[[str], Category]
    ) -> dict[int, Category]:
        categories = {}
        for number, category in enumerate(field(content, "categories", list, f"'{self.path}'")):
            where = f"category {number} of '{self.path}'"
            name = field(category, "name", str, where)
            categories[field(category, "id", int, where)] = read_name(name)
        return categories

    def _read(self, content: Any, folder: Path, categories: dict[int, Category]) -> list[Photo]:
        """The pictures of the file that have annotations, in its order."""
        annotations: dict[int, list[Annotation]] = {}
        for number, record in enumerate(field(content, "annotations", list, f"'{self.path}'")):
            with self._bad.of(f"annotation {_identity(record, number)} of '{self.path}'"):
                image, annotation = _parse_annotation(record, categories)
                annotations.setdefault(image, []).append(annotation)
        photos = []
        for number, record in enumerate(field(content, "images", list, f"'{self.path}'")):
            with self._bad.of(f"image {_identity(record, number)} of '{self.path}'"):
                if found := annotations.get(field(record, "id", int)):
                    path = check_exists(folder / field(record, "file_name", str))
                    size = (field(record, "height", int), field(record, "width", int))
                    photos.append(Photo(path, size, found))
        if not photos:
            raise DataError(f"nothing is annotated in '{self.path}'; expected at least one picture")
        return photos


def paco_lvis(root: Path, split: str | None, skip_bad: bool = False) -> Parts:
    """PACO-LVIS: 75 things and 456 parts of things, in pictures of COCO."""
    folder = folder_of(root, "vlpart/paco/annotations", what="annotations of PACO-LVIS")
    path = folder / f"paco_lvis_v1_{split}.json"
    return Parts("paco-lvis", split, path, root / "coco", paco_category, skip_bad)


def pascal_part(root: Path, split: str | None, skip_bad: bool = False) -> Parts:
    """PASCAL-Part, in pictures of PASCAL VOC 2010."""
    folder = folder_of(root, "vlpart/pascal_part", "pascal_part", ".", what="PASCAL-Part")
    photos = folder / "VOCdevkit" / "VOC2010" / "JPEGImages"
    return Parts("pascal-part", split, folder / f"{split}.json", photos, category_of, skip_bad)


def category_of(name: str) -> Category:
    """ "dog:head" -> a part, "dog" -> a thing."""
    thing, _, part = name.partition(":")
    return Category(thing, part)


def paco_category(name: str) -> Category:
    """The same without PACO's explanations: "mug_(drinkware):handle" is the handle of a mug."""
    plain = category_of(name)
    return Category(*(word.split("_(")[0] for word in (plain.thing, plain.part)))


def _identity(record: Any, number: int) -> Any:
    return record.get("id", number) if isinstance(record, dict) else number


def _parse_annotation(record: Any, categories: dict[int, Category]) -> tuple[int, Annotation]:
    image, category = field(record, "image_id", int), field(record, "category_id", int)
    if category not in categories:
        raise DataError(f"category {category} is not among the categories")
    check_segmentation(record.get("segmentation"))
    number = field(record, "id", int)
    return image, Annotation(number, categories[category], record["segmentation"])
