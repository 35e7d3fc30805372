"""What people know about everyday things: implicit questions that never name their answer.

One JSON Lines file a field of life; a line is a thing with its synonyms, a short "because", and
questions by kind. The questions are for the reasoning stage, the synonyms for naming. One thing in
ten and one phrasing in five are held out: they measure what was understood and are never trained
on. Text only: this file knows no picture and no model.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, replace
from typing import Any

from lisa.errors import DataError
from lisa.nano.data.text_files import text_file


@dataclass(frozen=True)
class Thing:
    """An everyday thing and what can be asked about it without naming it."""

    name: str
    synonyms: tuple[str, ...]
    because: str  # ends the sentence "It is this one, because ..."
    questions: tuple[tuple[str, str], ...]  # (kind, text)
    held_out: bool = False  # never trained on


def things() -> dict[str, Thing]:
    """All things by name, in the order of the files.

    Raises:
        DataError: a line is malformed; the message names the file and the line.
    """
    found = {}
    for file in sorted(text_file("knowledge").iterdir()):
        if file.name.endswith(".jsonl"):
            lines = file.read_text(encoding="utf-8").splitlines()
            for number, line in enumerate(lines, start=1):
                thing = read_line(line, f"line {number} of '{file.name}'")
                found[thing.name] = thing
    return found


def taught() -> dict[str, Thing]:
    """What may be trained on: the things that are not held out, without held-out phrasings."""
    return {
        name: replace(thing, questions=tuple(q for q in thing.questions if not is_held_out(q[1])))
        for name, thing in things().items()
        if not thing.held_out
    }


def new_phrasings() -> dict[str, Thing]:
    """The things that may be trained on, each with its held-out phrasings alone."""
    return {
        name: replace(thing, questions=questions)
        for name, thing in things().items()
        if not thing.held_out
        and (questions := tuple(q for q in thing.questions if is_held_out(q[1])))
    }


def is_held_out(text: str) -> bool:
    """Whether a phrasing is kept for measuring: one in five, by its checksum."""
    return zlib.crc32(text.encode()) % 5 == 0


def read_line(line: str, where: str) -> Thing:
    """One line of a knowledge file; ``where`` is for messages."""
    try:
        return parse(json.loads(line))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        expected = '{"thing", "synonyms", "because", "questions": {kind: [text, ...]}}'
        raise DataError(f"{where} is malformed ({error!r}); expected {expected}") from error


def parse(record: dict[str, Any]) -> Thing:
    """The content of one line of a knowledge file."""
    return Thing(
        name=str(record["thing"]),
        synonyms=tuple(record["synonyms"]),
        because=str(record["because"]),
        questions=tuple(
            (kind, text) for kind, texts in record["questions"].items() for text in texts
        ),
        held_out=bool(record.get("held_out", False)),
    )
