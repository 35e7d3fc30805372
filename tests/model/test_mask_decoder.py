"""Decoders of the SAM family: a prompt for a mask, about the picture that it belongs to."""

import importlib.util

import pytest
import torch
from torch import Tensor

from helpers.parts import DECODERS, decoder_fields, vlm_fields
from lisa.errors import ModelError
from lisa.model.config import LisaConfig
from lisa.model.interfaces import DecodedMasks
from lisa.model.mask_decoder import SURE, SamDecoder, SamFeatures


def config(family: str) -> LisaConfig:
    return LisaConfig.from_parts(vlm_fields("llava"), decoder_fields(family))


@pytest.fixture(scope="module", params=DECODERS)
def decoder(request: pytest.FixtureRequest) -> SamDecoder:
    torch.manual_seed(0)
    made = SamDecoder(config(request.param)).eval()
    for parameter in made.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.2)  # masks that are more than noise
    return made


def pictures(decoder: SamDecoder, count: int = 2) -> Tensor:
    side = config(decoder.model.config.model_type).image_size
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def assert_same(one: DecodedMasks, other: DecodedMasks) -> None:
    torch.testing.assert_close(one.low_res_masks, other.low_res_masks, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one.iou_logits, other.iou_logits, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_prompts_together_are_prompts_alone(decoder: SamDecoder) -> None:
    pixels, prompts = pictures(decoder), torch.randn(3, decoder.prompt_size)
    index = torch.tensor([1, 0, 1])
    together = decoder.decode(decoder.encode_image(pixels), prompts, index)
    assert together.low_res_masks.shape == (3, 16, 16)
    for number, picture in enumerate(index):
        features = decoder.encode_image(pixels[picture : picture + 1])
        alone = decoder.decode(features, prompts[number : number + 1], torch.tensor([0]))
        assert_same(alone, together.select(torch.tensor([number])))


@torch.no_grad()
def test_picture_and_prompt_both_matter(decoder: SamDecoder) -> None:
    features, prompts = decoder.encode_image(pictures(decoder)), torch.randn(2, decoder.prompt_size)
    twice = prompts[[0, 0, 1]]
    masks = decoder.decode(features, twice, torch.tensor([0, 1, 0])).low_res_masks
    assert (masks[0] - masks[1]).abs().max() > 1e-3
    assert (masks[0] - masks[2]).abs().max() > 1e-3


@torch.no_grad()
def test_no_prompts_no_masks(decoder: SamDecoder) -> None:
    features = decoder.encode_image(pictures(decoder))
    none = decoder.decode(features, torch.zeros(0, decoder.prompt_size), torch.zeros(0).long())
    assert none.low_res_masks.shape == (0, 16, 16)
    assert none.iou_logits.shape == (0,)


@torch.no_grad()
def test_qualities_are_probabilities(decoder: SamDecoder) -> None:
    features = decoder.encode_image(pictures(decoder))
    prompts = 10 * torch.randn(4, decoder.prompt_size)
    masks = decoder.decode(features, prompts, torch.zeros(4).long())
    assert ((masks.iou_logits.sigmoid() >= SURE / 2) & masks.iou_logits.isfinite()).all()


@torch.no_grad()
def test_training_and_evaluation_take_the_same_mask(decoder: SamDecoder) -> None:
    """SAM 2 takes another token's mask in evaluation where the first is unsure."""
    features, prompts = decoder.encode_image(pictures(decoder)), torch.randn(4, decoder.prompt_size)
    index = torch.tensor([0, 1, 0, 1])
    evaluated = decoder.decode(features, prompts, index)
    decoder.train()
    trained = decoder.decode(features, prompts, index)
    decoder.eval()
    assert_same(evaluated, trained)


def test_features_are_picked_with_all_that_belongs_to_them() -> None:
    numbers = torch.arange(3.0)[:, None]
    picked = SamFeatures(numbers, [numbers + 10]).select(torch.tensor([2, 0]))
    assert picked.embeddings.flatten().tolist() == [2, 0]
    assert picked.others[0].flatten().tolist() == [12, 10]


def test_an_unknown_family_is_named() -> None:
    fields = decoder_fields("sam")
    made = config("sam")
    made.mask_decoder = fields | {"model_type": "llama"}
    with pytest.raises(ModelError, match=r"mask_decoder.model_type is 'llama'; expected sam"):
        SamDecoder(made)


def test_a_missing_package_is_named() -> None:
    """EdgeTAM's published backbone is one of timm."""
    made = config("edgetam")
    assert made.mask_decoder is not None
    made.mask_decoder["vision_config"]["backbone_config"] = {"model_type": "timm_wrapper"}
    if importlib.util.find_spec("timm") is None:
        with pytest.raises(ModelError, match="requires the timm library"):
            SamDecoder(made)
