"""Referring expressions: RefCOCO, RefCOCO+, RefCOCOg, refCLEF and gRefCOCO.

    NAME/refs(SPLITTER).p      expressions; a pickle, or .json. gRefCOCO: grefs(SPLITTER)
    NAME/instances.json        pictures, and the masks that expressions refer to
    images/mscoco/images/train2014, images/saiapr_tc-12 (refCLEF)

An example is one sentence. In gRefCOCO it may refer to several things, whose masks become one, or
to none (annotation -1). This file knows the format; it refuses to know models and scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from lisa.data.image_dataset import ImageDataset, check_exists, check_size, drawn, folder_of
from lisa.data.pickles import read_pickle
from lisa.data.prompts import absent_answer, paper_answer, paper_question
from lisa.data.records import BadRecords, field, read_json
from lisa.errors import DataError
from lisa.example import Example, check_question
from lisa.masks import check_segmentation, decode_segmentation

COCO_PHOTOS = "images/mscoco/images/train2014"
CLEF_PHOTOS = "images/saiapr_tc-12"
ABSENT = -1  # the annotation of an expression that refers to nothing


@dataclass(frozen=True)
class Referring:
    """Where a data set of referring expressions is kept.

    Attributes:
        name: as in ``lisa.data.datasets``.
        folder: under ``refer_seg``.
        splitter: who divided it: the word in brackets.
        photos: the folder of its pictures, under ``refer_seg``.
        stem: of the file of expressions.
    """

    name: str
    folder: str
    splitter: str
    photos: str = COCO_PHOTOS
    stem: str = "refs"


REFCOCO = Referring("refcoco", "refcoco", "unc")
REFCOCO_PLUS = Referring("refcoco+", "refcoco+", "unc")
REFCOCOG_UMD = Referring("refcocog-umd", "refcocog", "umd")
REFCOCOG_GOOGLE = Referring("refcocog-google", "refcocog", "google")
REFCLEF = Referring("refclef", "refclef", "unc", CLEF_PHOTOS)
GREFCOCO = Referring("grefcoco", "grefcoco", "unc", stem="grefs")


@dataclass(frozen=True)
class Sentence:
    """An expression: what it says, and the annotations it refers to in a picture."""

    text: str
    number: int
    image: int
    annotations: tuple[int, ...]


@dataclass(frozen=True)
class Photo:
    """A picture, as ``instances.json`` describes it."""

    path: Path
    height: int
    width: int


class Refer(ImageDataset):
    """The sentences of one split, in the order of the file.

    ``question`` and ``phrase`` are the sentence, lower-cased, as the paper's validation has it;
    ``masks`` is bool [1, H, W], or [0, H, W] where nothing is referred to.

    Args:
        kind: which of the data sets.
        root: the folder ``refer_seg``, or the one that holds it.
        split: such as "train" or "testA".
        skip_bad: leave broken records out.

    Raises:
        DataError: a file is missing or malformed, or no sentence is of that split.
    """

    def __init__(
        self, kind: Referring, root: Path, split: str | None, skip_bad: bool = False
    ) -> None:
        self.name, self.split = kind.name, split
        folder = folder_of(
            Path(root), kind.folder, f"refer_seg/{kind.folder}", what=f"'{kind.name}'"
        )
        self.instances = folder / "instances.json"
        self.refs = _refs_file(folder, kind)
        self._bad = BadRecords(skip_bad)
        self._read(folder.parent / kind.photos)
        self.skipped = self._bad.messages

    def __len__(self) -> int:
        return len(self.sentences)

    def example(self, index: int) -> Example:
        sentence = self.sentences[index]
        return self._example(sentence, sentence.text, None)

    def draw(self, index: int, random: np.random.Generator) -> list[Example]:
        chosen = drawn(self._of_photo[index], random)
        return [
            self._example(sentence, paper_question(sentence.text, random), paper_answer(random))
            for sentence in chosen
        ]

    def _example(self, sentence: Sentence, question: str, answer: str | None) -> Example:
        photo = self._images[sentence.image]
        image = self.picture(photo.path)
        mask = self._mask(sentence, photo, image)
        present = bool(mask.any())
        if answer is not None and not present:
            answer = absent_answer(sentence.text)
        return Example(
            image=image,
            question=question,
            answer=answer,
            masks=mask[np.newaxis][: int(present)],
            name=f"{photo.path.name}#{sentence.number}",
            tags=frozenset({"short"}),
            phrase=sentence.text,
        )

    def _mask(self, sentence: Sentence, photo: Photo, image: PIL.Image.Image) -> np.ndarray:
        check_size(
            (photo.height, photo.width), image, f"image {sentence.image} of '{self.instances}'"
        )
        mask = np.zeros((photo.height, photo.width), bool)
        for number in sentence.annotations:
            with BadRecords().of(f"annotation {number} of '{self.instances}'"):
                mask |= decode_segmentation(self._masks[number], photo.height, photo.width)
        return mask

    # ------------------------------------------------------------------ reading

    def _read(self, photos: Path) -> None:
        sentences = self._read_sentences()
        content = read_json(self.instances)
        self._masks = self._read_masks(content, {n for s in sentences for n in s.annotations})
        self._images = self._read_images(content, photos, {s.image for s in sentences})
        self.sentences = [sentence for sentence in sentences if self._is_known(sentence)]
        by_image: dict[int, list[Sentence]] = {}
        for sentence in self.sentences:
            by_image.setdefault(sentence.image, []).append(sentence)
        self._of_photo = list(by_image.values())
        self.photos = [self._images[image].path for image in by_image]

    def _read_sentences(self) -> list[Sentence]:
        sentences: list[Sentence] = []
        splits = set()
        for number, ref in enumerate(_read_refs(self.refs)):
            with self._bad.of(f"expression {number} of '{self.refs}'"):
                splits.add(field(ref, "split", str))
                if ref["split"] == self.split:
                    sentences += _parse_ref(ref)
        if self.split not in splits:
            known = ", ".join(sorted(splits))
            raise DataError(f"no split '{self.split}' in '{self.refs}'; expected one of {known}")
        return sentences

    def _read_masks(self, content: Any, wanted: set[int]) -> dict[int, Any]:
        masks: dict[int, Any] = {}
        for number, annotation in enumerate(
            field(content, "annotations", list, f"'{self.instances}'")
        ):
            identity = field(annotation, "id", int, f"annotation {number} of '{self.instances}'")
            if identity not in wanted:
                continue
            with self._bad.of(f"annotation {identity} of '{self.instances}'"):
                check_segmentation(annotation.get("segmentation"))
                masks[identity] = annotation["segmentation"]
        return masks

    def _read_images(self, content: Any, folder: Path, wanted: set[int]) -> dict[int, Photo]:
        images: dict[int, Photo] = {}
        for number, image in enumerate(field(content, "images", list, f"'{self.instances}'")):
            identity = field(image, "id", int, f"image {number} of '{self.instances}'")
            if identity not in wanted:
                continue
            with self._bad.of(f"image {identity} of '{self.instances}'"):
                path = check_exists(folder / field(image, "file_name", str))
                size = (field(image, "height", int), field(image, "width", int))
                images[identity] = Photo(path, *size)
        return images

    def _is_known(self, sentence: Sentence) -> bool:
        """Whether its picture and its annotations were read."""
        missing = [f"annotation {n}" for n in sentence.annotations if n not in self._masks]
        if sentence.image not in self._images:
            missing.insert(0, f"image {sentence.image}")
        with self._bad.of(f"sentence {sentence.number} of '{self.refs}'"):
            if missing:
                raise DataError(f"{missing[0]} is not in '{self.instances}'")
        return not missing


def refer_splits(root: Path, kind: Referring) -> list[str]:
    """The splits that the expressions of a data set are of; [] where it is not under ``root``.

    A file that cannot be read is taken for training, so that opening it says why.
    """
    for folder in (root / kind.folder, root / "refer_seg" / kind.folder):
        path = next(filter(Path.is_file, _refs_files(folder, kind)), None)
        if path is not None:
            try:
                found = {ref.get("split") for ref in _read_refs(path) if isinstance(ref, dict)}
            except DataError:
                return ["train"]
            return sorted(split for split in found if isinstance(split, str))
    return []


def _read_refs(path: Path) -> list[Any]:
    content = read_pickle(path) if path.suffix == ".p" else read_json(path)
    if not isinstance(content, list):
        raise DataError(f"'{path}' holds a {type(content).__name__}; expected a list")
    return content


def _refs_files(folder: Path, kind: Referring) -> list[Path]:
    return [folder / f"{kind.stem}({kind.splitter}){ending}" for ending in (".p", ".json")]


def _refs_file(folder: Path, kind: Referring) -> Path:
    paths = _refs_files(folder, kind)
    for path in paths:
        if path.is_file():
            return path
    expected = " or ".join(f"'{path.name}'" for path in paths)
    raise DataError(f"no expressions in '{folder}'; expected {expected}")


def _parse_ref(ref: dict[str, Any]) -> list[Sentence]:
    image, numbers = field(ref, "image_id", int), ref.get("ann_id")
    numbers = numbers if isinstance(numbers, list) else [numbers]
    if not numbers or not all(isinstance(number, int) for number in numbers):
        raise DataError(f"'ann_id' is {ref.get('ann_id')!r}; expected a number or several")
    annotations = tuple(number for number in numbers if number != ABSENT)
    return [
        _parse_sentence(sentence, image, annotations) for sentence in field(ref, "sentences", list)
    ]


def _parse_sentence(sentence: Any, image: int, annotations: Sequence[int]) -> Sentence:
    text = check_question(field(sentence, "sent", str)).lower()
    return Sentence(text, field(sentence, "sent_id", int), image, tuple(annotations))
