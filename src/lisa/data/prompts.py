"""Question and answer templates: a name or a phrase becomes something a person would type.

The small model's own words, and the paper's. In the paper's answers ``MASK_PLACE`` says where a
mask stands; in the others the processor adds it. Text only: this file knows no picture, no mask.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources

import numpy as np

from lisa.example import MASK_PLACE

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
PAPER_PHRASE_QUESTIONS = (
    "Can you segment the {} in this image?",
    "Please segment the {} in this image.",
    "What is {} in this image? Please respond with segmentation mask.",
    "What is {} in this image? Please output segmentation mask.",
)
PAPER_SENTENCE_QUESTIONS = (
    "{} Please respond with segmentation mask.",
    "{} Please output segmentation mask.",
)
PAPER_EXPLANATION_REQUESTS = (
    "Please output segmentation mask and explain why.",
    "Please output segmentation mask and explain the reason.",
    "Please output segmentation mask and give some explanation.",
)
PAPER_ANSWERS = (
    "It is {}.",
    "Sure, {}.",
    "Sure, it is {}.",
    "Sure, the segmentation result is {}.",
    "{}.",
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
    words = listed(things)
    return words[0].upper() + words[1:] + "."


def with_article(name: str) -> str:
    """ "an apple", "a cup", "socks": by the look of the word."""
    if name.endswith("s") and not name.endswith("ss"):
        return name
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def other_words() -> dict[str, tuple[str, ...]]:
    """What else the things of a name are called: kinds of them, and plainer or finer words."""
    text = resources.files("lisa.data").joinpath("kinds.json").read_text(encoding="utf-8")
    return {name: tuple(words) for name, words in json.loads(text).items()}


# The paper's own words (arXiv 2308.00692), which its checkpoints were trained on.


def paper_question(text: str, random: np.random.Generator, *, sentence: bool = False) -> str:
    """A phrase or a sentence as the paper's training asks it; phrases are lower-cased."""
    if sentence:
        return choose(PAPER_SENTENCE_QUESTIONS, random).format(text)
    return choose(PAPER_PHRASE_QUESTIONS, random).format(text.lower())


def paper_validation_question(text: str, *, sentence: bool = False) -> str:
    """A phrase or a sentence as the paper's validation asks it, one way each."""
    return (PAPER_SENTENCE_QUESTIONS[1] if sentence else PAPER_PHRASE_QUESTIONS[3]).format(text)


def paper_explained_question(text: str, random: np.random.Generator) -> str:
    """A question that asks for the reason too."""
    return f"{text} {choose(PAPER_EXPLANATION_REQUESTS, random)}"


def paper_answer(random: np.random.Generator) -> str:
    """An answer that only points, with ``MASK_PLACE`` where its mask stands."""
    return choose(PAPER_ANSWERS, random).format(MASK_PLACE)


def listed(words: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
