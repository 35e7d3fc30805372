"""Your own data: the folder that `lisa data import` writes, and the examples in it.

    lisa.json         {"format": "lisa-own-data", "version": 1, "name", "names", "splits"}
    train.jsonl       one picture a line: {"image", "height", "width", "things", "written", …}
    val.jsonl         the same; also test.jsonl, where the source has one
    images/           the pictures

A thing is a name and a mask in COCO's compressed run lengths. Names become questions through the
templates of training when an example is asked for; written questions stay as they are. This file
knows the folder and what is asked about a picture; it refuses to know other formats and models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lisa.data.annotated import MarkedPicture, RunLengths, Thing, Written
from lisa.data.image_dataset import QUESTIONS, ImageDataset, check_exists
from lisa.data.prompts import absent_answer, present_answer
from lisa.data.records import BadRecords, field, read_json
from lisa.data.regions import (
    Region,
    Scene,
    Target,
    named_example,
    pick,
    referring_targets,
    semantic_targets,
)
from lisa.errors import DataError
from lisa.example import Example
from lisa.masks import decode_rle

FORMAT, VERSION = "lisa-own-data", 1
SETTINGS = "lisa.json"
SPLITS = ("train", "val", "test")
REFERRING_SHARE = 0.5  # of draws may also ask for the left one, the large one ...
ABSENT_SHARE = 0.3  # of draws also ask for a name that is not there


class OwnData(ImageDataset):
    """The examples of an own-data folder: index in, same example out; and draws for training.

    The examples of a picture are, in this order: each written question; each name with all that
    bears it (tag "named"); and one of the set's names that the picture is known to lack (tag
    "absent"). Written questions have the tag "written" and their kind.

    Every record is read and checked on construction, so that a broken one stops a run before it
    starts. Pictures are read when asked for.

    Args:
        root: the folder with ``lisa.json``.
        split: "train", "val" or "test"; None: all that there are.
        skip_bad: leave out records that break the format, and name them in ``skipped``.
        questions: at most so many are drawn of one picture.

    Raises:
        DataError: no such folder or split, or a record is malformed; the message names both.
            Indexing raises ImageError for a broken picture.
    """

    def __init__(
        self,
        root: str | Path,
        split: str | None = None,
        skip_bad: bool = False,
        *,
        questions: int = QUESTIONS,
    ) -> None:
        self.root, self.split, self.questions = Path(root), split, questions
        settings = read_settings(self.root)
        self.name = f"own:{settings['name']}"
        self.names: list[str] = settings["names"]
        bad = BadRecords(skip_bad)
        self.pictures = [
            picture
            for part in wanted_splits(self.root, settings, split)
            for picture in read_split(self.root, part, bad)
        ]
        self.skipped = bad.messages
        self.photos = [
            picture.image for picture in self.pictures if isinstance(picture.image, Path)
        ]
        self._asked = [
            (number, asked)
            for number, picture in enumerate(self.pictures)
            for asked in self._askable(number, picture)
        ]

    def __len__(self) -> int:
        return len(self._asked)

    def example(self, index: int) -> Example:
        number, asked = self._asked[index]
        made = self._example(number, asked, np.random.default_rng(index))
        return replace(made, name=f"{made.name}:{index}")

    def draw(self, index: int, random: np.random.Generator) -> list[Example]:
        """Questions about picture ``index`` of ``photos``, in random words, as training asks them.

        At most ``questions``: some of the written ones and the names, now and then one thing among
        several ("left cup") and a name that is not there; at least one.
        """
        picture = self.pictures[index]
        asked: list[Written | Target] = [*picture.written, *self._targets(picture, random)]
        absent = self._absent(picture)
        if absent and (not asked or random.random() < ABSENT_SHARE):
            missing = self._missing(picture, pick(absent, 1, random)[0])
            asked = [*pick(asked, self.questions - 1, random), missing]
        chosen = pick(asked, self.questions, random)
        return [self._example(index, one, random) for one in chosen]

    def _askable(self, number: int, picture: MarkedPicture) -> Iterator[Written | str]:
        """What is asked about a picture in evaluation: questions and names."""
        yield from picture.written
        yield from dict.fromkeys(thing.name for thing in picture.things)
        absent = self._absent(picture)
        if absent:
            yield absent[number % len(absent)]

    def _absent(self, picture: MarkedPicture) -> list[str]:
        """The names that the picture is known to lack."""
        present = {thing.name for thing in picture.things}
        return [name for name in self.names if picture.complete and name not in present]

    def _targets(self, picture: MarkedPicture, random: np.random.Generator) -> list[Target]:
        """The names of a picture, and now and then its things one by one."""
        nothing = np.zeros((picture.height, picture.width, 0), np.uint8)
        regions = tuple(Region(thing.name, decode_rle(thing.mask)) for thing in picture.things)
        scene = Scene(nothing, regions, (), picture.instances)
        referring = referring_targets(scene) if random.random() < REFERRING_SHARE else []
        return [*semantic_targets(scene), *pick(referring, 1, random)]

    def _missing(self, picture: MarkedPicture, name: str) -> Target:
        return Target(name, np.zeros((picture.height, picture.width), bool))

    def _example(
        self, number: int, asked: Written | Target | str, random: np.random.Generator
    ) -> Example:
        picture = self.pictures[number]
        image = self.picture(self.photos[number])
        if isinstance(asked, Written):
            made = written_example(picture, image, asked, random)
        else:
            target = self._named(picture, asked) if isinstance(asked, str) else asked
            tags = frozenset({"named" if target.present else "absent"})
            made = replace(named_example(image, target, random), tags=tags)
        ignore = decode_rle(picture.ignore) if picture.ignore else None
        return replace(made, name=picture.name, ignore=ignore)

    def _named(self, picture: MarkedPicture, name: str) -> Target:
        masks = [decode_rle(thing.mask) for thing in picture.things if thing.name == name]
        return Target(name, np.logical_or.reduce(masks)) if masks else self._missing(picture, name)


def written_example(
    picture: MarkedPicture, image: Image.Image, asked: Written, random: np.random.Generator
) -> Example:
    """A written question in one of its wordings; its answer, or one that names the target."""
    size = (picture.height, picture.width)
    masks = None if asked.masks is None else np.zeros((0, *size), bool)
    if asked.masks:
        masks = np.stack([decode_rle(mask) for mask in asked.masks])
    answer = asked.answer
    if answer is None and asked.name and masks is not None:
        answer = present_answer(asked.name) if len(masks) else absent_answer(asked.name)
    return Example(
        image,
        asked.questions[int(random.integers(len(asked.questions)))],
        answer,
        masks,
        tags=frozenset({"written", asked.kind} - {""}),
        phrase=asked.name,
    )


# ------------------------------------------------------------------ reading the folder


def read_settings(root: Path) -> dict[str, Any]:
    """What ``lisa.json`` holds, checked."""
    path = root / SETTINGS
    if not path.is_file():
        raise DataError(f"no '{path}'; expected a folder that `lisa data import` wrote")
    settings = read_json(path)
    where = f"'{path}'"
    if field(settings, "format", str, where) != FORMAT or settings.get("version") != VERSION:
        raise DataError(f"{where} is not {FORMAT} version {VERSION}; import the data again")
    field(settings, "name", str, where)
    field(settings, "names", list, where)
    field(settings, "splits", dict, where)
    return dict(settings)


def own_splits(root: Path) -> list[str]:
    """The splits of an own-data folder; [] where ``root`` is none."""
    return wanted_splits(root, read_settings(root), None) if (root / SETTINGS).is_file() else []


def wanted_splits(root: Path, settings: dict[str, Any], split: str | None) -> list[str]:
    """The split asked for, or all that there are; none may be without pictures."""
    there = [name for name in SPLITS if settings["splits"].get(name)]
    if split is not None and split not in there:
        raise DataError(f"'{root}' has no split '{split}'; expected one of {', '.join(there)}")
    return [split] if split is not None else there


def read_split(root: Path, split: str, bad: BadRecords) -> Iterator[MarkedPicture]:
    """The pictures of one split."""
    path = root / f"{split}.jsonl"
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}; expected JSONL") from error
    for number, line in enumerate(lines, start=1):
        picture = None
        with bad.of(f"line {number} of '{path}'"):
            picture = read_record(line, root)
        if picture:
            yield picture


def read_record(line: bytes, root: Path) -> MarkedPicture:
    """One line as a picture; its file must be there."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"it is not valid JSON: {error}") from error
    image = check_exists(root / field(record, "image", str))
    record = {**record, "size": [field(record, "height", int), field(record, "width", int)]}
    return MarkedPicture(
        image=image,
        name=image.name,
        height=record["height"],
        width=record["width"],
        things=tuple(
            Thing(field(one, "name", str), read_mask(one.get("mask"), record))
            for one in field(record, "things", list)
        ),
        written=tuple(read_written(one, record) for one in field(record, "written", list)),
        ignore=read_mask(record["ignore"], record) if record.get("ignore") else None,
        complete=field(record, "complete", bool),
        instances=field(record, "instances", bool),
    )


