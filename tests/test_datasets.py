"""The table of data sets: names, splits, and what is said of a name that is not in it."""

from pathlib import Path

import pytest

from lisa.data.datasets import DATASETS, open_dataset
from lisa.errors import DataError

FAMILIES = {"semantic", "refer", "vqa", "reason", "own"}


def test_every_data_set_belongs_to_a_family_of_the_mixture() -> None:
    assert {kind.family for kind in DATASETS.values()} <= FAMILIES


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown data set 'coco'; expected one of reasonseg"):
        open_dataset("coco", tmp_path)
