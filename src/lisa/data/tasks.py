"""From a scene to questions: the four kinds of training data of the paper (§3.3).

Semantic, referring, naming and reasoning questions. A scene has regions; this file decides what may
be asked about them and what the answer is. It knows names, masks and sentences; it refuses to know
tokens and models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image

from lisa.data import prompts
from lisa.data.knowledge import Thing
from lisa.data.photos import Scene
from lisa.example import Example

Item = TypeVar("Item")

CLEAR_MARGIN = 0.08  # of the picture's side: how much further left "left" must be
CLEAR_RATIO = 1.4  # how much larger "large" must be
# How often an Asker asks for: implicit, named, referring, placed, absent, listed.
SHARES = (0.45, 0.10, 0.14, 0.07, 0.18, 0.06)


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


def named_places(scene: Scene) -> list[tuple[str, Target]]:
    """Places that can be asked about, each with the one name that is clearly there."""
    targets = semantic_targets(scene)
    if len(targets) < 2:
        return []
    by_mask = {id(target.mask): target for target in targets}
    placed = placed_apart([target.mask for target in targets])
    return [(word, by_mask[id(mask)]) for word, mask in placed]


def pick(options: Sequence[Item], count: int, random: np.random.Generator) -> list[Item]:
    """At most ``count`` different ones of the options."""
    return [options[int(i)] for i in random.permutation(len(options))[:count]]


def eye_examples(
    scene: Scene,
    random: np.random.Generator,
    count: int,
    synonyms: Mapping[str, Sequence[str]],
    missing: int,
) -> list[Example]:
    """Targets asked for by name alone: names, referring phrases, absent and foreign names.

    Args:
        scene: what is asked about.
        random: decides what is asked and how.
        count: how many questions about what is there; fewer where there is little.
        synonyms: other words for a name, used now and then.
        missing: how many questions about what is known not to be there, half of them about names
            from quite other photographs where there are such; fewer where little is known.
    """
    referring = pick(referring_targets(scene), int(random.random() < 0.5), random)
    named = pick(semantic_targets(scene), max(0, count - len(referring)), random)
    foreign = pick(foreign_targets(scene), missing - missing // 2, random)
    absent = pick(absent_targets(scene), missing - len(foreign), random)
    image = Image.fromarray(np.ascontiguousarray(scene.image))
    renamed = [rename(target, random, synonyms) for target in [*named, *absent, *foreign]]
    return [named_example(image, target, random) for target in [*renamed, *referring]]


def rename(
    target: Target, random: np.random.Generator, synonyms: Mapping[str, Sequence[str]]
) -> Target:
    """One time in four, another word for the target's name."""
    others = synonyms.get(target.phrase, ())
    if not others or random.random() >= 0.25:
        return target
    return Target(prompts.choose(tuple(others), random), target.mask)


def named_example(image: Image.Image, target: Target, random: np.random.Generator) -> Example:
    """A question that names its target."""
    return example(image, prompts.name_question(target.phrase, random), target)


def example(image: Image.Image, question: str, target: Target) -> Example:
    """A question about a target, with the answer that names it and masks bool [1 or 0, H, W]."""
    answer = prompts.present_answer if target.present else prompts.absent_answer
    masks = target.mask[np.newaxis][: int(target.present)]
    return Example(image, question, answer(target.phrase), masks, phrase=target.phrase)


# ------------------------------------------------------------ questions for the language model


@dataclass(frozen=True)
class Asker:
    """Makes the four kinds of questions about a scene.

    Args:
        knowledge: what can be asked about a thing without naming it: implicit questions, or
            definitions for the zero-shot model of the paper.
    """

    knowledge: Mapping[str, Thing]

    def ask(self, scene: Scene, random: np.random.Generator, count: int) -> list[Example]:
        """Up to ``count`` questions about one picture."""
        image = Image.fromarray(np.ascontiguousarray(scene.image))
        kinds = (self.implicit, self.named, self.referring, self.placed, self.absent, self.listed)
        chosen = random.choice(len(kinds), size=count, p=SHARES)
        asked = [kinds[int(kind)](scene, image, random) for kind in chosen]
        return [made for made in asked if made is not None]

    def implicit(
        self, scene: Scene, image: Image.Image, random: np.random.Generator
    ) -> Example | None:
        """A question that takes thought, about something that is there."""
        known = self._known(semantic_targets(scene))
        return self._implicit(pick(known, 1, random), image, random)

    def absent(
        self, scene: Scene, image: Image.Image, random: np.random.Generator
    ) -> Example | None:
        """About something that is not there, half of the time without naming it."""
        targets = pick([absent_targets(scene), foreign_targets(scene)], 1, random)[0]
        known = self._known(targets)
        if known and random.random() < 0.5:
            return self._implicit(pick(known, 1, random), image, random)
        return first(named_example(image, target, random) for target in pick(targets, 1, random))

    def named(
        self, scene: Scene, image: Image.Image, random: np.random.Generator
    ) -> Example | None:
        """A question that names something that is there."""
        return first(
            named_example(image, target, random)
            for target in pick(semantic_targets(scene), 1, random)
        )

    def referring(
        self, scene: Scene, image: Image.Image, random: np.random.Generator
    ) -> Example | None:
        """A question that tells one thing from others, by a description where there are some."""
        for one in pick(scene.described, 1, random):
            question = prompts.described_question(one.text, random)
            return example(image, question, Target(one.name, one.mask))
        targets = referring_targets(scene) or semantic_targets(scene)
        return first(named_example(image, target, random) for target in pick(targets, 1, random))

    def placed(
        self, scene: Scene, image: Image.Image, random: np.random.Generator
    ) -> Example | None:
        """A question for what is at some place."""
        places = named_places(scene)
        if not places:
            return None
        word, target = places[int(random.integers(len(places)))]
        return example(image, prompts.choose(prompts.NAMING_QUESTIONS[word], random), target)

    def listed(
        self, scene: Scene, image: Image.Image, random: np.random.Generator
    ) -> Example | None:
        """A question for everything that is there; the answer points at nothing."""
        names = sorted(scene.names, key=lambda name: -int(scene.union(name).sum()))[:4]
        if not names:
            return None
        return Example(
            image, prompts.choose(prompts.LISTING_QUESTIONS, random), prompts.listing_answer(names)
        )

    def _known(self, targets: Sequence[Target]) -> list[Target]:
        """Those that can be asked about without naming them."""
        return [
            target
            for target in targets
            if target.phrase in self.knowledge and self.knowledge[target.phrase].questions
        ]

    def _implicit(
        self, targets: list[Target], image: Image.Image, random: np.random.Generator
    ) -> Example | None:
        """One of the questions that are known for the first target."""
        if not targets:
            return None
        questions = self.knowledge[targets[0].phrase].questions
        return example(image, questions[int(random.integers(len(questions)))][1], targets[0])


def first(examples: Iterable[Example]) -> Example | None:
    """The first, if there is one."""
    return next(iter(examples), None)


def label_example(image: Image.Image, name: str, question: str) -> Example:
    """A question about what a whole photograph shows; where it is, is not known."""
    return Example(image, question, prompts.present_answer(name), masks=None, phrase=name)
