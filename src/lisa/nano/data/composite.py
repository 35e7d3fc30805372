"""Composite scenes: things cut out of other pictures, put together; every mask and place is known.

A ``Composer`` puts things on a backdrop: the lower in the picture, the nearer and larger; nearer
things hide what is behind them; light and sharpness follow the backdrop. What tells a thing from
the others ("second cup from the left", "plate behind the cup") is computed from the geometry.

This file knows cut-outs, masks and the words for places; it refuses to know models, and where the
data folder keeps what.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from PIL import Image

from lisa.data.regions import (
    CLEAR_MARGIN,
    Description,
    Region,
    Scene,
    centre,
    placed_apart,
    sized_apart,
)
from lisa.errors import DataError
from lisa.image import load_image
from lisa.nano.data.imagenet import imagenet_classes
from lisa.nano.data.knowledge import things
from lisa.nano.data.photos import PhotoFolder
from lisa.nano.data.views import MINIMUM_REGION_SHARE, recolour

COUNT = (2, 9)  # how many things a scene drawn at random has
TWINS_SHARE = 0.5  # of those scenes have several things of one name
SIZE = 0.72  # longer side of a thing that stands alone in front, in shares of the picture's
LARGEST = 2.0  # times its own pixels, so that a small cut-out does not become a blur
PLACES = 6  # places tried for a thing; the emptiest is taken ...
CROWDED_SHARE = 0.25  # ... but for so many things any will do
SEEN_SHARE = 0.5  # of a thing must be seen, else it is left out
BEHIND_SHARE = 0.04  # of a thing hidden by another, for "behind" to be clear
BLURRED_SHARE = 0.4  # of backdrops are photographs far out of focus
LIGHT = 0.3  # how far a thing's colours move towards those of the place where it stands
SHADOW_SHARE = 0.6  # of things throw a soft shadow
FOREIGN = 40  # names known to be elsewhere that a scene lists
ORDINALS = ("second", "third")
KINDS = ("animal", "bird", "fruit", "vegetable", "vehicle", "musical instrument", "furniture")
SCENERY = frozenset(  # may be in a wallpaper
    [
        *("boat", "canoe", "ship", "cup", "bird", "kite", "bench", "tree", "leaf", "grass"),
        *("flower", "daisy", "rose", "sunflower", "marigold", "daffodil", "ladybug", "cloud"),
        *("dandelion", "potted plant", "table", "dining table", "bridge", "water", "bottle"),
    ]
)

Box = tuple[int, int, int, int]  # left, top, width, height


class CutOuts(Protocol):
    """Things cut out with an alpha channel: index in, (uint8 [h, w, 4], name) out."""

    @property
    def names(self) -> list[str]:
        """The name of each."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, str]: ...


@dataclass(frozen=True)
class Piece:
    """A cut-out at its place."""

    name: str
    pixels: np.ndarray  # uint8 [h, w, 4]
    left: int
    top: int

    @property
    def where(self) -> tuple[slice, slice]:
        """Rows and columns of the picture that it covers."""
        height, width = self.pixels.shape[:2]
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


@dataclass(frozen=True)
class Placed:
    """A thing in a picture."""

    name: str
    whole: np.ndarray  # bool [S, S]: where it is, hidden or not
    seen: np.ndarray  # bool [S, S]: the part that nothing hides

    @cached_property
    def x(self) -> float:
        """Of the middle of what is seen, in shares of the picture's width."""
        return centre(self.seen)[1]

    @cached_property
    def hidden(self) -> np.ndarray | None:
        """bool [S, S]: the part that is hidden; None where too little is for "behind"."""
        hidden = self.whole & ~self.seen
        return hidden if hidden.sum() > BEHIND_SHARE * self.whole.sum() else None


class Backdrops:
    """Pictures to put things on: wallpapers, and photographs far out of focus.

    Args:
        folder: its pictures are wallpapers; none where there is no such folder.
        photos: photographs with names.

    Raises:
        DataError: there is neither.
    """

    def __init__(self, folder: Path, photos: Sequence[PhotoFolder] = ()) -> None:
        self.paths = sorted(folder.iterdir()) if folder.is_dir() else []
        self.photos = [folder for folder in photos if len(folder)]
        if not self.paths and not self.photos:
            raise DataError(f"no pictures in '{folder}'; expected some to put things on")

    def draw(self, random: np.random.Generator, side: int) -> tuple[np.ndarray, frozenset[str]]:
        """A square uint8 [side, side, 3], and the names that may be in it."""
        if self.photos and (not self.paths or random.random() < BLURRED_SHARE):
            folder = self.photos[int(random.integers(len(self.photos)))]
            pixels, names = folder.picture(int(random.integers(len(folder))))
            return out_of_focus(random_square(pixels, side, random)), frozenset(names)
        path = self.paths[int(random.integers(len(self.paths)))]
        return random_square(np.asarray(load_image(path)), side, random), SCENERY


