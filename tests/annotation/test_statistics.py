"""Statistics of a data set, counted by hand."""

import json
from dataclasses import astuple

import numpy as np
import PIL.Image
import pytest

from lisa.annotation.statistics import Spread, count
from lisa.example import Example

IMAGE = PIL.Image.new("RGB", (20, 10))


def example(question: str, area: int | None, phrase: str = "", **more: object) -> Example:
    mask = np.zeros((1, 10, 20), bool)
    mask.reshape(-1)[: area or 0] = True
    masks = None if area is None else mask[: int(area > 0)]
    return Example(IMAGE, question, masks=masks, phrase=phrase, **more)  # type: ignore[arg-type]


def test_everything_is_counted() -> None:
    counted = count(
        [
            example("one", 1, "cup", tags=frozenset({"short"})),
            example("one two", 20, "cup", answer="The cup.", tags=frozenset({"short", "safety"})),
            example("one two three", 0, "dog"),
            example("one two three four", None),
        ]
    )
    assert (counted.questions, counted.absent, counted.unknown, counted.answered) == (4, 1, 1, 1)
    assert counted.pictures is None
    assert counted.words == Spread(1, 2.5, 4, 2.5)
    assert counted.area is not None
    assert astuple(counted.area) == pytest.approx((0.005, 0.0525, 0.1, 0.0525))
    assert sum(counted.areas.values()) == 2 and counted.areas["0.1% to 1.0%"] == 1
    assert counted.parts == Spread(1, 1, 1, 1)
    assert (counted.width, counted.height) == (Spread(20, 20, 20, 20), Spread(10, 10, 10, 10))
    assert list(counted.names.items()) == [("cup", 2), ("dog", 1)]
    assert list(counted.tags.items()) == [("short", 2), ("safety", 1)]
    assert json.loads(json.dumps(counted.to_dict()))["names"] == {"cup": 2, "dog": 1}


def test_nothing_is_counted_as_nothing() -> None:
    counted = count([])
    assert (counted.questions, counted.words, counted.area, counted.names) == (0, None, None, {})
