"""The 1,000 ImageNet classes in the classifier's order: what each is called and what it is.

``imagenet.json`` beside this file: WordNet identifiers and names, with the words that are true of
each class (its synonyms and hypernyms in WordNet 3.0). Names only; this file knows no picture and
no model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache

import numpy as np

from lisa.nano.data.text_files import text_file


@dataclass(frozen=True)
class ImageNetClass:
    """One class: n02123045 is called "tabby cat" and is a tabby, a cat, a feline, an animal ..."""

    wnid: str  # "n" and eight digits
    name: str
    is_a: tuple[str, ...]  # the closest first


def imagenet_classes() -> list[ImageNetClass]:
    """All 1,000 classes, in the classifier's order."""
    text = text_file("imagenet.json").read_text(encoding="utf-8")
    return [ImageNetClass(c["wnid"], c["name"], tuple(c["is_a"])) for c in json.loads(text)]


@cache
def words_of_labels() -> dict[str, tuple[str, ...]]:
    """Label (the first name of a class, in lower case) -> the words that are true of it."""
    return {c.is_a[0].lower(): tuple(word.lower() for word in c.is_a) for c in imagenet_classes()}


def word_table(classes: list[ImageNetClass]) -> tuple[list[str], np.ndarray]:
    """Every word that is true of some class, sorted, and bool [words, classes]: of which ones."""
    words = sorted({word for c in classes for word in (c.name, *c.is_a)})
    rows = {word: n for n, word in enumerate(words)}
    table = np.zeros((len(words), len(classes)), bool)
    for column, c in enumerate(classes):
        for word in (c.name, *c.is_a):
            table[rows[word], column] = True
    return words, table
