"""What travels: moved whole, picked from, and what the parts promise."""

import inspect
from dataclasses import fields

import pytest
import torch

from lisa.model.interfaces import Batch, DecodedMasks, MaskDecoder, VisionLanguageModel
from lisa.model.nano import ImageFeatures, NanoDecoder
from lisa.model.vlm import NanoVlm


def batch(**others: torch.Tensor) -> Batch:
    ids = torch.zeros(1, 3, dtype=torch.long)
    return Batch(torch.zeros(1, 3, 32, 32), ids, ids.clone(), ids.clone(), **others)


def test_a_batch_moves_whole() -> None:
    targets = ("labels", "image_index", "phrase_ids", "masks", "known", "present")
    full = batch(**{name: torch.ones(1, 1) for name in targets})
    moved = full.to("meta")
    for field in fields(Batch):
        assert getattr(moved, field.name).device.type == "meta", field.name
        assert getattr(full, field.name).device.type == "cpu", field.name


def test_a_batch_without_targets_moves_without_them() -> None:
    moved = batch().to("meta")
    assert moved.input_ids.device.type == "meta"
    assert (moved.labels, moved.masks, moved.present) == (None, None, None)


@pytest.mark.parametrize(
    ("which", "kept"),
    [
        (torch.tensor([True, False, True]), [0, 2]),
        (torch.tensor([2, 0]), [2, 0]),
        (torch.zeros(3, dtype=torch.bool), []),
    ],
)
def test_masks_are_picked_with_all_that_belongs_to_them(
    which: torch.Tensor, kept: list[int]
) -> None:
    number = torch.arange(3.0)
    masks = DecodedMasks(number[:, None, None].expand(3, 4, 4), number, number[:, None, None])
    picked = masks.select(which)
    assert picked.iou_logits.tolist() == kept
    assert picked.low_res_masks[:, 0, 0].tolist() == kept
    assert picked.similarity.flatten().tolist() == kept
    assert picked.low_res_masks.shape == (len(kept), 4, 4)


def test_features_of_pictures_are_picked_with_all_that_belongs_to_them() -> None:
    count = len(fields(ImageFeatures))
    features = ImageFeatures(*(torch.arange(3.0)[:, None] + 10 * n for n in range(count)))
    picked = features.select(torch.tensor([2, 2, 0]))
    for number, field in enumerate(fields(ImageFeatures)):
        values = getattr(picked, field.name).flatten().tolist()
        assert values == [10 * number + row for row in (2, 2, 0)]


@pytest.mark.parametrize(
    ("contract", "part"), [(MaskDecoder, NanoDecoder), (VisionLanguageModel, NanoVlm)]
)
def test_the_embedded_parts_keep_their_contracts(contract: type, part: type) -> None:
    promised = [name for name in vars(contract) if not name.startswith("_")]
    assert promised
    for name in promised:
        asked = list(inspect.signature(getattr(contract, name)).parameters)
        assert list(inspect.signature(getattr(part, name)).parameters) == asked
