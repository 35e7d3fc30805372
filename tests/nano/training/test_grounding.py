"""The stage "eyes" on a tiny model: what it trains, what it sees, what its figures mean."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from helpers.tiny_model import tiny_model
from helpers.training_data import (
    PHOTOS_A_SOURCE,
    SIDE,
    SOURCES,
    content,
    learn,
    write_training_data,
)
from lisa.data.stream import Stream
from lisa.example import Example
from lisa.model.interfaces import Batch, DecodedMasks
from lisa.model.lisa import LisaModel
from lisa.nano.data.imagenet import imagenet_classes, word_table
from lisa.nano.data.photos import LabelledPhotos
from lisa.nano.data.sources import Photos
from lisa.nano.model.decoder import PRIOR_BIAS
from lisa.nano.model.processor import LisaProcessor, pad
from lisa.nano.training.grounding import (
    EyesTask,
    WordTable,
    eyes_stream,
    held_out_rows,
    iou_by_name,
    labelled_names,
    learn_words,
    worth_a_mask,
)
from lisa.nano.training.losses import MaskLossWeights, mask_loss

SAMPLES = 60  # enough to see synonyms and cut-outs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def built() -> tuple[LisaModel, LisaProcessor]:
    return tiny_model()


def repeated_batch(data: Path, processor: LisaProcessor, pictures: int = 3) -> Batch:
    made = stream(data)
    return processor.encode([example for i in range(pictures) for example in made[i]])


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


def questions(present: Sequence[bool | None]) -> list[Example]:
    """Names that are there, are not, or are somewhere (None); half of each of two pictures."""
    half = left_half(SIDE)[None]
    masks = {True: half, False: half[:0], None: None}
    pictures = [PIL.Image.new("RGB", (SIDE, SIDE), colour) for colour in ("gray", "navy")]
    return [
        Example(
            pictures[2 * number // len(present)],
            "where?",
            "There.",
            masks[there],
            phrase=f"thing {number}",
        )
        for number, there in enumerate(present)
    ]


def test_losses_are_those_of_masks_of_what_is_nowhere_and_of_what_is_somewhere(
    built: tuple[LisaModel, LisaProcessor],
) -> None:
    model, processor = built
    weights = MaskLossWeights(bce=1, dice=1, quality=1, here=3)
    present = [False, True, *[False] * 20, True, None, None]
    batch = processor.encode(questions(present))
    with torch.no_grad():
        actual = EyesTask(model, weights)(batch)
        assert batch.masks is not None
        decoded = model.segment_phrases(batch)
    some = torch.tensor([0, 1, 17, 22])  # what is there, the first absent name and the 17th
    expected = mask_loss(decoded.select(some), batch.masks[some], weights)
    here = decoded.similarity.sigmoid()
    nowhere = here[[n for n, there in enumerate(present) if there is False]]
    expected["denied"] = 3 * -torch.log(1 - nowhere).mean()
    expected["somewhere"] = -0.2 * (here[-1].max().log() + here[-2].max().log()) / 2
    assert {k: float(v) for k, v in actual.items()} == pytest.approx(
        {k: float(v) for k, v in expected.items()}, rel=1e-4
    )


@pytest.mark.parametrize(
    "present",
    [[True, True], [False, False], [None, False]],
    ids=["present", "absent", "somewhere"],
)
def test_a_batch_of_one_sort_has_finite_losses(
    built: tuple[LisaModel, LisaProcessor], present: list[bool | None]
) -> None:
    model, processor = built
    losses = EyesTask(model)(processor.encode(questions(present)))
    sum(losses.values(), torch.zeros(())).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert (losses["denied"].item() > 0) == (False in present)
    assert (losses["dice"].item() > 0) == (True in present)
    assert (losses["somewhere"].item() > 0) == (None in present)


@given(st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=80))
def test_all_masks_are_decoded_and_one_absent_name_in_sixteen(
    present: list[bool | None],
) -> None:
    there = torch.tensor([one is not False for one in present])
    known = torch.tensor([one is not None for one in present])
    decoded = list(zip(present, worth_a_mask(there, known).tolist(), strict=True))
    assert all(worth for one, worth in decoded if one)
    assert not any(worth for one, worth in decoded if one is None)
    absent = [worth for one, worth in decoded if one is False]
    assert absent == [number % 16 == 0 for number in range(len(absent))]


# Words alone


def test_the_table_of_words_is_compared_word_by_word(
    built: tuple[LisaModel, LisaProcessor],
) -> None:
    """Binary cross-entropy over all classes, of each word."""
    model, processor = built
    table = WordTable.of(model, processor)
    words, truth = word_table(imagenet_classes())
    assert len(table.embeddings) == len(words)
    few = [words.index(word) for word in ("cat", "tub", "animal")]
    some = WordTable(table.embeddings[few], table.truth[few])
    with torch.no_grad():
        phrase_ids = pad([processor.phrase_ids(words[n]) for n in few], -1)
        p = word_logits(model, phrase_ids).double().sigmoid().numpy()
        wrong = -np.where(truth[few], np.log(p), np.log(1 - p)).sum(1)
        assert float(some.loss(model)) == pytest.approx(wrong.mean(), rel=1e-3)
        single = {round(float(some.loss(model, 1)), 2) for _ in range(40)}
    assert sorted(single) == pytest.approx(sorted(wrong), rel=1e-3)


def word_logits(model: LisaModel, phrase_ids: Tensor) -> Tensor:
    """How true each phrase is of each class [N, 1000]."""
    prompts = model.phrase_prompts(phrase_ids)
    keys = model.decoder.neck.semantic_keys.weight  # [P/2, 1000]
    return prompts[:, len(keys) :] @ keys / np.sqrt(len(keys)) + PRIOR_BIAS


def test_learn_words_teaches_that_cat_is_true_of_a_tabby(
    built: tuple[LisaModel, LisaProcessor],
) -> None:
    model, processor = built
    table = WordTable.of(model, processor)
    first = learn_words(model, table, steps=1)
    last = learn_words(model, table, steps=30)
    assert last < first
    words, truth = word_table(imagenet_classes())
    with torch.no_grad():
        logits = word_logits(model, pad([processor.phrase_ids(word) for word in words], -1))
    assert logits[truth].mean() > logits[~truth].mean()


def test_learn_words_leaves_the_language_model_alone(
    built: tuple[LisaModel, LisaProcessor],
) -> None:
    model, processor = built
    before = {name: value.clone() for name, value in model.state_dict().items()}
    learn_words(model, WordTable.of(model, processor), steps=1)
    owners = ("decoder.neck.semantic_keys.", "vlm.projector.name_prompt.")
    assert changed(model, before)
    assert all(name.startswith(owners) for name in changed(model, before))


def test_words_are_rehearsed_while_photographs_are_learnt(
    built: tuple[LisaModel, LisaProcessor],
) -> None:
    model, processor = built
    task = EyesTask(model)
    plain = task.state_dict().keys()
    task.words = WordTable.of(model, processor)
    losses = task(processor.encode(questions([True, False])))
    with torch.no_grad():
        every = float(task.words.loss(model))
    assert float(losses["words"].detach()) == pytest.approx(0.1 * every, rel=0.3)  # of some
    losses["words"].backward()
    assert model.decoder.neck.semantic_keys.weight.grad is not None
    assert task.state_dict().keys() == plain


# What it sees


def stream(data: Path, seed: int = 0) -> Stream:
    return Stream(eyes_stream(data, Photos(data), SIDE, 4, 2), 100, seed)


def test_the_same_seed_and_number_give_the_same_sample(data: Path) -> None:
    def sample(seed: int, index: int) -> list[tuple[str, str | None, bytes, bytes]]:
        return [*map(content, stream(data, seed)[index])]

    assert sample(3, 7) == sample(3, 7)
    assert sample(3, 7) != sample(3, 8)
    assert sample(3, 7) != sample(4, 7)


def test_a_sample_asks_names_of_one_square_view(data: Path) -> None:
    made = stream(data)
    samples = [made[i] for i in range(SAMPLES)]
    for examples in samples:
        assert examples
        assert all(e.image is examples[0].image and e.image.size == (SIDE, SIDE) for e in examples)
    asked = {e.phrase for examples in samples for e in examples}
    assert "cat" in asked
    assert asked & {"kitty", "feline"}  # synonyms of "cat"
    assert "trumpet" in asked  # pasted on
    labelled = [any(e.masks is None for e in examples) for examples in samples]
    assert 0 < sum(labelled) < 0.3 * SAMPLES


def test_without_labelled_photographs_every_mask_is_known(data: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for source in SOURCES:
        (tmp_path / "photos" / source).symlink_to(data / "photos" / source)
    made = stream(tmp_path)
    assert not [e for i in range(SAMPLES) for e in made[i] if e.masks is None]


@pytest.mark.parametrize("seed", range(6))
def test_a_labelled_photograph_shows_its_kinds_somewhere_and_other_labels_nowhere(
    data: Path, seed: int
) -> None:
    folder = LabelledPhotos(data / "photos" / "imagelevel_imagenet1000")  # a cat and a banana
    classes = {
        "cat": ("cat", "feline", "carnivore", "animal"),
        "banana": ("banana",),
        "tabby": ("tabby", "cat"),
        "tub": ("tub",),
    }
    made = labelled_names(folder, classes, np.random.default_rng(seed), SIDE, 3)
    there = {e.phrase for e in made if e.masks is None}
    nowhere = {e.phrase for e in made if e.masks is not None}
    assert there == {"banana"} or (len(there) == 2 and there < {"cat", "feline", "carnivore"})
    assert nowhere <= classes.keys() - {"banana" if "banana" in there else "cat"}
    assert 2 <= len(nowhere) <= 3
    assert not any(e.mask.any() for e in made if e.masks is not None)
    assert all(e.image is made[0].image and e.image.size == (SIDE, SIDE) for e in made)


def test_held_out_rows_are_whole_photographs_that_training_leaves_out(data: Path) -> None:
    rows = held_out_rows(data, SIDE)
    assert rows.keys() == SOURCES.keys()
    photos = Photos(data, "all")
    for source, kept in rows.items():
        assert len(kept) == 1  # the first of each source
        first = np.asarray(photos.folders[source][0].image)
        assert np.array_equal(np.asarray(kept[0][0].image), first)
        assert len(Photos(data).folders[source]) == PHOTOS_A_SOURCE - 1
    present = {bool(e.mask.any()) for kept in rows.values() for row in kept for e in row}
    assert present == {True, False}  # both are measured
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
