"""Which data a training stage sees, how often, and in which order.

A table from a source's name to how it is read and weighed, and a seeded stream over it: sample i is
a function of (seed, i) alone, so that a stopped run goes on exactly where it was, on any number of
workers. This file knows names, weights and scenes; it refuses to know models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from lisa.data.photos import PhotoFolder, Scene, augment
from lisa.errors import DataError
from lisa.example import Example


@dataclass(frozen=True)
class Source:
    """How one folder of photographs is used."""

    weight: float
    exhaustive: bool = False  # what is not annotated is not there
    mirror: bool = True  # its names do not say left and right
    licence: str = ""


SOURCES: dict[str, Source] = {
    "coco_union": Source(9.0, exhaustive=True, licence="annotations CC BY 4.0, photos by Flickr licence id"),
    "voc_animals": Source(5.0, exhaustive=True, licence="PASCAL VOC 2012 photos, research"),
    "ccp": Source(4.0, licence="Clothing Co-Parsing, repository Apache-2.0"),
    "coco_val_oneperson": Source(1.5, licence="annotations CC BY 4.0, photos by Flickr licence id"),
    "uj_staple_pantry": Source(1.5, licence="CC BY-SA 4.0"),
    "car_parts": Source(0.8, mirror=False, licence="Car-Parts-Segmentation, cite"),
    "tools_seg": Source(1.0, exhaustive=True, licence="CC BY 4.0"),
    "endangered_animals": Source(1.2, exhaustive=True, licence="CC BY 4.0"),
    "food_calorie_via": Source(0.5, exhaustive=True, licence="unstated"),
    "food_via": Source(0.4, licence="unstated"),
    "mugs_via": Source(0.6, licence="unstated"),
    "bottles_via": Source(0.5, licence="unstated"),
    "waste_bottles_via": Source(0.2, licence="unstated"),
    "trash_bags": Source(0.3, licence="CC BY 4.0"),
    "balloon": Source(0.3, licence="unstated"),
    "dogcat_via": Source(0.3, licence="unstated"),
}
NOT_RELEASED = ("camvid", "bsds500")  # non-commercial: no released weight sees them


class Photos:
    """The photographs of ``root/photos`` (a ``part`` as ``PhotoFolder`` has it), drawn by weight."""

    def __init__(self, root: Path, part: str = "train") -> None:
        folders = [name for name in SOURCES if (root / "photos" / name / "annotations.json").is_file()]
        if not folders:
            raise DataError(f"no photographs under '{root / 'photos'}'; expected folders such as {', '.join(list(SOURCES)[:3])}")
        self.folders = {name: PhotoFolder(root / "photos" / name, part, SOURCES[name].exhaustive) for name in folders}
        weights = np.array([SOURCES[name].weight for name in folders])
        self.weights = weights / weights.sum()

    @property
    def names(self) -> list[str]:
        """All names of regions, sorted."""
        return sorted({name for folder in self.folders.values() for name in folder.names.values()})

    def draw(self, random: np.random.Generator, side: int) -> Scene:
        """A random view of a random photograph."""
        name = str(random.choice(list(self.folders), p=self.weights))
        folder = self.folders[name]
        return augment(folder[int(random.integers(len(folder)))], random, side=side, mirror=SOURCES[name].mirror)


class Stream(Dataset[list[Example]]):
    """``length`` samples; sample i is made by ``make`` from a generator seeded with (seed, i)."""

    def __init__(self, make: Callable[[np.random.Generator], list[Example]], length: int, seed: int) -> None:
        self.make, self.length, self.seed = make, length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> list[Example]:
        random = np.random.default_rng([self.seed, index])
        while not (examples := self.make(random)):
            continue
        return examples
