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
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from lisa.data.image_dataset import ImageDataset, WithoutBad
from lisa.data.multi_target import (
    MUSE_FOLDERS,
    MUSE_SPLITS,
    PLUS_FILES,
    PLUS_FOLDERS,
    LisaPlusInstances,
    Muse,
)
from lisa.data.own import OwnData, own_splits
from lisa.data.parts import paco_lvis, pascal_part
from lisa.data.reasonseg import ReasonSeg, reasonseg_splits
from lisa.data.refer import (
    GREFCOCO,
    REFCLEF,
    REFCOCO,
    REFCOCO_PLUS,
    REFCOCOG_GOOGLE,
    REFCOCOG_UMD,
    Refer,
    Referring,
    refer_splits,
)
from lisa.data.semantic import (
    ADE_FOLDERS,
    COCO_FOLDERS,
    MAPILLARY_FOLDERS,
    ade20k,
    coco_stuff,
    mapillary,
)
from lisa.data.vqa import LLAVA_FILE, LlavaInstruct
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
        self, root: Path, split: str | None, *, skip_bad: bool = False
    ) -> Sequence[Example]: ...


@dataclass(frozen=True)
class DatasetKind:
    """What is known of a data set before it is opened.

    Attributes:
        open: takes the folder and the split.
        splits: what the split may be; () where there are none.
        family: "semantic", "refer", "vqa", "reason" or "own".
        summary: one line for help and documents.
        find: the splits that a folder has by its layout, [None] for a data set without splits, and
            [] where it does not hold this data set. It reads as little as it can.
    """

    open: Opens
    splits: tuple[str, ...]
    family: str
    summary: str
    find: Callable[[Path], Sequence[str | None]]


TRAIN_VAL = ("train", "val")
TRAIN_VAL_TEST = (*TRAIN_VAL, "test")
TEST_A_B = (*TRAIN_VAL, "testA", "testB")


def referring(kind: Referring, splits: tuple[str, ...], summary: str) -> DatasetKind:
    """A data set of referring expressions."""
    return DatasetKind(
        partial(Refer, kind), splits, "refer", summary, partial(refer_splits, kind=kind)
    )


def where(marks: Mapping[str | None, Sequence[str]]) -> Callable[[Path], Sequence[str | None]]:
    """Finds the splits of which one of the marks, files or folders, is there."""
    return lambda root: [
        split for split, paths in marks.items() if any((root / path).exists() for path in paths)
    ]


def marked(parts: Mapping[str, str], *places: str) -> Callable[[Path], Sequence[str | None]]:
    """The same, where a mark has the official name of its split in place of ``{}``."""
    return where({split: [p.format(part) for p in places] for split, part in parts.items()})


def named(splits: Sequence[str], *places: str) -> Callable[[Path], Sequence[str | None]]:
    """The same, where the official name is ours."""
    return marked({split: split for split in splits}, *places)


DATASETS: Mapping[str, DatasetKind] = {
    "reasonseg": DatasetKind(
        ReasonSeg,
        TRAIN_VAL_TEST,
        "reason",
        "implicit questions, with explanations",
        reasonseg_splits,
    ),
    "refcoco": referring(REFCOCO, TEST_A_B, "one thing among others like it"),
    "refcoco+": referring(REFCOCO_PLUS, TEST_A_B, "the same without places"),
    "refcocog-umd": referring(REFCOCOG_UMD, TRAIN_VAL_TEST, "longer expressions"),
    "refcocog-google": referring(
        REFCOCOG_GOOGLE, TRAIN_VAL, "the same with pictures of both splits in common"
    ),
    "refclef": referring(REFCLEF, (*TEST_A_B, "testC"), "things and stuff in holiday photos"),
    "grefcoco": referring(GREFCOCO, TEST_A_B, "several things, or none"),
    "ade20k": DatasetKind(
        ade20k,
        TRAIN_VAL,
        "semantic",
        "150 classes, every pixel",
        marked(ADE_FOLDERS, "ade20k/annotations/{}", "annotations/{}"),
    ),
    "coco-stuff": DatasetKind(
        coco_stuff,
        TRAIN_VAL,
        "semantic",
        "things and stuff, every pixel",
        marked(COCO_FOLDERS, "cocostuff/{}"),
    ),
    "mapillary": DatasetKind(
        mapillary,
        TRAIN_VAL,
        "semantic",
        "streets, every pixel",
        marked(MAPILLARY_FOLDERS, "mapillary/{}/v2.0/labels", "{}/v2.0/labels"),
    ),
    "paco-lvis": DatasetKind(
        paco_lvis,
        TRAIN_VAL_TEST,
        "semantic",
        "things and their parts",
        named(TRAIN_VAL_TEST, "vlpart/paco/annotations/paco_lvis_v1_{}.json"),
    ),
    "pascal-part": DatasetKind(
        pascal_part,
        TRAIN_VAL,
        "semantic",
        "parts of VOC's things",
        named(TRAIN_VAL, "vlpart/pascal_part/{}.json", "pascal_part/{}.json"),
    ),
    "llava-instruct": DatasetKind(
        LlavaInstruct,
        (),
        "vqa",
        "conversations, without masks",
        where({None: [f"{folder}/{LLAVA_FILE}" for folder in ("llava_dataset", ".")]}),
    ),
    "muse": DatasetKind(
        Muse,
        MUSE_SPLITS,
        "reason",
        "answers with several masks",
        named(MUSE_SPLITS, *(f"{folder}/MUSE_{{}}.json" for folder in MUSE_FOLDERS)),
    ),
    "lisa++": DatasetKind(
        LisaPlusInstances,
        (),
        "reason",
        "instances of COCO, asked for implicitly",
        where({None: [f"{folder}/{file}" for folder in PLUS_FOLDERS for file in PLUS_FILES]}),
    ),
    "own": DatasetKind(
        OwnData, TRAIN_VAL_TEST, "own", "a folder that `lisa data import` wrote", own_splits
    ),
}


def open_dataset(
    name: str, root: str | Path, split: str | None = None, skip_bad: bool = False
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
    dataset = DATASETS[name].open(Path(root), split, skip_bad=skip_bad)
    return WithoutBad(dataset) if skip_bad and isinstance(dataset, ImageDataset) else dataset
