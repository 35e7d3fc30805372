"""Question and answer templates: a name or a phrase becomes something a person would type.

The small model's own words, and the paper's. In the paper's answers ``SEG_TOKEN`` says where a
mask stands; in the others the processor adds it. Text only: this file knows no picture, no mask.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib import resources

import numpy as np

from lisa.example import SEG_TOKEN

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


def present_answer(phrase: str) -> str:
    """The answer about something that is there."""
    return f"The {phrase}."


def absent_answer(phrase: str) -> str:
    """The answer about something that is not there."""
    return f"There is no {phrase} in this picture."


@cache
def synonyms() -> dict[str, list[str]]:
    """What else people call a thing: "frankfurter" for "hot dog"."""
    text = resources.files("lisa.data").joinpath("synonyms.json").read_text(encoding="utf-8")
    found: dict[str, list[str]] = json.loads(text)
    return found


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
    """An answer that only points, with ``SEG_TOKEN`` where its mask stands."""
    return choose(PAPER_ANSWERS, random).format(SEG_TOKEN)


def listed(words: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
