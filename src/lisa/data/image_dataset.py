"""What the data sets of the paper have in common: pictures, and several questions about each.

An example is asked for by its number; training asks for a picture by its number, and draws
questions about it. This file knows sequences and pictures; it refuses to know formats.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
import PIL.Image

from lisa.errors import DataError, LisaError
from lisa.example import Example
from lisa.image import load_image

QUESTIONS = 3  # of one picture that training asks at most, as in the paper

Item = TypeVar("Item")


class ImageDataset(Sequence[Example]):
    """A data set: index in, same example out; and pictures to draw questions about.

    Attributes:
        name: as in ``lisa.data.datasets``.
        split: as it was opened.
        photos: the pictures, which ``draw`` counts.
        skipped: what is wrong with the records that were left out, one line each.
    """

    name: str
    split: str | None
    photos: Sequence[Path]
    skipped: list[str]
    _last: tuple[Path, PIL.Image.Image] | None = None

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        places = range(len(self))[index]
        if isinstance(places, range):
            return [self.example(place) for place in places]
        return self.example(places)

    @abstractmethod
    def example(self, index: int) -> Example:
        """The example of that number, ``0 <= index < len(self)``."""

    @abstractmethod
    def draw(self, index: int, random: np.random.Generator) -> list[Example]:
        """At most ``QUESTIONS`` questions about one of ``photos``, as the paper's training asks.

        They share one picture. There may be none, where nothing in the picture can be asked for.

        Raises:
            ImageError: the picture cannot be read.
            DataError: what is known of it breaks its format, or does not fit it.
        """

    def picture(self, path: Path) -> PIL.Image.Image:
        """A picture; the last one stays, since its questions come one after the other."""
        if self._last is None or self._last[0] != path:
            self._last = (path, load_image(path))
        return self._last[1]


def drawn(items: Sequence[Item], random: np.random.Generator) -> list[Item]:
    """``QUESTIONS`` of the items in random order; all of them in theirs where there are fewer."""
    if len(items) < QUESTIONS:
        return list(items)
    return [items[int(place)] for place in random.choice(len(items), QUESTIONS, replace=False)]


def folder_of(root: Path, *candidates: str, what: str) -> Path:
    """The first of the folders under ``root`` that is there.

    Raises:
        DataError: none of them is.
    """
    for candidate in candidates:
        if (root / candidate).is_dir():
            return root / candidate
    places = " or ".join(f"'{root / candidate}'" for candidate in candidates)
    raise DataError(f"no folder with {what}; expected {places}")


def check_exists(path: Path) -> Path:
    """The path of a file that is there.

    Raises:
        DataError: it is not.
    """
    if not path.is_file():
        raise DataError(f"picture '{path}' is missing; expected a file")
    return path


def check_size(size: tuple[int, int], image: PIL.Image.Image, what: str) -> None:
    """The (height, width) of a mask must be that of its picture.

    Raises:
        DataError: it is not.
    """
    if size != (image.height, image.width):
        found, expected = list(size), [image.height, image.width]
        raise DataError(f"{what} is of {found} pixels; expected {expected} as its picture has")


class WithoutBad(ImageDataset):
    """A data set without the examples that cannot be read; they are named in ``skipped``.

    To know which they are, all examples are read once, the first time that one is asked for.
    Drawing does not wait for that: a picture that cannot be read gives no questions.
    """

    def __init__(self, dataset: ImageDataset) -> None:
        self.dataset = dataset
        self.name, self.split, self.photos = dataset.name, dataset.split, dataset.photos
        self.skipped = list(dataset.skipped)
        self._good: list[int] | None = None

    def __len__(self) -> int:
        return len(self.good)

    @property
    def good(self) -> list[int]:
        """The numbers of the examples that can be read."""
        if self._good is None:
            self._good = list(self._readable())
        return self._good

    def example(self, index: int) -> Example:
        return self.dataset[self.good[index]]

    def draw(self, index: int, random: np.random.Generator) -> list[Example]:
        try:
            return self.dataset.draw(index, random)
        except LisaError as error:
            self._note(str(error))
            return []

    def _readable(self) -> Iterator[int]:
        for index in range(len(self.dataset)):
            try:
                self.dataset[index]
            except LisaError as error:
                self._note(str(error))
            else:
                yield index

    def _note(self, message: str) -> None:
        if message not in self.skipped:
            self.skipped.append(message)
