"""The stage "eyes" on a tiny model: what it trains, what it sees, what its figures mean."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

from lisa.data.imagenet import imagenet_classes, word_table
from lisa.data.mixture import Photos, Stream
from lisa.example import Example
from lisa.model.interfaces import Batch, DecodedMasks
from lisa.model.lisa import LisaModel
from lisa.model.nano import HERE_BIAS
from lisa.model.processor import LisaProcessor, pad
from lisa.training.eyes import EyesTask, eyes_stream, held_out_rows, iou_by_name, learn_words
from lisa.training.loss import MaskLossWeights, mask_loss
from tiny_model import tiny_model
from training_data import PHOTOS_A_SOURCE, SIDE, SOURCES, learn, write_training_data

SAMPLES = 60  # enough to see synonyms and cut-outs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def built() -> tuple[LisaModel, LisaProcessor]:
    return tiny_model()


def repeated_batch(data: Path, processor: LisaProcessor, pictures: int = 3) -> Batch:
    stream = Stream(eyes_stream(Photos(data), SIDE), 100, 0)
    return processor.encode([example for i in range(pictures) for example in stream[i]])


def changed(model: LisaModel, before: dict[str, Tensor]) -> set[str]:
    """The names of the tensors that are not bitwise what they were."""
    return {name for name, value in model.state_dict().items() if not value.equal(before[name])}


# The task


def test_ten_steps_on_one_batch_lower_the_loss(
    built: tuple[LisaModel, LisaProcessor], data: Path
) -> None:
    model, processor = built
    losses = learn(EyesTask(model), repeated_batch(data, processor), 10, 5e-3)
    assert losses[-1] < 0.9 * losses[0]


def test_only_the_decoder_and_the_name_prompts_are_trained(
    built: tuple[LisaModel, LisaProcessor], data: Path
) -> None:
    model, processor = built
    before = {name: value.clone() for name, value in model.state_dict().items()}
    task = EyesTask(model)
    task.train()
    learn(task, repeated_batch(data, processor), 2, 5e-3)
    moved = changed(model, before)
    owners = ("decoder.", "vlm.projector.name_prompt.")
    assert all(name.startswith(owners) and "decoder.tower." not in name for name in moved)
    expected = {name for name, value in model.named_parameters() if value.requires_grad}
    assert moved == expected  # each of them has moved, and no buffer has
    assert "decoder.output_tokens" in moved


def test_state_dict_holds_only_what_is_trained(built: tuple[LisaModel, LisaProcessor]) -> None:
    task = EyesTask(built[0])
    trained = {name for name, value in task.named_parameters() if value.requires_grad}
    assert task.state_dict().keys() == trained
    assert not [name for name in trained if "tower" in name or "language" in name]


def test_losses_are_those_of_masks_asked_by_name(
    built: tuple[LisaModel, LisaProcessor], data: Path
) -> None:
    model, processor = built
    weights = MaskLossWeights(bce=1, dice=1, quality=1, here=1)
    batch = repeated_batch(data, processor, 1)
    with torch.no_grad():
        actual = EyesTask(model, weights)(batch)
        assert batch.masks is not None
        expected = mask_loss(model.segment_phrases(batch), batch.masks, weights)
    assert {k: float(v) for k, v in actual.items()} == pytest.approx(
        {k: float(v) for k, v in expected.items()}
    )


# Words alone


def test_learn_words_teaches_that_cat_is_true_of_a_tabby(
    built: tuple[LisaModel, LisaProcessor],
) -> None:
    model, processor = built
    first = learn_words(model, processor, steps=1)
    last = learn_words(model, processor, steps=6)
    assert last < first
    classes = imagenet_classes()
    words, table = word_table(classes)
    with torch.no_grad():
        prompts = model.phrase_prompts(pad([processor.phrase_ids(word) for word in words], -1))
        scores = prompts @ model.decoder.neck.semantic_keys.weight
        logits = scores / np.sqrt(prompts.shape[1]) + HERE_BIAS
    truth = torch.from_numpy(table)
    assert logits[truth].mean() > logits[~truth].mean()


def test_learn_words_leaves_the_language_model_alone(
    built: tuple[LisaModel, LisaProcessor],
) -> None:
    model, processor = built
    before = {name: value.clone() for name, value in model.state_dict().items()}
    learn_words(model, processor, steps=1)
    owners = ("decoder.neck.semantic_keys.", "vlm.projector.name_prompt.")
    assert changed(model, before)
    assert all(name.startswith(owners) for name in changed(model, before))


# What it sees


def test_the_same_seed_and_number_give_the_same_sample(data: Path) -> None:
    def sample(seed: int, index: int) -> list[tuple[str, bytes, bytes]]:
        examples = Stream(eyes_stream(Photos(data), SIDE), 100, seed)[index]
        return [(e.question, e.image.tobytes(), e.mask.tobytes()) for e in examples]

    assert sample(3, 7) == sample(3, 7)
    assert sample(3, 7) != sample(3, 8)
    assert sample(3, 7) != sample(4, 7)


def test_a_sample_asks_names_of_one_square_view(data: Path) -> None:
    stream = Stream(eyes_stream(Photos(data), SIDE, 4), SAMPLES, 0)
    samples = [stream[i] for i in range(SAMPLES)]
    for examples in samples:
        assert examples
        assert all(e.image is examples[0].image and e.image.size == (SIDE, SIDE) for e in examples)
    asked = {e.phrase for examples in samples for e in examples}
    assert "cat" in asked
    assert asked & {"kitty", "feline"}  # synonyms of "cat"
    assert "trumpet" in asked  # pasted on


def test_held_out_rows_are_whole_photographs_that_training_leaves_out(data: Path) -> None:
    rows = held_out_rows(data, SIDE)
    assert rows.keys() == SOURCES.keys()
    photos = Photos(data, "all")
    for source, kept in rows.items():
        assert len(kept) == 1  # the first of each source
        first = np.asarray(photos.folders[source][0].image)
        assert np.array_equal(np.asarray(kept[0][0].image), first)
        assert len(Photos(data).folders[source]) == PHOTOS_A_SOURCE - 1
    few = held_out_rows(data, SIDE, per_source=0)
    assert not any(few.values())


# Its figures


class OneMask:
    """Finds the same low-resolution mask, whatever it is asked."""

    device = torch.device("cpu")

    def __init__(self, mask: np.ndarray) -> None:
        self.logits = torch.from_numpy(mask).float() * 2 - 1

    def segment_phrases(self, batch: Batch) -> DecodedMasks:
        assert batch.masks is not None
        count = len(batch.masks)
        masks = self.logits.expand(count, -1, -1)
        return DecodedMasks(masks, torch.zeros(count), masks)


def left_half(side: int) -> np.ndarray:
    mask = np.zeros((side, side), bool)
    mask[:, : side // 2] = True
    return mask


@pytest.fixture
def rows() -> dict[str, list[list[Example]]]:
    """A cat on the left, a dog in the upper half, no cup; and the dog once more elsewhere."""
    nothing = np.zeros((0, SIDE, SIDE), bool)
    picture = PIL.Image.new("RGB", (SIDE, SIDE))
    cat = Example(picture, "the cat", "The cat.", left_half(SIDE)[None], phrase="cat")
    dog = replace(cat, masks=left_half(SIDE).T[None], phrase="dog")
    cup = replace(cat, masks=nothing, phrase="cup")
    return {"home": [[cat, dog, cup]], "street": [[dog]]}


def test_figures_are_means_of_each_source_and_then_of_the_sources(
    built: tuple[LisaModel, LisaProcessor], rows: dict[str, list[list[Example]]]
) -> None:
    model: Any = OneMask(left_half(SIDE // 4))
    assert iou_by_name(model, built[1], rows) == pytest.approx(
        {
            "val_iou_home": (1 + 1 / 3) / 2,
            "val_iou_street": 1 / 3,
            "val_iou": (2 / 3 + 1 / 3) / 2,
            "val_absent": 0.0,
        }
    )


def test_a_model_that_finds_nothing_refuses_every_absent_name(
    built: tuple[LisaModel, LisaProcessor], rows: dict[str, list[list[Example]]]
) -> None:
    model: Any = OneMask(np.zeros((SIDE // 4, SIDE // 4), bool))
    figures = iou_by_name(model, built[1], rows)
    assert figures["val_iou"] == 0
    assert figures["val_absent"] == 1