class Composer:
    """Makes scenes of cut-outs, each of them decided by a random generator.

    Args:
        cuts: what scenes are made of.
        backdrops: what they are put on.

    Raises:
        DataError: there is no cut-out.
    """

    def __init__(self, cuts: Sequence[CutOuts], backdrops: Backdrops) -> None:
        self.cuts, self.backdrops = cuts, backdrops
        self.items: dict[str, list[tuple[int, int]]] = {}
        for number, part in enumerate(cuts):
            for index, name in enumerate(part.names):
                self.items.setdefault(everyday(name), []).append((number, index))
        if not self.items:
            raise DataError("nothing to compose scenes of; expected at least one cut-out")
        self.names = sorted(self.items)
        frequent = np.sqrt([len(self.items[name]) for name in self.names])
        self.shares = frequent / frequent.sum()

    def draw(self, random: np.random.Generator, side: int) -> Scene:
        """A random scene, [side, side] pixels; it may have come out empty."""
        names = self.some_names(random, int(random.integers(*COUNT)))
        if random.random() < TWINS_SHARE:
            names += [names[0]] * int(random.integers(1, 3))
        return self.compose(names, random, side)

    def some_names(self, random: np.random.Generator, count: int) -> list[str]:
        """Different names, frequent ones more often."""
        count = min(count, len(self.names))
        chosen: list[str] = random.choice(
            self.names, count, replace=False, p=self.shares, shuffle=False
        ).tolist()
        return chosen

    def compose(self, names: Sequence[str], random: np.random.Generator, side: int) -> Scene:
        """A scene of one thing for each name; what would hardly be seen is left out."""
        image, perhaps = self.backdrops.draw(random, side)
        pieces: list[Piece] = []
        for name in names:
            pieces.append(self.piece(name, len(names), pieces, random, side))
        seen = seen_well(sorted(pieces, key=lambda one: -one.where[0].stop), side)
        pixels = image.astype(np.float32)
        for piece, _ in reversed(seen):  # the furthest first
            paint(pixels, piece, random)
        placed = [one for _, one in seen]
        foreign = set(self.some_names(random, FOREIGN)) - perhaps - set(names)
        return Scene(
            image=recolour(pixels, random),
            regions=tuple(Region(one.name, one.seen) for one in placed),
            absent=(),
            instances=True,
            elsewhere=tuple(sorted(foreign)),
            described=tuple(descriptions(placed)),
        )

    def piece(
        self, name: str, count: int, others: Sequence[Piece], random: np.random.Generator, side: int
    ) -> Piece:
        """One thing of that name, one of ``count``, where there is room beside the others."""
        options = self.items[name]
        number, index = options[int(random.integers(len(options)))]
        pixels, _ = self.cuts[number][index]
        if random.random() < 0.5:
            pixels = pixels[:, ::-1]
        boxes = [a_place(pixels.shape, count, random, side) for _ in range(PLACES)]
        if random.random() >= CROWDED_SHARE:
            boxes.sort(key=lambda box: sum(overlap(box, other) for other in others))
        left, top, width, height = boxes[0]
        shrinks = height < pixels.shape[0]
        resized = cv2.resize(
            pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )
        return Piece(name, resized, left, top)


def a_place(shape: tuple[int, ...], count: int, random: np.random.Generator, side: int) -> Box:
    """A box for a thing of ``shape`` (height, width): the lower it stands, the larger."""
    depth, size, across = random.random(3)
    bottom = 0.4 + 0.6 * depth
    length = SIZE / max(2, count) ** 0.5 * (0.8 + 0.5 * size) * (0.6 + 0.5 * bottom)
    scale = min(LARGEST, side * min(0.9, length) / max(shape[:2]))
    height, width = (min(side, max(4, round(pixels * scale))) for pixels in shape[:2])
    return int(across * (side - width + 1)), max(0, round(bottom * side) - height), width, height


