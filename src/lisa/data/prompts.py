"""Question and answer templates: a name or a phrase becomes something a person would type.

Text only. This file knows no picture, no mask and no special token; the processor adds ``[SEG]``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources

import numpy as np

NAME_QUESTIONS = (
    "Segment the {}.",
    "Where is the {}?",
    "Show me the {}.",
    "Find the {}.",
    "Can you segment the {} in this picture?",
    "Please point out the {}.",
    "Which part of the picture is the {}?",
    "the {}",
    "{}",
    "Is there a {} here? Please mark it.",
)
DESCRIBED_QUESTIONS = (
    "Segment the {}.",
    "Which one is the {}?",
    "Show me the {}.",
    "Find the {}, please.",
    "Point at the {}.",
    "the {}",
)
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


def choose(options: tuple[str, ...], random: np.random.Generator) -> str:
    """One of the options."""
    return options[int(random.integers(len(options)))]


def name_question(phrase: str, random: np.random.Generator) -> str:
    """A question that names its target."""
    return choose(NAME_QUESTIONS, random).format(phrase)


def described_question(text: str, random: np.random.Generator) -> str:
    """A question that tells its target from others: "cup to the left of the plate"."""
    return choose(DESCRIBED_QUESTIONS, random).format(text)


def present_answer(phrase: str) -> str:
    """The answer about something that is there."""
    return f"The {phrase}."


def absent_answer(phrase: str) -> str:
    """The answer about something that is not there."""
    return f"There is no {phrase} in this picture."


def listing_answer(names: Sequence[str]) -> str:
    """An answer that names several things and points at none."""
    things = [with_article(name) for name in names]
    listed = " and ".join([", ".join(things[:-1]), things[-1]] if len(things) > 1 else things)
    return listed[0].upper() + listed[1:] + "."


def with_article(name: str) -> str:
    """ "an apple", "a cup", "socks": by the look of the word."""
    if name.endswith("s") and not name.endswith("ss"):
        return name
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def other_words() -> dict[str, tuple[str, ...]]:
    """What else the things of a name are called: kinds of them, and plainer or finer words."""
    text = resources.files("lisa.data").joinpath("kinds.json").read_text(encoding="utf-8")
    return {name: tuple(words) for name, words in json.loads(text).items()}
