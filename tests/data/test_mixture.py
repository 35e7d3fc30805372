"""The mixture: every sample is its number's alone, and is seen once, whoever asks for it."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from helpers.lively_model import picture
from lisa.data.datasets import Drawable
from lisa.data.mixture import Mixture, Share, family_weights
from lisa.errors import DataError
from lisa.example import Example

PICTURE = picture(8, 8)


class Numbered:
    """A data set whose questions say where they come from; some pictures have none."""

    split = "train"

    def __init__(self, name: str, photos: int, silent: int = 0) -> None:
        self.name, self.silent = name, silent
        self.photos = [Path(f"{number}.jpg") for number in range(photos)]

    def __len__(self) -> int:
        return 3 * len(self.photos)

    def __getitem__(self, index: int) -> Example:
        return Example(PICTURE, f"{self.name} {index}")

    def draw(self, index: int, random: np.random.Generator) -> list[Example]:
        if index < self.silent:
            return []
        return [Example(PICTURE, f"{self.name} {index} {random.integers(1000)}")]


def mixture(length: int = 400, seed: int = 0, **others: float) -> Mixture:
    weights = {"a": 3.0, "b": 1.0} | others
    return Mixture({n: Share(Numbered(n, 7), w) for n, w in weights.items()}, length, seed)


def said(sample: list[Example]) -> list[str]:
    return [example.question for example in sample]


def names(samples: Mixture) -> Counter[str]:
    return Counter(said(samples[index])[0].split()[0] for index in range(len(samples)))


@given(st.integers(0, 399), st.integers(0, 5), st.integers(400, 500))
def test_a_sample_is_a_function_of_seed_and_number(number: int, seed: int, length: int) -> None:
    used = mixture(seed=seed)
    for other in (number, 3, number, 0):
        used[other]
    assert said(used[number]) == said(mixture(length, seed)[number])


def test_seeds_and_numbers_differ() -> None:
    assert len({tuple(said(mixture()[number])) for number in range(50)}) > 40
    assert said(mixture(seed=1)[0]) != said(mixture(seed=2)[0])


@settings(max_examples=20)
@given(
    processes=st.integers(1, 4),
    batch=st.integers(1, 3),
    updates=st.integers(1, 5),
    start=st.integers(0, 3),
)
def test_processes_share_samples_out_without_overlap(
    processes: int, batch: int, updates: int, start: int
) -> None:
    """As the loop does it: batches in turn, from the batch that a stopped run had reached."""
    samples = mixture(length=processes * batch * (updates + start))
    batches = BatchSampler(SequentialSampler(samples), batch, drop_last=False)
    shares = [BatchSamplerShard(batches, processes, rank) for rank in range(processes)]
    read = [number for share in shares for some in list(share)[start:] for number in some]
    assert sorted(read) == list(range(start * processes * batch, len(samples)))


def test_workers_give_what_one_process_gives() -> None:
    samples = mixture(length=12)
    loader = DataLoader(samples, batch_size=2, num_workers=2, collate_fn=lambda draws: draws)
    read = [said(draw) for batch in loader for draw in batch]
    assert read == [said(samples[number]) for number in range(12)]


def test_weights_are_shares() -> None:
    counted = names(mixture(2000))
    assert counted["a"] / counted.total() == pytest.approx(0.75, abs=0.03)
    assert names(mixture(300, a=1e-9)) == {"b": 300}


def test_the_order_of_names_has_no_meaning() -> None:
    shares = {name: Share(Numbered(name, 5), weight) for name, weight in (("a", 1), ("b", 2))}
    backwards = dict(reversed(shares.items()))
    assert all(
        said(Mixture(shares, 20, 0)[n]) == said(Mixture(backwards, 20, 0)[n]) for n in range(20)
    )


def test_a_family_shares_its_weight_out() -> None:
    families = {"ade20k": "semantic", "coco-stuff": "semantic", "refcoco": "refer"}
    families |= {"llava-instruct": "vqa", "reasonseg": "reason", "own": "own"}
    assert family_weights(families) == {
        "ade20k": 4.5,
        "coco-stuff": 4.5,
        "refcoco": 3,
        "llava-instruct": 3,
        "reasonseg": 1,
        "own": 1,
    }


def test_pictures_are_drawn_by_their_own_number() -> None:
    dataset = Numbered("a", 5)
    assert isinstance(dataset, Drawable)
    samples = Mixture({"a": Share(dataset, 1)}, 200, 0)
    drawn = {int(said(samples[number])[0].split()[1]) for number in range(200)}
    assert drawn == set(range(5))


def test_a_set_that_is_only_for_evaluation_gives_its_examples() -> None:
    examples = [Example(PICTURE, f"question {number}") for number in range(3)]
    samples = Mixture({"a": Share(examples, 1)}, 50, 0)
    assert {said(samples[n])[0] for n in range(50)} == {f"question {n}" for n in range(3)}


def test_a_picture_without_questions_is_passed_over() -> None:
    samples = Mixture({"a": Share(Numbered("a", 5, silent=4), 1)}, 30, 0)
    assert all(said(samples[number])[0].startswith("a 4") for number in range(30))


def test_examples_are_varied() -> None:
    def vary(example: Example, random: np.random.Generator) -> Example:
        return Example(example.image, f"{example.question}, {random.random():.3f}")

    plain, varied = mixture(), Mixture(mixture().shares, 400, 0, vary)
    assert said(varied[5])[0].startswith(f"{said(plain[5])[0]}, 0.")


@pytest.mark.parametrize(
    ("shares", "reason"),
    [
        ({}, "no data set"),
        ({"a": Share(Numbered("a", 0), 1)}, "'a' is empty"),
        ({"a": Share(Numbered("a", 1), 0)}, "weight of 'a' is 0"),
        ({"a": Share(Numbered("a", 1), float("nan"))}, "weight of 'a' is nan"),
    ],
)
def test_a_mixture_that_makes_no_sense_is_refused(shares: dict[str, Share], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        Mixture(shares, 10, 0)


def test_data_without_questions_end_in_an_error() -> None:
    samples = Mixture({"a": Share(Numbered("a", 2, silent=2), 1)}, 10, 0)
    with pytest.raises(DataError, match="sample 3 of seed 0 is empty"):
        samples[3]


def test_there_is_nothing_behind_the_end() -> None:
    assert len(mixture(5)) == 5
    with pytest.raises(IndexError):
        mixture(5)[5]
