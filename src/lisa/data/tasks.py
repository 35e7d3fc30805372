"""The four kinds of training data of the paper (§3.3), made from scenes: semantic, referring, naming, reasoning.

A scene has regions; this file decides what may be asked about them and what the answer is. It knows
names, masks and sentences; it refuses to know tokens and models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lisa.data import prompts
from lisa.data.photos import Scene
from lisa.example import Example

CLEAR_MARGIN = 0.08  # of the picture's side: how much further left "left" must be
CLEAR_RATIO = 1.4  # how much larger "large" must be


@dataclass(frozen=True)
class Target:
    """Something that can be asked for: what it is called and where it is (nowhere: it is absent)."""

    phrase: str
    mask: np.ndarray  # bool [H, W]

    @property
    def present(self) -> bool:
        return bool(self.mask.any())


def semantic_targets(scene: Scene) -> list[Target]:
    """Every name in the scene with all that bears it."""
    return [Target(name, scene.union(name)) for name in scene.names]


def absent_targets(scene: Scene) -> list[Target]:
    """Names that are known not to be in the scene."""
    nothing = np.zeros(scene.image.shape[:2], bool)
    return [Target(name, nothing) for name in scene.absent if name not in scene.names]


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
    """Words that pick one mask among several: left, right, top, bottom, large, small."""
    height, width = masks[0].shape
    centres = np.array([[rows.mean() / height, columns.mean() / width] for rows, columns in map(np.nonzero, masks)])
    areas = np.array([mask.sum() for mask in masks], float)
    found = []
    for axis, (low, high) in ((1, ("left", "right")), (0, ("top", "bottom"))):
        order = np.argsort(centres[:, axis])
        values = centres[order, axis]
        if values[1] - values[0] > CLEAR_MARGIN:
            found.append((low, masks[order[0]]))
        if values[-1] - values[-2] > CLEAR_MARGIN:
            found.append((high, masks[order[-1]]))
    order = np.argsort(areas)
    if areas[order[-1]] > CLEAR_RATIO * areas[order[-2]]:
        found.append(("large", masks[order[-1]]))
    if areas[order[1]] > CLEAR_RATIO * areas[order[0]]:
        found.append(("small", masks[order[0]]))
    return found


def pick(targets: Sequence[Target], count: int, random: np.random.Generator) -> list[Target]:
    """At most ``count`` different targets."""
    order = random.permutation(len(targets))[:count]
    return [targets[int(i)] for i in order]


def eye_examples(
    scene: Scene, random: np.random.Generator, count: int, synonyms: Mapping[str, Sequence[str]]
) -> list[Example]:
    """``count`` targets asked for by name alone: names, referring phrases, absent names."""
    absent = pick(absent_targets(scene), int(random.random() < 0.5) + int(random.random() < 0.3), random)
    referring = pick(referring_targets(scene), int(random.random() < 0.5), random)
    named = pick(semantic_targets(scene), max(0, count - len(absent) - len(referring)), random)
    image = Image.fromarray(np.ascontiguousarray(scene.image))
    renamed = [rename(target, random, synonyms) for target in [*named, *absent]]
    return [named_example(image, target, random) for target in [*renamed, *referring]]


def rename(target: Target, random: np.random.Generator, synonyms: Mapping[str, Sequence[str]]) -> Target:
    """One time in five, a synonym of the target's name."""
    others = synonyms.get(target.phrase, ())
    if not others or random.random() >= 0.2:
        return target
    return Target(prompts.choose(tuple(others), random), target.mask)


def named_example(image: Image.Image, target: Target, random: np.random.Generator) -> Example:
    """A question that names its target."""
    return example(image, prompts.name_question(target.phrase, random), target)


def example(image: Image.Image, question: str, target: Target) -> Example:
    """A question about a target, with the answer that names it."""
    answer = prompts.present_answer if target.present else prompts.absent_answer
    masks = target.mask[None] if target.present else target.mask[None][:0]
    return Example(image, question, answer(target.phrase), masks, phrase=target.phrase)
