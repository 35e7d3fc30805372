"""Scenes without pictures: names at places, as the eyes would report them, and questions.

They teach the language model to choose among what is seen, as broadly as the list of known things.
What the eyes get wrong is imagined too: a thing that is overlooked, names of things that are not
there. This file knows names, places and sentences; it refuses to know tokens, models and pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lisa.data.prompts import choose, name_question
from lisa.data.regions import pick
from lisa.nano.data import prompts
from lisa.nano.data.imagenet import ImageNetClass
from lisa.nano.data.knowledge import Thing

PRESENT = (2, 9)  # how many things are there
FALSE = (1, 7)  # how many names are reported that are not
OVERLOOKED_SHARE = 0.08  # of things are not reported
CLASS_SHARE = 0.6  # of things with an ImageNet class are reported by its name as well
NEIGHBOURS = 40  # the knowledge files stand in order: what is near in the list is near in life
# How often a question is: implicit, named, about a place, about something absent.
SHARES = (0.64, 0.08, 0.06, 0.22)
PLACE_MARGIN = 0.12  # of the picture's side: how much further left "left" must be


@dataclass(frozen=True)
class Seen:
    """A name that the eyes report."""

    name: str
    y: float  # of its centre, in [0, 1)
    x: float
    size: float  # of its side, in shares of the picture's
    score: float  # how sure they are, in (0, 1)


@dataclass(frozen=True)
class Asked:
    """A question about an imagined scene."""

    question: str
    phrase: str  # what is meant
    present: bool


@dataclass(frozen=True)
class ImaginedScene:
    """What the eyes report, surest first: trained names, and ImageNet classes."""

    concepts: tuple[Seen, ...]
    classes: tuple[Seen, ...]
    asked: tuple[Asked, ...]


@dataclass
class Imagination:
    """Makes up scenes of known things.

    Args:
        knowledge: the things, and their questions: implicit ones, or definitions.
        kinds: what a name stands for besides: "person" for a cook, a rider ...
        classes: the ImageNet classes.
        concepts: how many trained names are reported at most.
        found_classes: how many classes are.
    """

    knowledge: Mapping[str, Thing]
    kinds: Mapping[str, Sequence[str]]
    classes: Sequence[ImageNetClass]
    concepts: int = 8
    found_classes: int = 4
    class_names: dict[str, list[str]] = field(init=False)
    parents: dict[str, list[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.names = list(self.knowledge)
        self.class_names, self.parents = {}, {}
        for c in self.classes:
            for word in c.is_a:
                self.class_names.setdefault(word.lower(), []).append(c.name)
        for parent, words in self.kinds.items():
            for word in words:
                self.parents.setdefault(word, []).append(parent)

    def scene(self, random: np.random.Generator, count: int) -> ImaginedScene:
        """A scene with ``count`` questions."""
        things = self._things(random)
        false = [self._seen(name, random, 0.02, 0.45) for name in self._others(things, random)]
        true = {name: self._seen(self._shown(name, random), random, 0.25, 1.0) for name in things}
        reported = [seen for seen in true.values() if random.random() >= OVERLOOKED_SHARE]
        asked = [self._ask(true, random) for _ in range(count)]
        return ImaginedScene(
            concepts=surest([*reported, *false], self.concepts),
            classes=surest(self._classes(true, random), self.found_classes),
            asked=tuple(asked),
        )

    def _things(self, random: np.random.Generator) -> list[str]:
        """Names of things that are there: half of the time such as go together."""
        count = int(random.integers(*PRESENT))
        if random.random() < 0.5:
            return pick(self.names, count, random)
        start = int(random.integers(max(1, len(self.names) - NEIGHBOURS)))
        return pick(self.names[start : start + NEIGHBOURS], count, random)

    def _others(self, things: Sequence[str], random: np.random.Generator) -> list[str]:
        """Names of things that are not there."""
        options = pick(self.names, FALSE[1] + len(things), random)
        return [name for name in options if name not in things][: int(random.integers(*FALSE))]

    def _shown(self, name: str, random: np.random.Generator) -> str:
        """By which word the eyes know a thing: its own, a synonym, or that of its kind."""
        parents, synonyms = self.parents.get(name, []), self.knowledge[name].synonyms
        if parents and random.random() < 0.5:
            return pick(parents, 1, random)[0]
        if synonyms and random.random() < 0.15:
            return pick(synonyms, 1, random)[0]
        return name

    def _seen(self, name: str, random: np.random.Generator, low: float, high: float) -> Seen:
        """A name at some place."""
        y, x, size = random.random(), random.random(), random.uniform(0.1, 0.7)
        return Seen(name, y, x, size, random.uniform(low, high))

    def _classes(self, true: Mapping[str, Seen], random: np.random.Generator) -> list[Seen]:
        """ImageNet classes of things that are there, and some of nothing."""
        found = []
        for name, seen in true.items():
            options = self.class_names.get(name, [])
            if options and random.random() < CLASS_SHARE:
                found.append(
                    Seen(
                        pick(options, 1, random)[0],
                        seen.y,
                        seen.x,
                        seen.size,
                        random.uniform(0.2, 1),
                    )
                )
        some = pick(self.classes, self.found_classes, random)
        return [*found, *(self._seen(c.name, random, 0.01, 0.4) for c in some)]

    def _ask(self, true: Mapping[str, Seen], random: np.random.Generator) -> Asked:
        """One question."""
        kind = int(random.choice(len(SHARES), p=SHARES))
        if kind == 3:
            name = self._others(list(true), random)[0]
            return self._about(name, name, False, random, random.random() < 0.7)
        if kind == 2 and (placed := at_a_place(list(true.values()), random)):
            return placed
        name = pick(list(true), 1, random)[0]
        return self._about(name, true[name].name, True, random, kind != 1)

    def _about(
        self, name: str, shown: str, present: bool, random: np.random.Generator, implicit: bool
    ) -> Asked:
        """A question for a thing, which is answered by the word that the eyes know."""
        questions = self.knowledge[name].questions
        if implicit and questions:
            return Asked(pick(questions, 1, random)[0][1], shown, present)
        return Asked(name_question(shown, random), shown, present)


def surest(seen: Sequence[Seen], count: int) -> tuple[Seen, ...]:
    """The ``count`` surest, surest first."""
    return tuple(sorted(seen, key=lambda one: -one.score)[:count])


def at_a_place(seen: Sequence[Seen], random: np.random.Generator) -> Asked | None:
    """A question for what is clearly outermost on one side; None where nothing is."""
    if len(seen) < 2:
        return None
    word = pick(("left", "right", "top", "bottom"), 1, random)[0]
    sign = 1 if word in ("left", "top") else -1
    where = [sign * (one.x if word in ("left", "right") else one.y) for one in seen]
    first, second = np.argsort(where)[:2]
    if where[second] - where[first] < PLACE_MARGIN:
        return None
    question = choose(prompts.NAMING_QUESTIONS[word], random)
    return Asked(question, seen[first].name, True)
