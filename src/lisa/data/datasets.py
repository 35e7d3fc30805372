"""Every data set by name: what opens it, which splits it has, which family it belongs to.

A data set is a sequence of examples, index in, same example out: that is what evaluation asks. One
that can be trained on is a ``Drawable`` too: its pictures are drawn by their own index, with the
questions that the paper's training asks of one picture.

This file knows names; it refuses to know formats, which are the loaders', and weights, which are
the mixture's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from lisa.data.reasonseg import ReasonSeg
from lisa.errors import DataError
from lisa.example import Example


@runtime_checkable
class Drawable(Protocol):
    """A data set to train on.

    Attributes:
        name: as in ``DATASETS``.
        split: as it was opened.
        photos: the pictures that ``draw`` takes its index from, ``0 <= index < len(photos)``. There
            may be fewer than examples: a picture of RefCOCO has a dozen sentences, and is drawn as
            often as one with two.
    """

    name: str
    split: str | None
    photos: Sequence[Path]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def draw(self, index: int, random: np.random.Generator) -> list[Example]:
        """The questions of one picture as training asks them; at least one, one picture."""
        ...


@dataclass(frozen=True)
class DatasetKind:
    """What is known of a data set before it is opened.

    Attributes:
        open: takes the folder and the split.
        splits: what the split may be; () where there are none.
        family: "semantic", "refer", "vqa", "reason" or "own".
        summary: one line for help and documents.
    """

    open: Callable[[Path, str | None], Sequence[Example]]
    splits: tuple[str, ...]
    family: str
    summary: str


DATASETS: Mapping[str, DatasetKind] = {
    "reasonseg": DatasetKind(
        ReasonSeg, ("train", "val", "test"), "reason", "implicit questions, polygons"
    ),
}


def open_dataset(name: str, root: Path, split: str | None = None) -> Sequence[Example]:
    """The examples of a data set.

    Args:
        name: one of ``DATASETS``.
        root: its folder, or the folder that holds all data sets in the paper's layout.
        split: one of its splits; None where it has none, or where the folder is the split.

    Raises:
        DataError: the name or the split is unknown, or the folder is not in the layout.
    """
    if name not in DATASETS:
        raise DataError(f"unknown data set '{name}'; expected one of {', '.join(DATASETS)}")
    return DATASETS[name].open(root, split)
