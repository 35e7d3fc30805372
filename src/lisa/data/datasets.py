"""Every data set by name: what opens it, which splits it has, which family it belongs to.

A data set is a sequence of examples, index in, same example out: that is what evaluation asks. One
that can be trained on is a ``Drawable`` too: its pictures are drawn by their own index, with the
questions that the paper's training asks of one picture.

This file knows names; it refuses to know formats, which are the loaders', and weights, which are
the mixture's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from lisa.data.multi import LisaPlusInstances, Muse
from lisa.data.parts import paco_lvis, pascal_part
from lisa.data.pictures import PictureSet, WithoutBad
from lisa.data.reasonseg import ReasonSeg
from lisa.data.refer import CLEF_PHOTOS, Refer, Referring
from lisa.data.semantic import ade20k, coco_stuff, mapillary
from lisa.data.vqa import LlavaInstruct
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


class Opens(Protocol):
    """Opens a data set; ``skip_bad`` leaves out records that break its format."""

    def __call__(
        self, root: Path, split: str | None, skip_bad: bool = False
    ) -> Sequence[Example]: ...


@dataclass(frozen=True)
class DatasetKind:
    """What is known of a data set before it is opened.

    Attributes:
        open: takes the folder and the split.
        splits: what the split may be; () where there are none.
        family: "semantic", "refer", "vqa", "reason" or "own".
        summary: one line for help and documents.
    """

    open: Opens
    splits: tuple[str, ...]
    family: str
    summary: str


TRAIN_VAL = ("train", "val")
TRAIN_VAL_TEST = (*TRAIN_VAL, "test")
TEST_A_B = (*TRAIN_VAL, "testA", "testB")


def referring(*arguments: str, splits: tuple[str, ...], summary: str, **more: str) -> DatasetKind:
    """A data set of referring expressions; ``arguments`` are those of ``Referring``."""
    return DatasetKind(partial(Refer, Referring(*arguments, **more)), splits, "refer", summary)


DATASETS: Mapping[str, DatasetKind] = {
    "reasonseg": DatasetKind(
        ReasonSeg, TRAIN_VAL_TEST, "reason", "implicit questions, with explanations"
    ),
    "refcoco": referring(
        *("refcoco", "refcoco", "unc"), splits=TEST_A_B, summary="one thing among others like it"
    ),
    "refcoco+": referring(
        *("refcoco+", "refcoco+", "unc"), splits=TEST_A_B, summary="the same without places"
    ),
    "refcocog-umd": referring(
        *("refcocog-umd", "refcocog", "umd"),
        splits=TRAIN_VAL_TEST,
        summary="longer expressions; no picture in two splits",
    ),
    "refcocog-google": referring(
        *("refcocog-google", "refcocog", "google"),
        splits=TRAIN_VAL,
        summary="longer expressions; the same pictures in both splits",
    ),
    "refclef": referring(
        *("refclef", "refclef", "unc", CLEF_PHOTOS),
        splits=(*TEST_A_B, "testC"),
        summary="things and stuff in holiday photos",
    ),
    "grefcoco": referring(
        *("grefcoco", "grefcoco", "unc"),
        stem="grefs",
        splits=TEST_A_B,
        summary="several things, or none",
    ),
    "ade20k": DatasetKind(ade20k, TRAIN_VAL, "semantic", "150 classes, every pixel"),
    "coco-stuff": DatasetKind(coco_stuff, TRAIN_VAL, "semantic", "things and stuff, every pixel"),
    "mapillary": DatasetKind(mapillary, TRAIN_VAL, "semantic", "streets, every pixel"),
    "paco-lvis": DatasetKind(paco_lvis, TRAIN_VAL_TEST, "semantic", "things and their parts"),
    "pascal-part": DatasetKind(pascal_part, TRAIN_VAL, "semantic", "parts of VOC's things"),
    "llava-instruct": DatasetKind(LlavaInstruct, (), "vqa", "conversations, without masks"),
    "muse": DatasetKind(
        Muse, (*TRAIN_VAL, "test_less", "test_many"), "reason", "answers with several masks"
    ),
    "lisa++": DatasetKind(
        LisaPlusInstances, (), "reason", "instances of COCO, asked for implicitly"
    ),
}


def open_dataset(
    name: str, root: Path, split: str | None = None, skip_bad: bool = False
) -> Sequence[Example]:
    """The examples of a data set.

    Args:
        name: one of ``DATASETS``.
        root: its folder, or the folder that holds all data sets in the paper's layout.
        split: one of its splits; None where it has none, or where the folder is the split.
        skip_bad: leave out what cannot be read, and name it in the ``skipped`` of what is returned.

    Raises:
        DataError: the name or the split is unknown, the folder is not in the layout, or (without
            ``skip_bad``) a record is malformed; the message names the file and the record.
    """
    if name not in DATASETS:
        raise DataError(f"unknown data set '{name}'; expected one of {', '.join(DATASETS)}")
    dataset = DATASETS[name].open(root, split, skip_bad=skip_bad)
    return WithoutBad(dataset) if skip_bad and isinstance(dataset, PictureSet) else dataset
