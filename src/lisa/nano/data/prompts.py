"""Question and answer templates of the embedded model's training.

Text only: this file knows no image and no mask."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from lisa.data.prompts import choose, listed
from lisa.nano.data.text_files import text_file

DESCRIBED_QUESTIONS = (
    "Segment the {}.",
    "Which one is the {}?",
    "Show me the {}.",
    "Find the {}, please.",
    "Point at the {}.",
    "the {}",
)
DEFINED_QUESTIONS = ("{}", "Find this: {}.", "Which one is meant: {}?")  # with a definition
NAMING_QUESTIONS = {
    "left": ("What is on the left?", "What do you see on the left side?"),
    "right": ("What is on the right?", "What do you see on the right side?"),
    "top": ("What is at the top?",),
    "bottom": ("What is at the bottom?",),
    "middle": ("What is in the middle?", "What is the main thing here?"),
}
LISTING_QUESTIONS = (
    "What is in this picture?",
    "What can you see?",
    "Name the things in this picture.",
)


def described_question(text: str, random: np.random.Generator) -> str:
    """A question that tells its target from others: "cup to the left of the plate"."""
    return choose(DESCRIBED_QUESTIONS, random).format(text)


def listing_answer(names: Sequence[str]) -> str:
    """An answer that names several things and points at none."""
    things = [with_article(name) for name in names]
    words = listed(things)
    return words[0].upper() + words[1:] + "."


def with_article(name: str) -> str:
    """ "an apple", "a cup", "socks": by the look of the word."""
    if name.endswith("s") and not name.endswith("ss"):
        return name
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def other_words() -> dict[str, tuple[str, ...]]:
    """What else the things of a name are called: kinds of them, and plainer or finer words."""
    text = text_file("kinds.json").read_text(encoding="utf-8")
    return {name: tuple(words) for name, words in json.loads(text).items()}
