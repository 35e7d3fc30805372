"""Lists of sources against what is measured: what is refused, and what is not."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lisa.checkpoints.convert import TRAINED_ON
from lisa.evaluation.contamination import seen

NAMES = st.sampled_from(["reasonseg", "refcoco", "refcoco+", "ade20k", "own:mugs"])
SPLITS = st.sampled_from(["train", "val", "testA", "test"])


@pytest.mark.parametrize(
    ("entry", "dataset", "split"),
    [
        ("reasonseg/val", "reasonseg", "val"),
        ("refcoco/train+val", "refcoco", "val"),
        ("refcoco/testa", "refcoco", "testA"),
        ("refcoco/val", "refcoco-unc", "val"),
        ("own:mugs", "own:mugs", "train"),  # all of it
        ("own:mugs/train", "own:mugs", None),  # a part of it
        ("ReasonSeg (train)", "reasonseg", "train"),
        ("COCO-Stuff", "coco-stuff", "val"),
        ("refcocog-google/train", "refcocog-umd", "val"),  # the same pictures, divided otherwise
    ],
)
def test_what_was_trained_on_is_found(entry: str, dataset: str, split: str | None) -> None:
    assert seen(["noise", entry, "more/train"], dataset, split) == entry


@pytest.mark.parametrize(
    ("entry", "dataset", "split"),
    [
        ("reasonseg/train", "reasonseg", "val"),
        ("refcoco/val", "refcoco+", "val"),
        ("refcocog-umd/train", "refcocog-umd", "val"),
        ("reasonseg_nano/train239", "reasonseg", "train"),
        ("reasonseg_nano/train239", "reasonseg_nano", "val"),
        ("own:mugs/train", "own:cups", "train"),
    ],
)
def test_another_split_or_another_data_set_is_not(
    entry: str, dataset: str, split: str | None
) -> None:
    assert seen([entry], dataset, split) is None


@pytest.mark.parametrize(
    ("root", "split"),
    [("reasonseg_nano", "train239"), ("reasonseg_nano/train239", None), ("reasonseg/val", None)],
)
def test_the_folder_tells_the_name_too(root: str, split: str | None, tmp_path: Path) -> None:
    sources = ["reasonseg_nano/train239", "reasonseg/val"]
    assert seen(sources, "reasonseg", split, tmp_path / root) in sources
    assert seen(sources, "reasonseg", "test", tmp_path / root) is None


@given(NAMES, SPLITS, NAMES, SPLITS)
def test_two_splits_are_the_same_only_by_name(
    name: str, split: str, other: str, another: str
) -> None:
    expected = (name, split) == (other, another)
    assert (seen([f"{name}/{split}"], other, another) is not None) == expected


def test_official_weights_saw_training_splits_only() -> None:
    for dataset in ("reasonseg", "refcoco", "refcoco+", "refcocog-umd", "refclef", "ade20k"):
        assert seen(TRAINED_ON, dataset, "train"), dataset
        assert seen(TRAINED_ON, dataset, "val") is None, dataset


def test_weights_that_say_nothing_are_not_accused() -> None:
    assert seen([], "reasonseg", "val", Path("reasonseg")) is None
