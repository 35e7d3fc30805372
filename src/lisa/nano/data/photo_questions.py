"""Implicit questions that were written while looking at photographs of the training data.

One JSON Lines file a source; a line is a photograph's file name and what is asked about it: some
phrasings, the annotated name that is meant, a short "because"; or a name that would fit the place
and is not there. The photographs are not included. Text only: this file knows no picture.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import Any

from lisa.errors import DataError
from lisa.nano.data.text_files import text_file

HELD_OUT_EVERY = 8


@dataclass(frozen=True)
class Asked:
    """What is asked about one thing, or about its absence."""

    texts: tuple[str, ...]  # phrasings
    target: str  # a name of the photograph's annotations, or of something that is not there
    absent: bool


def asked_about(source: str, held_out: bool = False) -> dict[str, tuple[Asked, ...]]:
    """The questions by file name of the photograph; none for a source that nobody asked about.

    Args:
        source: a folder of photographs.
        held_out: of the photographs that are kept for fitting what weighs evidence, one in
            ``HELD_OUT_EVERY``; else of all others.

    Raises:
        DataError: a line is malformed; the message names the file and the line.
    """
    file = text_file("photo_questions", f"{source}.jsonl")
    if not file.is_file():
        return {}
    found = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            record = json.loads(line)
            asked = tuple(map(read_asked, record["asked"]))
            if is_held_out(record["file"]) == held_out:
                found[record["file"]] = asked
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"line {number} of '{file.name}' is malformed ({error!r}); "
                'expected {"file", "asked": [{"texts", "target", "absent"}]}'
            ) from error
    return found


def is_held_out(file_name: str) -> bool:
    """Whether a photograph's questions are kept for fitting, by its checksum."""
    return zlib.crc32(file_name.encode()) % HELD_OUT_EVERY == 0


def read_asked(record: dict[str, Any]) -> Asked:
    """One entry of a line."""
    return Asked(tuple(record["texts"]), record["target"], bool(record.get("absent", False)))
