"""Which photographs lisa-nano is trained on, and how often.

A table from a source's name to how it is read and weighed. This file knows names, weights and
scenes; it refuses to know models.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lisa.data.regions import Scene
from lisa.errors import DataError
from lisa.nano.data.composite import Backdrops, Composer, CutOuts
from lisa.nano.data.photos import Cutouts, MaskedThings, PhotoFolder
from lisa.nano.data.sketches import Sketches
from lisa.nano.data.text_files import text_file
from lisa.nano.data.views import augment, window


@dataclass(frozen=True)
class Source:
    """How one folder of photographs is used."""

    weight: float
    exhaustive: bool = False  # what is not annotated is not there
    mirror: bool = True  # its names do not say left and right
    elsewhere: tuple[str, ...] = ()  # sources whose own names are not to be found here
    licence: str = ""
    outlined: bool = False  # its photographs come without masks; ours are in texts/outlines


FASHION, CARS, TOOLS = ("ccp",), ("car_parts",), ("tools_seg",)
FOOD = ("uj_staple_pantry", "food_calorie_via", "food_via")
ANIMALS = ("endangered_animals",)
ANYWHERE = frozenset(("hand", "plate", "person", "bottle", "bread", "juice", "milk", "bag"))

SOURCES: dict[str, Source] = {
    "coco_union": Source(
        9.0,
        elsewhere=(*FOOD[:1], *TOOLS, *ANIMALS),
        exhaustive=True,
        licence="annotations CC BY 4.0, photos by Flickr licence id",
    ),
    "voc_animals": Source(
        5.0,
        elsewhere=(*FOOD, *TOOLS, *ANIMALS),
        exhaustive=True,
        licence="PASCAL VOC 2012 photos, research",
    ),
    "ccp": Source(
        4.0,
        elsewhere=(*FOOD, *TOOLS, *ANIMALS, "voc_animals"),
        licence="Clothing Co-Parsing, repository Apache-2.0",
    ),
    "coco_val_oneperson": Source(
        1.5,
        elsewhere=(*FOOD, *TOOLS, *ANIMALS),
        licence="annotations CC BY 4.0, photos by Flickr licence id",
    ),
    "uj_staple_pantry": Source(
        1.5, elsewhere=(*FASHION, *CARS, *TOOLS, *ANIMALS), licence="CC BY-SA 4.0"
    ),
    "car_parts": Source(
        0.8,
        elsewhere=(*FOOD, *TOOLS, *ANIMALS, *FASHION),
        mirror=False,
        licence="Car-Parts-Segmentation, cite",
    ),
    "tools_seg": Source(
        1.0, elsewhere=(*FOOD, *CARS, *ANIMALS, *FASHION), exhaustive=True, licence="CC BY 4.0"
    ),
    "endangered_animals": Source(
        1.2, elsewhere=(*FOOD, *CARS, *TOOLS, *FASHION), exhaustive=True, licence="CC BY 4.0"
    ),
    "food_calorie_via": Source(
        0.5, elsewhere=(*CARS, *TOOLS, *ANIMALS, *FASHION), exhaustive=True, licence="unstated"
    ),
    "food_via": Source(0.4, elsewhere=(*CARS, *TOOLS, *ANIMALS, *FASHION), licence="unstated"),
    "mugs_via": Source(0.6, elsewhere=(*CARS, *ANIMALS, *FASHION), licence="unstated"),
    "bottles_via": Source(0.5, elsewhere=(*CARS, *TOOLS, *ANIMALS, *FASHION), licence="unstated"),
    "waste_bottles_via": Source(
        0.2, elsewhere=(*CARS, *TOOLS, *ANIMALS, *FASHION), licence="unstated"
    ),
    "trash_bags": Source(0.3, elsewhere=(*FOOD, *TOOLS, *ANIMALS, *FASHION), licence="CC BY 4.0"),
    "balloon": Source(0.3, elsewhere=(*FOOD, *TOOLS, *CARS, *ANIMALS), licence="unstated"),
    "dogcat_via": Source(0.3, elsewhere=(*FOOD, *TOOLS, *CARS, *FASHION), licence="unstated"),
    "imagelevel_imagenet1000": Source(
        5.0,
        elsewhere=(*FOOD[:1], *CARS, *FASHION),
        licence="ImageNet photos, research; outlines by hand, our own",
        outlined=True,
    ),
}
RARE = 2  # a name outlined on more photographs may well be on others, too
SKETCHED = "sketches (drawn by a program)"
BESIDE = {"stamps": "tuxpaint-stamps, GPL-2", "backgrounds": "wallpapers, see their packages"}
CUT_UP = (  # sources whose things are whole enough to be cut out
    *("coco_union", "voc_animals", "coco_val_oneperson", "uj_staple_pantry", "tools_seg"),
    *("endangered_animals", "food_calorie_via", "food_via", "mugs_via", "bottles_via"),
    *("waste_bottles_via", "trash_bags", "balloon", "imagelevel_imagenet1000"),
)
COMPOSITE_SHARE = 0.4  # of views are composite scenes


class Photos:
    """The photographs under ``root/photos``, drawn by weight.

    Args:
        root: holds ``photos/NAME`` for some of the names in ``SOURCES``, and ``photos/stamps``
            where cut-outs are to be pasted.
        part: as ``PhotoFolder`` has it.

    Raises:
        DataError: no known folder is there, one is malformed, or one has no photograph in ``part``.
    """

    def __init__(self, root: Path, part: str = "train") -> None:
        folder = root / "photos"
        self.folders = open_folders(folder, part)
        stamps = folder / "stamps"
        self.cutouts = Cutouts(stamps) if stamps.is_dir() else ()
        self.composer = self._composer(folder / "backgrounds" / "images")
        weights = np.array([SOURCES[name].weight for name in self.folders])
        self.weights = weights / weights.sum()

    @property
    def names(self) -> list[str]:
        """All names of regions, sorted: those of photographs, and of what is pasted on them."""
        found = {name for folder in self.folders.values() for name in folder.names.values()}
        return sorted(found | set(self.composer.names if self.composer else ()))

    def elsewhere(self, name: str) -> tuple[str, ...]:
        """Names that only other kinds of photographs have."""
        here = {*self.folders[name].names.values(), *ANYWHERE}
        others = [self.folders[n] for n in SOURCES[name].elsewhere if n in self.folders]
        names = {n for folder in others for n in folder.names.values()} - here
        return tuple(sorted(names | self._rare(name)))

    def _rare(self, name: str) -> set[str]:
        """Names that an outlined source hardly ever has: not on its other photographs."""
        folder = self.folders[name]
        if not SOURCES[name].outlined:
            return set()
        drawn = (annotation for image in folder.annotations.values() for annotation in image)
        counts = Counter(folder.names[annotation["category_id"]] for annotation in drawn)
        return {word for word, count in counts.items() if count <= RARE}

    @property
    def sources(self) -> list[str]:
        """What views are made of: folders, and what is drawn."""
        root = next(iter(self.folders.values())).folder.parent
        beside = [name for name in BESIDE if (root / name).is_dir()]
        return [*self.folders, *beside, *([SKETCHED] if self.composer else [])]

    def _composer(self, backgrounds: Path) -> Composer | None:
        """Of all things that can be cut out; None where there are none."""
        cuts: list[CutOuts] = [
            MaskedThings(folder) for name, folder in self.folders.items() if name in CUT_UP
        ]
        if isinstance(self.cutouts, Cutouts):
            cuts.append(self.cutouts)
        if not any(map(len, cuts)):
            return None
        return Composer([*cuts, Sketches()], Backdrops(backgrounds, list(self.folders.values())))

    def draw(self, random: np.random.Generator, side: int, composed: float = 1.0) -> Scene:
        """A random view of a random photograph, or a composite scene.

        Args:
            random: decides everything.
            side: of the view, in pixels.
            composed: composite scenes are up to so many times larger than what is seen of them.
        """
        if self.composer and random.random() < COMPOSITE_SHARE:
            larger = int(side * random.uniform(1.0, composed))
            return window(self.composer.draw(random, larger), random, side)
        name = str(random.choice(list(self.folders), p=self.weights))
        folder = self.folders[name]
        scene = folder[int(random.integers(len(folder)))]
        return augment(
            replace(scene, elsewhere=self.elsewhere(name)),
            random,
            side=side,
            mirror=SOURCES[name].mirror,
            cutouts=self.cutouts,
        )


def open_folders(folder: Path, part: str) -> dict[str, PhotoFolder]:
    """The known sources that are there, in the order of ``SOURCES``; at least one."""
    found = {
        name: PhotoFolder(folder / name, part, source.exhaustive, outlines(name))
        for name, source in SOURCES.items()
        if (folder / name / "annotations.json").is_file()
    }
    found = {name: photos for name, photos in found.items() if photos.images or not outlines(name)}
    if not found:
        examples = ", ".join(list(SOURCES)[:3])
        raise DataError(f"no photographs under '{folder}'; expected folders such as {examples}")
    for name, photos in found.items():
        if not len(photos):
            raise DataError(f"no photograph of '{folder / name}' is in the part '{part}'")
    return found


def outlines(name: str) -> Path | None:
    """Our own masks of a source that has none; None where it has its own."""
    return text_file("outlines", f"{name}.json") if SOURCES[name].outlined else None
