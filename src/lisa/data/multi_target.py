"""Answers with several masks: MUSE, and the instances of LISA++.

    MUSE_SPLIT.json   [{"file_name" or "coco_url", "height", "width", "questions": [str],
                        "answers": [[{"segmentation", "category_name", "rephrased_name"?}]],
                        "text_answers"?: [str with a {seg} for each mask]}]
    data.json         (LISA++) [{"English Question": str, "img_path": str, "ID": [annotations of
                        coco/annotations/instances_train2017.json]}]

MUSE (PixelLM, arXiv 2312.02228) asks of pictures of COCO 2014 and 2017. Of LISA++ (arXiv
2312.17240) only the questions and instances are documented well enough to be read; its answers,
conversations and captions are not read. This file knows these formats, no models, no scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lisa.data.image_dataset import ImageDataset, check_exists, check_size, drawn, folder_of
from lisa.data.prompts import listed, paper_question
from lisa.data.records import BadRecords, field, read_json, read_list
from lisa.errors import DataError
from lisa.example import SEG_TOKEN, Example, check_question
from lisa.masks import check_segmentation, decode_segmentation

MUSE_PLACE = "{seg}"  # a mask's place in an answer of MUSE
MUSE_SPLITS = ("train", "val", "test_less", "test_many")
MUSE_FOLDERS = ("muse", "multi_reason_seg/MultiReasonSeg", ".")
PLUS_FOLDERS = ("lisa_plus", "reason_seg_plus", ".")
PLUS_FILES = ("data.json", "LISA_Plus_Instance_Seg.json")


@dataclass(frozen=True)
class Target:
    """One thing that an answer points at: what it is called, and its COCO segmentation."""

    name: str
    segmentation: Any


@dataclass(frozen=True)
class Exchange:
    """A question about a picture, and an answer with a ``SEG_TOKEN`` for each target."""

    photo: Path
    size: tuple[int, int] | None  # height, width of the masks; None: as the picture
    question: str
    answer: str
    targets: tuple[Target, ...]
    record: str  # names it in messages


class MultiTarget(ImageDataset):
    """One example for each question, with one mask for each target, in the answer's order.

    ``masks`` is bool [N, H, W]; ``phrase`` is what the targets are called, where they are.

    Args:
        split: see ``ImageDataset``.
        exchanges: what there is, the questions of a picture side by side.
        skipped: what was left out.
    """

    def __init__(
        self, split: str | None, exchanges: Sequence[Exchange], skipped: list[str]
    ) -> None:
        self.split, self.exchanges, self.skipped = split, exchanges, skipped
        by_photo: dict[Path, list[int]] = {}
        for number, exchange in enumerate(exchanges):
            by_photo.setdefault(exchange.photo, []).append(number)
        self.photos, self._of_photo = list(by_photo), list(by_photo.values())

    def __len__(self) -> int:
        return len(self.exchanges)

    def example(self, index: int) -> Example:
        return self._example(index, self.exchanges[index].question)

    def draw(self, index: int, random: np.random.Generator) -> list[Example]:
        return [
            self._example(
                number, paper_question(self.exchanges[number].question, random, sentence=True)
            )
            for number in drawn(self._of_photo[index], random)
        ]

    def _example(self, index: int, question: str) -> Example:
        exchange = self.exchanges[index]
        image = self.picture(exchange.photo)
        size = exchange.size or (image.height, image.width)
        check_size(size, image, exchange.record)
        with BadRecords().of(exchange.record):
            masks = [decode_segmentation(t.segmentation, *size) for t in exchange.targets]
        return Example(
            image=image,
            question=question,
            answer=exchange.answer,
            masks=np.stack(masks),
            name=f"{exchange.photo.name}#{index}",
            tags=frozenset({"long"}),
            phrase=listed(list(filter(None, dict.fromkeys(t.name for t in exchange.targets)))),
        )


class Muse(MultiTarget):
    """The questions of one split of MUSE: "train", "val", "test_less" or "test_many".

    Args:
        root: holds the file, or a folder ``muse`` or ``multi_reason_seg/MultiReasonSeg`` with it;
            and the pictures, under ``coco`` or ``refer_seg/images/mscoco/images``.
        split: which.
        skip_bad: leave broken questions out.

    Raises:
        DataError: the file or a picture is missing, or a record is malformed.
    """

    name = "muse"

    def __init__(self, root: Path, split: str | None, skip_bad: bool = False) -> None:
        path = _first_file(root, MUSE_FOLDERS, (f"MUSE_{split}.json",))
        bad = BadRecords(skip_bad)
        exchanges: list[Exchange] = []
        for number, record in enumerate(read_list(path)):
            with bad.of(f"record {number} of '{path}'"):
                exchanges += _parse_muse(record, root, f"record {number} of '{path}'")
        super().__init__(split, exchanges, bad.messages)


class LisaPlusInstances(MultiTarget):
    """The instance segmentation questions of LISA++, about pictures of COCO 2017.

    Args:
        root: holds ``data.json`` (or ``reason_seg_plus/LISA_Plus_Instance_Seg.json``), and
            ``coco/train2017`` and ``coco/annotations/instances_train2017.json``.
        split: None; there are none.
        skip_bad: leave broken questions out.

    Raises:
        DataError: a file is missing, or a record is malformed.
    """

    name = "lisa++"

    def __init__(self, root: Path, split: str | None = None, skip_bad: bool = False) -> None:
        if split is not None:
            raise DataError(f"'{self.name}' has no splits; got '{split}'")
        path = _first_file(root, PLUS_FOLDERS, PLUS_FILES)
        photos = folder_of(root, "coco/train2017", what="pictures of COCO")
        instances = root / "coco" / "annotations" / "instances_train2017.json"
        targets = _read_instances(instances)
        bad = BadRecords(skip_bad)
        exchanges: list[Exchange] = []
        for number, record in enumerate(read_list(path)):
            where = f"record {number} of '{path}'"
            with bad.of(where):
                exchanges.append(_parse_plus(record, photos, targets, where))
        super().__init__(None, exchanges, bad.messages)


def _first_file(root: Path, folders: Sequence[str], names: Sequence[str]) -> Path:
    for path in (root / folder / name for folder in folders for name in names):
        if path.is_file():
            return path
    places = ", ".join(f"'{folder}'" for folder in folders)
    raise DataError(f"no {' or '.join(names)} in '{root}'; expected it in one of {places}")


# ------------------------------------------------------------------ MUSE


def _parse_muse(record: Any, root: Path, where: str) -> list[Exchange]:
    questions, answers = field(record, "questions", list), field(record, "answers", list)
    texts = (
        field(record, "text_answers", list) if "text_answers" in record else [None] * len(answers)
    )
    if not isinstance(texts, list) or not len(questions) == len(answers) == len(texts):
        raise DataError("'questions', 'answers' and 'text_answers' differ; expected one of each")
    photo = check_exists(_muse_photo(record, root))
    size = (field(record, "height", int), field(record, "width", int))
    exchanges = []
    for question, answer, text in zip(questions, answers, texts, strict=True):
        targets = tuple(_parse_target(target) for target in answer or ())
        if not targets:
            raise DataError("an answer points at nothing; expected at least one segmentation")
        spoken = _spoken(text, targets)
        exchanges.append(Exchange(photo, size, check_question(question), spoken, targets, where))
    return exchanges


def _muse_photo(record: Any, root: Path) -> Path:
    """Records of COCO 2014 have a file name; those of 2017 only an address that ends in one."""
    if "file_name" in record:
        part, name = "train2014", field(record, "file_name", str)
    else:
        *_, part, name = ["", *field(record, "coco_url", str).split("/")]
    folder = folder_of(
        root, f"refer_seg/images/mscoco/images/{part}", f"coco/{part}", what="pictures of COCO"
    )
    return folder / name


def _parse_target(target: Any) -> Target:
    name = field(target, "rephrased_name" if "rephrased_name" in target else "category_name", str)
    check_segmentation(target.get("segmentation"))
    return Target(name.strip().lower(), target["segmentation"])


def _spoken(text: Any, targets: Sequence[Target]) -> str:
    """The answer of the file; where it does not have a place for each mask, one of names."""
    if isinstance(text, str) and text.count(MUSE_PLACE) == len(targets):
        return text.replace(MUSE_PLACE, SEG_TOKEN)
    words = listed([f"the {target.name} {SEG_TOKEN}" for target in targets])
    return f"{words[0].upper()}{words[1:]}."


# ------------------------------------------------------------------ LISA++


def _read_instances(path: Path) -> dict[int, Target]:
    """The instances of a COCO file by their number."""
    content = read_json(path)
    names = {
        field(category, "id", int, f"'{path}'"): field(category, "name", str, f"'{path}'")
        for category in field(content, "categories", list, f"'{path}'")
    }
    targets = {}
    for number, annotation in enumerate(field(content, "annotations", list, f"'{path}'")):
        where = f"annotation {number} of '{path}'"
        name = names.get(field(annotation, "category_id", int, where), "")
        targets[field(annotation, "id", int, where)] = Target(name, annotation.get("segmentation"))
    return targets


def _parse_plus(record: Any, photos: Path, targets: dict[int, Target], where: str) -> Exchange:
    question = check_question(field(record, "English Question", str))
    photo = check_exists(photos / field(record, "img_path", str))
    numbers = field(record, "ID", list)
    try:
        found = tuple(targets[int(number)] for number in numbers)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"'ID' is {numbers[:4]}; expected annotations of COCO 2017") from error
    if not found:
        raise DataError("'ID' is empty; expected at least one annotation of COCO 2017")
    for target in found:
        check_segmentation(target.segmentation)
    answer = f"Sure, {listed([SEG_TOKEN] * len(found))}."
    return Exchange(photo, None, question, answer, found, where)
