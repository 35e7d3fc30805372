"""A data set and a segmenter that any process can make for itself, without a model.

Each photo has a bright block; the segmenter takes what is brighter than the question says. Some
samples have no target, some cannot be read, and some make the segmenter fail.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image

from lisa.errors import ImageError
from lisa.evaluation.runner import Task
from lisa.example import Example
from lisa.masks import Mask
from lisa.result import Result

SIDE = 24
PROTOCOLS = ("generate", "teacher-forced")


class Blocks(Sequence[Example]):
    """Photos of noise with a block; every fifth has no target, sample 3 cannot be read."""

    name, split = "blocks", "val"

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        if index == 3:
            raise ImageError("cannot read image 'block-3.jpg': cut short")
        generator = np.random.default_rng(index)
        pixels = generator.integers(0, 150, (SIDE, SIDE), dtype=np.uint8)
        y, x = generator.integers(0, SIDE // 2, 2)
        target = np.zeros((1, SIDE, SIDE), bool)
        target[0, y : y + 9, x : x + 9] = True
        pixels[target[0]] += 60
        return Example(
            image=PIL.Image.fromarray(pixels).convert("RGB"),
            question=f"brighter than {100 + 7 * (index % 9)}?",
            masks=target[: int(index % 5 != 0)],
            ignore=generator.random((SIDE, SIDE)) < 0.05,
            name=f"block-{index}.jpg",
            tags=frozenset({"odd" if index % 2 else "even"}),
            phrase="block",
        )


class ThresholdSegmenter:
    """Writes each question that it is asked to ``log``, as a line of JSON."""

    name = "threshold"

    def __init__(self, log: Path | None = None) -> None:
        self.log = log

    def segment(
        self, image: PIL.Image.Image, question: str, *, answer: str | None = None
    ) -> Result:
        if self.log is not None:
            with self.log.open("a") as stream:
                stream.write(json.dumps([question, answer]) + "\n")
        threshold = int(question.removeprefix("brighter than ").removesuffix("?"))
        if threshold == 142:
            raise RuntimeError("out of luck")
        mask = np.asarray(image)[:, :, 0] > threshold + (20 if answer else 0)
        found = (Mask(mask, "block", float(mask.mean())),) if threshold != 149 else ()
        return Result(image, question, "The block." if found else "Nothing.", found)


def open_task(count: int) -> Task:
    return Task(Blocks(count), PROTOCOLS)


def open_segmenter(log: Path | None, number: int) -> ThresholdSegmenter:
    return ThresholdSegmenter(log)


class SlowSegmenter(ThresholdSegmenter):
    """Takes its time, so that it can be stopped on the way."""

    def segment(
        self, image: PIL.Image.Image, question: str, *, answer: str | None = None
    ) -> Result:
        time.sleep(0.2)
        return super().segment(image, question, answer=answer)


def open_slow(log: Path | None, number: int) -> SlowSegmenter:
    return SlowSegmenter(log)


def open_broken(number: int) -> ThresholdSegmenter:
    """Only the first process gets one."""
    if number:
        import os

        os._exit(9)
    return ThresholdSegmenter()
