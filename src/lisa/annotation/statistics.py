"""What is in a data set, in numbers: questions, words, areas, names, kinds, absent targets.

Any sequence of examples can be counted. This file knows examples; it refuses to know formats.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from lisa.example import Example

AREAS = (0.001, 0.01, 0.03, 0.1, 0.3)  # bounds of the classes of area, in shares of the picture


@dataclass(frozen=True)
class Spread:
    """The least, the middle and the most of some numbers, and their mean."""

    least: float
    median: float
    most: float
    mean: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """None where there are no numbers."""
        if not values:
            return None
        low, middle, high = np.quantile(values, [0, 0.5, 1])
        return cls(float(low), float(middle), float(high), float(np.mean(values)))


@dataclass(frozen=True)
class Statistics:
    """Counts of one data set.

    Attributes:
        questions: how many examples.
        pictures: how many different pictures; None where the data set does not tell.
        absent: how many targets are known not to be in the picture.
        unknown: how many examples have no mask at all.
        answered: how many have a written answer.
        words: of a question.
        area: of the targets present, in shares of the picture.
        areas: how many of these lie between the bounds ``AREAS``.
        parts: masks of a target that is present.
        width, height: of the pictures, in pixels.
        names: how often each target is asked for, the commonest first.
        tags: how many examples have each tag or kind.
    """

    questions: int
    pictures: int | None
    absent: int
    unknown: int
    answered: int
    words: Spread | None
    area: Spread | None
    areas: dict[str, int]
    parts: Spread | None
    width: Spread | None
    height: Spread | None
    names: dict[str, int]
    tags: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON can hold it."""
        return asdict(self)


def count(dataset: Sequence[Example]) -> Statistics:
    """Look at every example once."""
    examples = [measured(dataset[index]) for index in range(len(dataset))]
    areas = [one.area for one in examples if one.area is not None and one.parts]
    photos = getattr(dataset, "photos", None)
    return Statistics(
        questions=len(examples),
        pictures=None if photos is None else len(photos),
        absent=sum(one.parts == 0 for one in examples),
        unknown=sum(one.parts is None for one in examples),
        answered=sum(one.answered for one in examples),
        words=Spread.of([one.words for one in examples]),
        area=Spread.of(areas),
        areas=classes_of(areas),
        parts=Spread.of([one.parts for one in examples if one.parts]),
        width=Spread.of([one.width for one in examples]),
        height=Spread.of([one.height for one in examples]),
        names=most_common(one.name for one in examples if one.name),
        tags=most_common(tag for one in examples for tag in one.tags),
    )


@dataclass(frozen=True)
class Measured:
    """What is counted of one example, without its pixels."""

    words: int
    answered: bool
    parts: int | None  # masks; 0: absent, None: not known
    area: float | None
    width: int
    height: int
    name: str
    tags: frozenset[str]


def measured(example: Example) -> Measured:
    """One example in numbers."""
    known = example.masks is not None
    present = known and bool(example.mask.any())
    return Measured(
        words=len(example.question.split()),
        answered=example.answer is not None,
        parts=(len(example.masks) if present else 0) if example.masks is not None else None,
        area=float(example.mask.mean()) if present else None,
        width=example.image.width,
        height=example.image.height,
        name=example.phrase,
        tags=example.tags,
    )


def classes_of(areas: Sequence[float]) -> dict[str, int]:
    """How many areas lie below each bound and above the last."""
    bounds = [0.0, *AREAS, 1.0]
    counts, _ = np.histogram(areas, bounds)
    shown = [f"{low:.1%} to {high:.1%}" for low, high in pairwise(bounds)]
    return dict(zip(shown, counts.tolist(), strict=True))


def most_common(words: Iterable[str]) -> dict[str, int]:
    """How often each comes, the commonest first, equals in the order of the alphabet."""
    return dict(sorted(Counter(words).items(), key=lambda item: (-item[1], item[0])))
