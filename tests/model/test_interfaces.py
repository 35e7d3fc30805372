"""What travels: moved whole, picked from, and what the parts promise."""

import inspect
from dataclasses import fields

import pytest
import torch

from lisa.model.interfaces import (
    Batch,
    DecodedMasks,
    MaskDecoder,
    Pictures,
    VisionLanguageModel,
)
from lisa.model.mask_decoder import SamDecoder
from lisa.model.vlm import HfVlm
from lisa.nano.model.decoder import ImageFeatures, NanoDecoder
from lisa.nano.model.vlm import NanoVlm


def batch(**others: torch.Tensor) -> Batch:
    ids = torch.zeros(1, 3, dtype=torch.long)
    return Batch(torch.zeros(1, 3, 32, 32), ids, ids.clone(), ids.clone(), **others)


def devices(value: object) -> set[str]:
    """The kinds of devices of all tensors in a field."""
    if isinstance(value, torch.Tensor):
        return {value.device.type}
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return set().union(*map(devices, inside))


@pytest.mark.parametrize("kind", [Batch, Pictures])
def test_all_tensors_move(kind: type) -> None:
    one = torch.ones(1, 1)
    lists = {"vlm_inputs": [{"pixel_values": one}], "full_masks": [one], "picture_ids": [[1]]}
    lists["sizes"] = [(1, 2)]
    if kind is Batch:
        lists["vlm_inputs"] = {"pixel_values": one}
    full = kind(**{field.name: lists.get(field.name, one) for field in fields(kind)})
    moved = full.to("meta")
    for field in fields(kind):
        before, after = getattr(full, field.name), getattr(moved, field.name)
        if devices(before):
            assert (devices(before), devices(after)) == ({"cpu"}, {"meta"}), field.name
        else:
            assert before == after


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
    ("contract", "part"),
    [
        (MaskDecoder, NanoDecoder),
        (MaskDecoder, SamDecoder),
        (VisionLanguageModel, NanoVlm),
        (VisionLanguageModel, HfVlm),
    ],
)
def test_the_parts_keep_their_contracts(contract: type, part: type) -> None:
    promised = [name for name in vars(contract) if not name.startswith("_")]
    assert promised
    for name in promised:
        asked = list(inspect.signature(getattr(contract, name)).parameters)
        assert list(inspect.signature(getattr(part, name)).parameters) == asked
