"""Named regions of an image, and what can be asked of them.

This file knows names, masks and places; it refuses to know tokens and models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image

from lisa.data import prompts
from lisa.example import Example

Item = TypeVar("Item")
CLEAR_MARGIN = 0.08  # of the picture's side: how much further left "left" must be
CLEAR_RATIO = 1.4  # how much larger "large" must be


@dataclass(frozen=True)
class Region:
    """A named part of a picture."""

    name: str
    mask: np.ndarray  # bool [H, W]


@dataclass(frozen=True)
class Description:
    """Words that are true of one thing in a picture, and of no other."""

    text: str  # "cup to the left of the plate"
    name: str  # what an answer calls it: "left cup"
    mask: np.ndarray  # bool [H, W]


@dataclass(frozen=True)
class Scene:
    """A picture, what is known to be in it, and what is known not to be."""

    image: np.ndarray  # uint8 [H, W, 3]
    regions: tuple[Region, ...]
    absent: tuple[str, ...]  # names that an exhaustive annotation did not find
    instances: bool  # a region is one thing (else: all things of the name together)
    elsewhere: tuple[str, ...] = ()  # names that belong to quite other photographs
    described: tuple[Description, ...] = ()  # true of the picture as it is, not of a changed one

    def union(self, name: str) -> np.ndarray:
        """Everything of that name, bool [H, W]."""
        masks = [region.mask for region in self.regions if region.name == name]
        return np.logical_or.reduce(masks) if masks else np.zeros(self.image.shape[:2], bool)

    @property
    def names(self) -> list[str]:
        """The names present, each once, in order of appearance."""
        return list(dict.fromkeys(region.name for region in self.regions))


@dataclass(frozen=True)
class Target:
    """Something that can be asked for: what it is called, and where it is."""

    phrase: str
    mask: np.ndarray  # bool [H, W]; all False: it is not there

    @property
    def present(self) -> bool:
        """Whether it is in the picture."""
        return bool(self.mask.any())


def semantic_targets(scene: Scene) -> list[Target]:
    """Every name in the scene with all that bears it."""
    return [Target(name, scene.union(name)) for name in scene.names]


def absent_targets(scene: Scene) -> list[Target]:
    """Names that are known not to be in the scene."""
    nothing = np.zeros(scene.image.shape[:2], bool)
    return [Target(name, nothing) for name in scene.absent if name not in scene.names]


def foreign_targets(scene: Scene) -> list[Target]:
    """Names from quite other photographs: a car park has no nutmeg."""
    nothing = np.zeros(scene.image.shape[:2], bool)
    return [Target(name, nothing) for name in scene.elsewhere if name not in scene.names]


def referring_targets(scene: Scene) -> list[Target]:
    """Single things told apart by place or size, where the difference is clear."""
    if not scene.instances:
        return []
    targets = []
    for name in scene.names:
        masks = [region.mask for region in scene.regions if region.name == name]
        if len(masks) > 1:
            targets += [Target(f"{word} {name}", mask) for word, mask in told_apart(masks)]
    return targets


def told_apart(masks: Sequence[np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """Words that pick one mask among several: left, right, top, bottom, large, small.

    Args:
        masks: at least two, bool [H, W] of the same size, none of them empty.

    Returns:
        (word, one of the masks), only where the difference is clear: the centre of a "left" mask
        is ``CLEAR_MARGIN`` of the picture's width further left than that of any other, and a
        "large" mask has ``CLEAR_RATIO`` times the pixels of any other.
    """
    return [*placed_apart(masks), *sized_apart(masks)]


def placed_apart(masks: Sequence[np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """Left, right, top and bottom, where the centre of one mask clearly is outermost."""
    centres = np.array([centre(mask) for mask in masks])
    found = []
    for axis, (low, high) in ((1, ("left", "right")), (0, ("top", "bottom"))):
        order = np.argsort(centres[:, axis])
        values = centres[order, axis]
        if values[1] - values[0] > CLEAR_MARGIN:
            found.append((low, masks[order[0]]))
        if values[-1] - values[-2] > CLEAR_MARGIN:
            found.append((high, masks[order[-1]]))
    return found


def centre(mask: np.ndarray) -> tuple[float, float]:
    """(y, x) of the middle of a mask bool [H, W] that is not empty, in shares of the picture."""
    rows, columns = mask.sum(1), mask.sum(0)
    count = rows.sum()
    y, x = rows @ np.arange(len(rows)) / count, columns @ np.arange(len(columns)) / count
    return float(y / len(rows)), float(x / len(columns))


def sized_apart(masks: Sequence[np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """Large and small, where one mask clearly has the most or the fewest pixels."""
    areas = np.array([mask.sum() for mask in masks], float)
    order = np.argsort(areas)
    found = []
    if areas[order[-1]] > CLEAR_RATIO * areas[order[-2]]:
        found.append(("large", masks[order[-1]]))
    if areas[order[1]] > CLEAR_RATIO * areas[order[0]]:
        found.append(("small", masks[order[0]]))
    return found


def pick(options: Sequence[Item], count: int, random: np.random.Generator) -> list[Item]:
    """At most ``count`` different ones of the options."""
    return [options[int(i)] for i in random.permutation(len(options))[:count]]


def named_example(image: Image.Image, target: Target, random: np.random.Generator) -> Example:
    """A question that names its target."""
    return example(image, prompts.name_question(target.phrase, random), target)


def example(image: Image.Image, question: str, target: Target) -> Example:
    """A question about a target, with the answer that names it and masks bool [1 or 0, H, W]."""
    answer = prompts.present_answer if target.present else prompts.absent_answer
    masks = target.mask[np.newaxis][: int(target.present)]
    return Example(image, question, answer(target.phrase), masks, phrase=target.phrase)