def read_written(record: Any, picture: dict[str, Any]) -> Written:
    questions = field(record, "questions", list)
    masks = record.get("masks")
    if not questions or not all(isinstance(question, str) for question in questions):
        raise DataError("a written question has no text; expected at least one")
    return Written(
        tuple(questions),
        record.get("answer"),
        None if masks is None else tuple(read_mask(mask, picture) for mask in masks),
        record.get("name") or "",
        record.get("kind") or "",
    )


def read_mask(mask: Any, picture: dict[str, Any]) -> RunLengths:
    """Run lengths of the picture's size; whether they are whole is seen when they are decoded."""
    size = mask.get("size") if isinstance(mask, dict) else None
    if size != picture["size"] or not isinstance(mask.get("counts"), str):
        raise DataError(f"a mask of {size}; expected run lengths of the picture's size")
    return {"size": size, "counts": mask["counts"]}


# ------------------------------------------------------------------ writing the folder


def record_of(picture: MarkedPicture, image: str) -> dict[str, Any]:
    """What the line of a picture holds, whose file is ``image`` in the folder."""
    return {
        "image": image,
        "height": picture.height,
        "width": picture.width,
        "things": [{"name": thing.name, "mask": thing.mask} for thing in picture.things],
        "written": [
            {
                "questions": list(one.questions),
                "answer": one.answer,
                "masks": None if one.masks is None else list(one.masks),
                "name": one.name,
                "kind": one.kind,
            }
            for one in picture.written
        ],
        "ignore": picture.ignore,
        "complete": picture.complete,
        "instances": picture.instances,
    }
