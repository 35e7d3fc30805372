"""JSONL with questions: a line is one question about one picture, or one named thing in it.

    {"image": "a.jpg", "question": "…" or "questions": ["…", …], "answer"?: "…",
     "masks"?: polygons, run lengths, the name of a mask file, or a list of the last two,
     "name"?: "cup", "kind"?: "function", "split"?: "train"}

No ``masks``: where it is, is not known. ``[]``: it is not in the picture. A line with a name, masks
and no question marks a thing. Names of files count from the folder of the JSONL file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lisa.annotation.formats.masks import read_mask
from lisa.annotation.formats.source import SPLITS, Source, find_picture
from lisa.data.annotated import (
    MarkedPicture,
    RunLengths,
    Thing,
    Written,
    filled,
    packed,
    plain_words,
    unpacked,
)
from lisa.data.records import BadRecords, field
from lisa.errors import DataError
from lisa.example import check_question
from lisa.image import upright_size

FIELDS = {"image", "question", "questions", "answer", "masks", "name", "kind", "split"}


def recognise(source: Source) -> bool:
    """Whether it is a JSONL file, or a folder with one."""
    return lines_file(source.path) is not None


def lines_file(path: Path) -> Path | None:
    """``path`` itself, or the only JSONL file in the folder."""
    if path.is_file():
        return path if path.suffix.lower() in (".jsonl", ".ndjson") else None
    found = sorted(path.glob("*.jsonl"))
    return found[0] if len(found) == 1 else None


def read(source: Source, bad: BadRecords) -> Iterator[MarkedPicture]:
    """The pictures in the order of their first lines, each with all its lines."""
    path = lines_file(source.path)
    if path is None:
        raise DataError(f"no JSONL file in '{source.path}'; expected exactly one, NAME.jsonl")
    pictures: dict[Path, MarkedPicture] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if line.strip():
            with bad.of(f"line {number} of '{path}'"):
                image, made = read_line(line, path.parent, source.images)
                pictures[image] = joined(pictures[image], made) if image in pictures else made
    yield from pictures.values()


def joined(one: MarkedPicture, other: MarkedPicture) -> MarkedPicture:
    """What two lines say about one picture."""
    return replace(
        one,
        things=one.things + other.things,
        written=one.written + other.written,
        split=one.split or other.split,
    )


def read_line(line: bytes, folder: Path, images: Path | None) -> tuple[Path, MarkedPicture]:
    """One line as a picture with one thing or one question, and its file."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"it is not valid JSON: {error}") from error
    image = find_picture(field(record, "image", str), (images, folder, folder / "images"))
    unknown = sorted(record.keys() - FIELDS)
    if unknown:
        raise DataError(f"'{unknown[0]}' is unknown; expected {', '.join(sorted(FIELDS))}")
    width, height = upright_size(image)
    masks = read_masks(record.get("masks"), folder, height, width)
    name = plain_words(field(record, "name", str)) if record.get("name") else ""
    questions = read_questions(record)
    if not questions and not (name and masks):
        raise DataError("there is no question; expected 'question', or 'name' and 'masks'")
    things = () if questions else tuple(Thing(name, mask) for mask in masks or ())
    written = Written(questions, text(record, "answer"), masks, name, text(record, "kind") or "")
    return image, MarkedPicture(
        image,
        image.name,
        height,
        width,
        things,
        (written,) if questions else (),
        complete=False,
        split=read_split(record),
    )


def read_questions(record: dict[str, Any]) -> tuple[str, ...]:
    """All wordings of the question."""
    one, several = record.get("question"), record.get("questions")
    if one is not None and several is not None:
        raise DataError("there are 'question' and 'questions'; expected one of them")
    if one is not None:
        return (check_question(one),)
    if several is None:
        return ()
    wordings = field(record, "questions", list)
    if not wordings:
        raise DataError("'questions' is empty; expected at least one")
    return tuple(check_question(wording) for wording in wordings)


def text(record: dict[str, Any], key: str) -> str | None:
    """A field that may be missing or null."""
    return None if record.get(key) is None else field(record, key, str)


def read_split(record: dict[str, Any]) -> str | None:
    split = text(record, "split")
    if split is not None and split not in SPLITS:
        raise DataError(f"'split' is {split!r}; expected one of {', '.join(SPLITS)}")
    return SPLITS[split] if split is not None else None


def read_masks(masks: Any, folder: Path, height: int, width: int) -> tuple[RunLengths, ...] | None:
    """All the forms that masks may have."""
    if masks is None:
        return None
    if isinstance(masks, str | dict):
        masks = [masks]
    if not isinstance(masks, list):
        raise DataError(f"'masks' is a {type(masks).__name__}; expected a list")
    if masks and not all(isinstance(mask, str | dict) for mask in masks):
        return (filled(polygons(masks), height, width),)
    return tuple(
        from_file(folder / mask, height, width)
        if isinstance(mask, str)
        else unpacked(mask, height, width)
        for mask in masks
    )


def polygons(masks: list[Any]) -> list[Any]:
    """A list of polygons; one polygon of plain numbers is a list of one."""
    return masks if isinstance(masks[0], list) else [masks]


def from_file(path: Path, height: int, width: int) -> RunLengths:
    """What is not 0 in a mask file."""
    if not path.is_file():
        raise DataError(f"there is no mask file '{path}'")
    return packed(read_mask(path, height, width) > 0)
