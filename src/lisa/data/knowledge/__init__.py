"""What people know about everyday things: implicit questions that never name their answer.

One JSON Lines file a field of life; a line is a thing with synonyms, a short "because" and questions
by kind. Text only; used for the reasoning stage, and the synonyms for naming.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class Thing:
    """An everyday thing and what can be asked about it without naming it."""

    name: str
    synonyms: tuple[str, ...]
    because: str
    questions: tuple[tuple[str, str], ...]  # (kind, text)


def things() -> dict[str, Thing]:
    """All things by name, in the order of the files."""
    found = {}
    for file in sorted(resources.files(__name__).iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".jsonl"):
            for line in file.read_text(encoding="utf-8").splitlines():
                thing = parse(json.loads(line))
                found[thing.name] = thing
    return found


def parse(record: dict[str, object]) -> Thing:
    """One line of a knowledge file."""
    questions = record["questions"]
    assert isinstance(questions, dict)
    return Thing(
        name=str(record["thing"]),
        synonyms=tuple(record["synonyms"]),  # type: ignore[arg-type]
        because=str(record["because"]),
        questions=tuple((kind, text) for kind, texts in questions.items() for text in texts),
    )