def overlap(box: Box, other: Piece) -> int:
    """How many pixels of a box another thing's box covers."""
    left, top, width, height = box
    rows, columns = other.where
    across = min(left + width, columns.stop) - max(left, columns.start)
    down = min(top + height, rows.stop) - max(top, rows.start)
    return max(0, across) * max(0, down)


def seen_well(pieces: Sequence[Piece], side: int) -> list[tuple[Piece, Placed]]:
    """Of things in order, the nearest first, those that the ones before them do not hide."""
    covered, seen = np.zeros((side, side), bool), []
    for piece in pieces:
        whole = np.zeros((side, side), bool)
        whole[piece.where] = piece.pixels[..., 3] > 127
        left = whole & ~covered
        if left.sum() >= max(SEEN_SHARE * whole.sum(), MINIMUM_REGION_SHARE * side**2):
            seen.append((piece, Placed(piece.name, whole, left)))
            covered |= whole
    return seen


# ------------------------------------------------------------------ painting


def random_square(pixels: np.ndarray, side: int, random: np.random.Generator) -> np.ndarray:
    """A random part of a picture, mirrored or not, as a square."""
    height, width = pixels.shape[:2]
    share = random.uniform(0.5, 1.0)
    rows, columns = max(1, int(height * share)), max(1, int(width * share))
    top, left = random.integers(height - rows + 1), random.integers(width - columns + 1)
    part = pixels[top : top + rows, left : left + columns]
    square = Image.fromarray(part).resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(square)[:, :: -1 if random.random() < 0.5 else 1]


