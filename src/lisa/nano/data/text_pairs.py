"""What belongs to which word: pairs of a text and the name of the thing that it is about.

Definitions (out of two dictionaries), implicit questions, and questions that name their target, for
which nothing needs to be recalled. Text only: this file knows no picture, no token and no model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lisa.data.prompts import choose, name_question
from lisa.data.reasonseg import ReasonSeg
from lisa.nano.data import prompts
from lisa.nano.data.knowledge import Thing, is_held_out, taught
from lisa.nano.data.photo_questions import asked_about
from lisa.nano.data.text_files import text_file

DICTIONARIES = ("glosses.jsonl", "webster.jsonl")  # WordNet 3.0; Webster's of 1913, shortened
FREELY = ""  # the name of what is answered without recalling anything
PLACES = (
    "left",
    "right",
    "top",
    "bottom",
    "large",
    "small",
    "second from the left",
    "red",
    "other",
)


@dataclass(frozen=True)
class Pair:
    """A text, and the name that it is about."""

    text: str
    name: str  # FREELY: of no single name, or the text says it itself


def glosses() -> list[Pair]:
    """Definitions of everyday nouns, none of them of a thing that is held out."""
    files = [text_file("definitions", name) for name in DICTIONARIES]
    texts = [file.read_text(encoding="utf-8") for file in files]
    records = [json.loads(line) for text in texts for line in text.splitlines()]
    return [Pair(record["gloss"], record["name"]) for record in records]


def definitions(held_out: bool) -> dict[str, list[str]]:
    """Definitions by name: the one in five that is never learnt, or the others."""
    texts: dict[str, list[str]] = {}
    for pair in glosses():
        if is_held_out(pair.text) == held_out:
            texts.setdefault(pair.name, []).append(pair.text)
    return texts


def defined(held_out: bool = False) -> dict[str, Thing]:
    """The things that may be trained on, with definitions for questions; some have none.

    Args:
        held_out: with the one definition in five that is never trained on, instead of the others.
    """
    texts = definitions(held_out)
    return {
        name: replace(thing, questions=tuple(as_questions(texts.get(name, ()))))
        for name, thing in taught().items()
    }


def as_questions(definitions: Sequence[str]) -> list[tuple[str, str]]:
    """Each definition in every way in which one asks with it: (kind, text)."""
    return [
        ("definition", question.format(text))
        for text in definitions
        for question in prompts.DEFINED_QUESTIONS
    ]


def questions(knowledge: Mapping[str, Thing]) -> list[Pair]:
    """All questions about known things."""
    return [Pair(text, name) for name, thing in knowledge.items() for _, text in thing.questions]


def asked_questions(sources: Sequence[str], held_out: bool = False) -> list[Pair]:
    """Questions about photographs, about what is there and what is not."""
    return [
        Pair(text, asked.target)
        for source in sources
        for about in asked_about(source, held_out).values()
        for asked in about
        for text in asked.texts
    ]


def sample_questions(samples: ReasonSeg) -> list[Pair]:
    """The questions of reasoning samples."""
    return [
        Pair(text, samples[index].phrase)
        for index in range(len(samples))
        for text in samples.questions(index)
    ]


def named(names: Sequence[str], count: int, seed: int = 0) -> list[Pair]:
    """Questions that say themselves what they are about, or ask for no name in particular."""
    random = np.random.default_rng(seed)
    naming = [text for texts in prompts.NAMING_QUESTIONS.values() for text in texts]
    found = [Pair(text, FREELY) for text in (*naming, *prompts.LISTING_QUESTIONS)]
    for _ in range(count):
        name = names[int(random.integers(len(names)))]
        word = f"{choose(PLACES, random)} " if random.random() < 0.3 else ""
        found.append(Pair(name_question(word + name, random), FREELY))
    return found
