"""Test sets of what training leaves out: composite scenes, referring questions, names instead.

Each is a sequence of examples, index in and the same example out. This file knows which questions
and photographs were kept for measuring; it refuses to know models and scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from lisa.data.prompts import name_question
from lisa.data.regions import (
    Region,
    Scene,
    Target,
    example,
    pick,
    referring_targets,
    semantic_targets,
)
from lisa.data.stream import PATIENCE
from lisa.errors import DataError
from lisa.example import Example
from lisa.nano.data import prompts
from lisa.nano.data.composite import Composer, kinds_by_word
from lisa.nano.data.knowledge import Thing, new_phrasings, things
from lisa.nano.data.photos import PhotoFolder
from lisa.nano.data.sources import Photos
from lisa.nano.data.views import MINIMUM_REGION_SHARE

SCENES = 100
REFERRING = 240  # questions, spread evenly over all photographs
THINGS_A_SCENE = 8
SIDE = 384  # pixels of a composite scene
ASKED_A_PHOTO = 2  # names, and as many referring phrases, where there are so many


class CompositeSet(Sequence[Example]):
    """Composite scenes of eight things with one implicit question each that was never taught.

    What is cut out of photographs comes from those that training leaves out; the stamps are few
    and seen in training, too.

    Args:
        root: the data folder, as ``Photos`` has it.
        kind: "phrasings": new questions about taught things; "things": questions about things
            that no question was taught about.
        count: how many scenes.
        seed: another one makes another set.

    Raises:
        DataError: no such kind, nothing to cut out, or too few known things to ask about.
    """

    def __init__(self, root: Path, kind: str, count: int = SCENES, seed: int = 0) -> None:
        self.composer = held_out_composer(root)
        self.asked = what_is_asked(kind, self.composer.names)
        known = things()
        self.others = [name for name in self.composer.names if name in known]
        if not self.asked or len(self.others) < THINGS_A_SCENE:
            raise DataError(
                f"'{root}' has {len(self.others)} known things for composite scenes, of which "
                f"{len(self.asked)} can be asked about; expected at least {THINGS_A_SCENE} and 1"
            )
        self.name, self.length, self.seed = f"composite-{kind}", count, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]  # no slices
        return self.scene(index)[1]

    def scene(self, index: int) -> tuple[Scene, Example]:
        """A scene and the question about it."""
        if not 0 <= index < self.length:
            raise IndexError(index)
        random = np.random.default_rng([self.seed, index])
        for _ in range(PATIENCE):
            target = pick(sorted(self.asked), 1, random)[0]
            rest = [name for name in self.others if not is_kind_of_the_other(name, target)]
            names = [target, *pick(rest, THINGS_A_SCENE - 1, random)]
            scene = self.composer.compose(names, random, SIDE)
            if len(scene.regions) == THINGS_A_SCENE:
                return scene, self.ask(scene, target, index, random)
        raise DataError(f"scene {index} of '{self.name}' never shows all its things")

    def ask(self, scene: Scene, target: str, index: int, random: np.random.Generator) -> Example:
        """One of the questions about the target."""
        kind, question = pick(self.asked[target].questions, 1, random)[0]
        asked = example(Image.fromarray(scene.image), question, Target(target, scene.union(target)))
        return replace(asked, name=f"{self.name} {index}", tags=frozenset({kind}))


def held_out_composer(root: Path) -> Composer:
    """Of the photographs that training leaves out, and of the stamps."""
    composer = Photos(root, "held-out").composer
    if composer is None:
        raise DataError(f"nothing in '{root}' can be cut out; expected photos or photos/stamps")
    return composer


def what_is_asked(kind: str, names: Sequence[str]) -> Mapping[str, Thing]:
    """The things among ``names`` with questions that were never taught."""
    known = {
        "phrasings": new_phrasings,
        "things": lambda: {name: thing for name, thing in things().items() if thing.held_out},
    }
    if kind not in known:
        raise DataError(f"unknown composite set '{kind}'; expected {' or '.join(known)}")
    asked = known[kind]()
    return {name: asked[name] for name in names if name in asked}


def is_kind_of_the_other(one: str, other: str) -> bool:
    """Whether a question about one of two things may well mean the other: bird and gull."""
    pairs = ((one, other), (other, one))
    return any(
        a == b or a in kinds_in_words().get(b, ()) or b in kinds_by_word().get(a, ())
        for a, b in pairs
    )


@cache
def kinds_in_words() -> dict[str, tuple[str, ...]]:
    """Name -> kinds of it."""
    return prompts.other_words()


def chosen(mask: np.ndarray, regions: Sequence[Region]) -> str:
    """The name of the region that a mask bool [H, W] fits best; "" where it meets none."""
    ious = [(mask & region.mask).sum() / (mask | region.mask).sum() for region in regions]
    return regions[int(np.argmax(ious))].name if max(ious, default=0) > 0 else ""


class ReferringSet(Sequence[Example]):
    """Names and referring phrases for what held-out photographs show, tagged "name", "referring".

    Args:
        root: the data folder, as ``Photos`` has it.
        seed: decides what is asked where there is more than ``ASKED_A_PHOTO``, and how.
        count: the most questions.

    Raises:
        DataError: as ``Photos``.
    """

    name = "referring"

    def __init__(self, root: Path, seed: int = 0, count: int = REFERRING) -> None:
        random = np.random.default_rng(seed)
        found: list[tuple[PhotoFolder, int, str, str]] = []
        for folder in Photos(root, "held-out").folders.values():
            for number in range(len(folder)):
                for phrase in phrases(seen(folder, number), random):
                    question = name_question(phrase, random)
                    found.append((folder, number, phrase, question))
        some = np.linspace(0, len(found), min(count, len(found)), endpoint=False).astype(int)
        self.asked = [found[index] for index in some.tolist()]

    def __len__(self) -> int:
        return len(self.asked)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]  # no slices
        folder, number, phrase, question = self.asked[index]
        scene = seen(folder, number)
        target = next(one for one in all_targets(scene) if one.phrase == phrase)
        tag = "name" if phrase in scene.names else "referring"
        made = example(Image.fromarray(scene.image), question, target)
        return replace(made, name=f"{folder.folder.name} {number}", tags=frozenset({tag}))

    def class_union(self, index: int) -> np.ndarray:
        """bool [H, W]: all things that bear the target's name, as one who knows no "left" has."""
        folder, number, phrase, _ = self.asked[index]
        scene = seen(folder, number)
        return scene.union(phrase if phrase in scene.names else phrase.partition(" ")[2])


@lru_cache(maxsize=2)
def seen(folder: PhotoFolder, number: int) -> Scene:
    """A photograph without the regions that are too small to be seen."""
    scene = folder[number]
    large = [region for region in scene.regions if region.mask.mean() >= MINIMUM_REGION_SHARE]
    return replace(scene, regions=tuple(large))


def all_targets(scene: Scene) -> list[Target]:
    """What can be asked for by name, and what by a referring phrase."""
    return [*semantic_targets(scene), *referring_targets(scene)]


def phrases(scene: Scene, random: np.random.Generator) -> list[str]:
    """Some names and some referring phrases of a scene."""
    some = (
        pick(kind(scene), ASKED_A_PHOTO, random) for kind in (semantic_targets, referring_targets)
    )
    return [target.phrase for targets in some for target in targets]


class ByName(Sequence[Example]):
    """The same examples asked by name: what is left is how well the eyes find a thing.

    Args:
        examples: those without a ``phrase`` are left as they are.
    """

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples
        self.name = f"{getattr(examples, 'name', type(examples).__name__)}-by-name"

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]  # no slices
        asked = self.examples[index]
        return replace(asked, question=f"Segment the {asked.phrase}.") if asked.phrase else asked
