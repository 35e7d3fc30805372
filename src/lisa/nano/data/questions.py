"""From a scene to questions: the four kinds of training data of the paper (§3.3).

Semantic, referring, naming and reasoning questions. A scene has regions; this file decides what may
be asked about them and what the answer is. It knows names, masks and sentences; it refuses to know
tokens and models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lisa.data.prompts import choose, present_answer
from lisa.data.regions import (
    Scene,
    Target,
    absent_targets,
    example,
    foreign_targets,
    named_example,
    pick,
    placed_apart,
    referring_targets,
    semantic_targets,
)
from lisa.example import Example
from lisa.nano.data import prompts
from lisa.nano.data.knowledge import Thing

# How often an Asker asks for: implicit, named, referring, placed, absent, listed.
SHARES = (0.45, 0.10, 0.14, 0.07, 0.18, 0.06)


def named_places(scene: Scene) -> list[tuple[str, Target]]:
    """Places that can be asked about, each with the one name that is clearly there."""
    targets = semantic_targets(scene)
    if len(targets) < 2:
        return []
    by_mask = {id(target.mask): target for target in targets}
    placed = placed_apart([target.mask for target in targets])
    return [(word, by_mask[id(mask)]) for word, mask in placed]


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
    return Target(choose(tuple(others), random), target.mask)


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
        return example(image, choose(prompts.NAMING_QUESTIONS[word], random), target)

    def listed(
        self, scene: Scene, image: Image.Image, random: np.random.Generator
    ) -> Example | None:
        """A question for everything that is there; the answer points at nothing."""
        names = sorted(scene.names, key=lambda name: -int(scene.union(name).sum()))[:4]
        if not names:
            return None
        return Example(
            image, choose(prompts.LISTING_QUESTIONS, random), prompts.listing_answer(names)
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
    return Example(image, question, present_answer(name), masks=None, phrase=name)
