"""What data sets have in common: indices, pictures, and leaving out what cannot be read."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from helpers.picture_files import write_picture
from lisa.data.image_dataset import (
    QUESTIONS,
    ImageDataset,
    WithoutBad,
    check_exists,
    check_size,
    drawn,
    folder_of,
)
from lisa.errors import DataError
from lisa.example import Example


class Numbers(ImageDataset):
    """Asks "0?", "1?" ... of one picture each; those in ``bad`` cannot be read."""

    def __init__(self, photos: list[Path], bad: tuple[int, ...] = ()) -> None:
        self.name, self.split, self.photos, self.bad = "numbers", "train", photos, bad
        self.skipped = ["a record"]

    def __len__(self) -> int:
        return len(self.photos)

    def example(self, index: int) -> Example:
        if index in self.bad:
            raise DataError(f"number {index} is bad")
        return Example(self.picture(self.photos[index]), f"{index}?")

    def draw(self, index: int, random: np.random.Generator) -> list[Example]:
        return [self.example(index)]


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    return [write_picture(tmp_path / f"{number}.png") for number in range(4)]


def test_indices_are_those_of_a_list(photos: list[Path]) -> None:
    dataset = Numbers(photos)
    assert dataset[-1].question == "3?"
    assert [example.question for example in dataset[1:3]] == ["1?", "2?"]
    assert [example.question for example in dataset] == ["0?", "1?", "2?", "3?"]
    assert dataset[np.int64(2)].question == "2?"
    with pytest.raises(IndexError):
        dataset[4]


def test_the_last_picture_stays(photos: list[Path]) -> None:
    dataset = Numbers(photos)
    first = dataset[0].image
    assert dataset[0].image is first
    assert dataset[1].image is not first
    assert dataset[0].image is not first


def test_what_cannot_be_read_is_left_out_and_named(photos: list[Path]) -> None:
    dataset = WithoutBad(Numbers(photos, bad=(1, 3)))
    assert [example.question for example in dataset] == ["0?", "2?"]
    assert dataset.skipped == ["a record", "number 1 is bad", "number 3 is bad"]
    assert (dataset.name, dataset.split, dataset.photos) == ("numbers", "train", photos)


def test_a_draw_that_fails_gives_nothing_and_reads_no_other(photos: list[Path]) -> None:
    dataset = WithoutBad(Numbers(photos, bad=(1, 3)))
    random = np.random.default_rng(0)
    assert [example.question for example in dataset.draw(0, random)] == ["0?"]
    assert dataset.draw(3, random) == dataset.draw(3, random) == []
    assert dataset.skipped == ["a record", "number 3 is bad"]


@pytest.mark.parametrize("count", range(6))
def test_at_most_three_are_drawn_each_once(count: int) -> None:
    chosen = drawn(range(count), np.random.default_rng(count))
    assert len(chosen) == len(set(chosen)) == min(count, QUESTIONS)
    if count < QUESTIONS:
        assert chosen == list(range(count))


def test_all_are_drawn_as_often() -> None:
    random = np.random.default_rng(0)
    counts = np.bincount([one for _ in range(2000) for one in drawn(range(5), random)])
    assert np.all(np.abs(counts - 1200) < 100)


def test_the_first_folder_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    assert folder_of(tmp_path, "a", "b", what="things") == tmp_path / "b"
    with pytest.raises(DataError, match=r"no folder with things; expected '.*a' or '.*c'"):
        folder_of(tmp_path, "a", "c", what="things")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"picture '.*a\.png' is missing; expected a file"):
        check_exists(tmp_path / "a.png")


def test_a_mask_must_fit_its_picture() -> None:
    image = PIL.Image.new("RGB", (3, 2))
    check_size((2, 3), image, "mask")
    with pytest.raises(DataError, match=r"mask is of \[3, 2\] pixels; expected \[2, 3\]"):
        check_size((3, 2), image, "mask")