def out_of_focus(square: np.ndarray) -> np.ndarray:
    """A square picture of which only colours and light are left."""
    side = len(square)
    small = cv2.resize(square, (side // 12, side // 12), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)


def paint(image: np.ndarray, piece: Piece, random: np.random.Generator) -> None:
    """Put the thing into a picture float32 [S, S, 3]: lit like its place, with soft edges."""
    if random.random() < SHADOW_SHARE:
        throw_shadow(image, piece, random)
    alpha = cv2.GaussianBlur(piece.pixels[..., 3], (3, 3), 0.7)[..., None] / np.float32(255)
    colours = lit_like(piece.pixels[..., :3].astype(np.float32), image[piece.where], alpha)
    image[piece.where] += (colours - image[piece.where]) * alpha


def throw_shadow(image: np.ndarray, piece: Piece, random: np.random.Generator) -> None:
    """Darken a picture float32 [S, S, 3] under the thing's foot: an ellipse with a soft edge."""
    width = piece.pixels.shape[1]
    rows, columns = piece.where
    height = max(3, int(width * random.uniform(0.1, 0.25)))
    top = max(0, min(rows.stop - height // 2, len(image) - height))
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)
    dark = random.uniform(0.2, 0.5) * (1 - y**2 - x**2).clip(0)
    image[top : top + height, columns] *= 1 - dark.astype(np.float32)[: len(image) - top, :, None]


def lit_like(colours: np.ndarray, place: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours [h, w, 3] of a thing, moved towards the mean colour of where it stands."""
    weight = max(float(alpha.sum()), 1.0)
    own = (colours * alpha).sum((0, 1)) / weight
    gain = (place.mean((0, 1)) + 1) / (own + 1)
    moved: np.ndarray = colours * gain.clip(0.4, 2.0) ** LIGHT
    return moved


# ------------------------------------------------------------------ what tells things apart


def descriptions(placed: Sequence[Placed]) -> list[Description]:
    """Words that are true of one thing and of no other, wherever that is clear.

    Args:
        placed: all things of the picture, the nearest first.
    """
    found = [*extremes(placed), *numbered(placed), *related(placed), *only_ones(placed)]
    return list({one.text: one for one in found}.values())


def called(one: Placed, placed: Sequence[Placed]) -> str:
    """A thing's name; with a word for its place or size where others bear it; "" if none is."""
    masks = [other.seen for other in placed if other.name == one.name]
    if len(masks) == 1:
        return one.name
    words = [word for word, mask in [*placed_apart(masks), *sized_apart(masks)] if mask is one.seen]
    return f"{words[0]} {one.name}" if words else ""


def extremes(placed: Sequence[Placed]) -> Iterator[Description]:
    """The largest and smallest of all, and the outermost and largest of each name."""
    sizes = {"large": "largest", "small": "smallest"}
    sides = {"left": "on the far left", "right": "on the far right"}
    if len(placed) > 1:
        for word, mask in sized_apart([one.seen for one in placed]):
            one = next(one for one in placed if one.seen is mask)
            if name := called(one, placed):
                yield Description(f"{sizes[word]} thing", name, mask)
    for name in several(placed):
        masks = [one.seen for one in placed if one.name == name]
        for word, mask in sized_apart(masks):
            yield Description(f"{sizes[word]} {name}", f"{word} {name}", mask)
        for word, mask in placed_apart(masks):
            if word in sides:
                yield Description(f"{name} {sides[word]}", f"{word} {name}", mask)


def numbered(placed: Sequence[Placed]) -> Iterator[Description]:
    """ "second cup from the left", where three or more stand clearly one beside the other."""
    for name in several(placed):
        row = sorted((one for one in placed if one.name == name), key=lambda one: one.x)
        gaps = np.diff([one.x for one in row])
        if len(row) < 3 or gaps.min() <= CLEAR_MARGIN:
            continue
        for side, ordered in (("left", row), ("right", row[::-1])):
            for ordinal, one in zip(ORDINALS, ordered[1:-1], strict=False):
                text = f"{ordinal} {name} from the {side}"
                yield Description(text, text, one.seen)


def related(placed: Sequence[Placed]) -> Iterator[Description]:
    """ "cup to the left of the plate", "thing behind the plate": true of exactly one."""
    names = [one.name for one in placed]
    for anchor in (one for one in placed if names.count(one.name) == 1):
        others = [one for one in placed if one is not anchor]
        for words, holds in RELATIONS.items():
            true = [one for one in others if holds(one, anchor)]
            if words in ("behind", "in front of") and len(true) == 1:
                yield from described(f"thing {words} the {anchor.name}", true[0], placed)
            for name in several(true + [one for one in others if names.count(one.name) > 1]):
                these = [one for one in true if one.name == name]
                if len(these) == 1:
                    text = f"{name} {words} the {anchor.name}"
                    yield from described(text, these[0], placed)


def described(text: str, one: Placed, placed: Sequence[Placed]) -> Iterator[Description]:
    """The description of a thing that has a name for the answer."""
    if name := called(one, placed):
        yield Description(text, name, one.seen)


def only_ones(placed: Sequence[Placed]) -> Iterator[Description]:
    """ "only animal": the one thing that is, where of all others it is known that they are not."""
    kinds = [kinds_of(one.name) for one in placed]
    known = [of_one for of_one in kinds if of_one is not None]
    if len(known) < len(placed):
        return
    for kind in KINDS:
        those = [one for one, of_one in zip(placed, known, strict=True) if kind in of_one]
        if len(those) == 1 and len(placed) > 2:
            yield Description(f"only {kind}", those[0].name, those[0].seen)


def several(placed: Sequence[Placed]) -> list[str]:
    """The names that more than one thing bears, sorted."""
    names = [one.name for one in placed]
    return sorted({name for name in names if names.count(name) > 1})


def is_left_of(one: Placed, other: Placed) -> bool:
    """Clearly further left."""
    return one.x < other.x - CLEAR_MARGIN


def is_behind(one: Placed, other: Placed) -> bool:
    """Partly hidden by the other."""
    if one.hidden is None:
        return False
    return bool((one.hidden & other.seen).sum() > BEHIND_SHARE * one.whole.sum())


RELATIONS = {
    "to the left of": is_left_of,
    "to the right of": lambda one, other: is_left_of(other, one),
    "behind": is_behind,
    "in front of": lambda one, other: is_behind(other, one),
}


# ------------------------------------------------------------------ words


@cache
def everyday_words() -> dict[str, str]:
    """Synonym -> the name of its everyday thing."""
    known = things()
    return {
        word: thing.name for thing in known.values() for word in thing.synonyms if word not in known
    }


def everyday(name: str) -> str:
    """The name of the everyday thing that bears this name or has it for a synonym, if one does."""
    return everyday_words().get(name, name)


@cache
def kinds_by_word() -> dict[str, frozenset[str]]:
    """Word of an ImageNet class -> what every class of that word is."""
    found: dict[str, frozenset[str]] = {}
    for of_class in imagenet_classes():
        words = [word.lower() for word in of_class.is_a]
        for position, word in enumerate(words):
            kinds = frozenset(words[position:])
            found[word] = found.get(word, kinds) & kinds
    return found


def kinds_of(name: str) -> frozenset[str] | None:
    """Which of ``KINDS`` a thing surely is; None where WordNet's part that we have is silent."""
    kinds = kinds_by_word().get(name)
    return None if kinds is None else kinds & frozenset(KINDS)
