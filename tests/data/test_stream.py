"""The stream: always the same from the same seed, on any number of workers."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from helpers.coco_folder import COLOURS, make_cutouts, make_folder
from lisa.data.stream import PATIENCE, Stream
from lisa.errors import DataError
from lisa.example import Example
from lisa.nano.data.questions import eye_examples
from lisa.nano.data.sketches import SKETCHES
from lisa.nano.data.sources import Photos


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs and cut-outs."""
    root = tmp_path_factory.mktemp("data")
    make_folder(root / "photos" / "coco_union")
    make_cutouts(root / "photos" / "stamps")
    return root


def stream(root: Path, seed: int = 3) -> Stream:
    photos = Photos(root)

    def make(random: np.random.Generator) -> list[Example]:
        return eye_examples(photos.draw(random, 48), random, 3, {"cat": ("kitty",)}, 2)

    return Stream(make, 100, seed)


def content_of(examples: list[Example]) -> list[tuple[object, ...]]:
    """Everything in the examples, in a form that can be compared."""
    return [
        (one.image.tobytes(), one.question, one.answer, one.phrase, np.asarray(one.masks).tobytes())
        for one in examples
    ]


def test_a_sample_depends_on_the_seed_and_its_number_alone(root: Path) -> None:
    one, two = stream(root), stream(root)
    forwards = [content_of(one[index]) for index in range(8)]
    backwards = [content_of(two[index]) for index in reversed(range(8))]
    assert forwards == backwards[::-1]
    assert content_of(one[3]) == forwards[3]


def test_other_seeds_and_numbers_give_other_samples(root: Path) -> None:
    samples = [content_of(stream(root, seed)[index]) for seed in (0, 1) for index in range(4)]
    assert len({str(sample) for sample in samples}) == 8


def test_a_stopped_run_goes_on_with_the_same_samples_on_any_number_of_workers(root: Path) -> None:
    made = stream(root)
    expected = [content_of(made[index]) for index in range(4, 10)]
    loader = DataLoader(
        made, batch_size=None, sampler=range(4, 10), num_workers=2, multiprocessing_context="fork"
    )
    assert [content_of(examples) for examples in loader] == expected


def test_samples_hold_questions_of_the_photographs(root: Path) -> None:
    made = stream(root)
    assert len(made) == 100
    phrases = {one.phrase.split()[-1] for index in range(40) for one in made[index]}
    drawn = {name.split()[-1] for name in SKETCHES}
    assert phrases <= {*COLOURS, "kitty", "plate"} | drawn
    assert len(phrases) > 3


def test_a_view_that_shows_nothing_is_drawn_again() -> None:
    example = Example(Image.new("RGB", (8, 8)), "what?")
    made = Stream(lambda random: [example] if random.random() < 0.2 else [], 50, seed=0)
    assert all(made[index] == [example] for index in range(50))


def test_data_that_never_shows_anything_is_an_error() -> None:
    calls: list[int] = []
    made = Stream(lambda random: calls.append(1) or [], 1, seed=4)
    with pytest.raises(DataError, match=r"sample 0 of seed 4 is empty after 1000 attempts"):
        made[0]
    assert len(calls) == PATIENCE


@pytest.mark.parametrize("index", [-1, 3])
def test_there_are_no_other_samples(index: int) -> None:
    with pytest.raises(IndexError):
        Stream(lambda random: [1], 3, seed=0)[index]
