"""The tower and the mask decoder against plain formulas."""

import math

import pytest
import torch
from torch import Tensor

from helpers.lively_model import matrices, settle
from helpers.published_tower import published_forward, published_state
from lisa.model.config import TINY_DECODER_SIZES
from lisa.nano.model.decoder import (
    PRIOR_BIAS,
    Attention,
    FourierPosition,
    ImageFeatures,
    NanoDecoder,
    location_logits,
)
from lisa.nano.model.starting_weights import tower_key
from lisa.nano.model.tower import VisionTower

PROMPT_SIZE = 16


@pytest.fixture(scope="module")
def decoder() -> NanoDecoder:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        decoder = NanoDecoder(prompt_size=PROMPT_SIZE, **TINY_DECODER_SIZES)
        settle(decoder.tower, 64)
        for name, part in decoder.named_children():
            if name not in ("tower", "neck"):
                for matrix in matrices(part):
                    matrix.normal_(std=0.3)
    return decoder.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def features(decoder: NanoDecoder) -> ImageFeatures:
    """Of three pictures, 64 high and 96 wide."""
    torch.manual_seed(1)
    return decoder.encode_image(torch.rand(3, 3, 64, 96) * 2 - 1)


# ------------------------------------------------------------------------ tower


def test_the_tower_computes_what_the_published_weights_say() -> None:
    state = {key: value.double() for key, value in published_state().items()}
    tower = VisionTower().eval().double()
    tower.load_state_dict({tower_key(key): value for key, value in state.items()})
    pixels = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1)).double() * 2 - 1
    with torch.no_grad():
        seen = tower(pixels)
    maps, head = published_forward(state, pixels)
    for name, stage in (("stride4", 1), ("stride8", 2), ("stride16", 4)):
        torch.testing.assert_close(getattr(seen, name), maps[stage], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(seen.stride32, torch.cat([maps[6], head], 1), rtol=1e-9, atol=1e-12)
    logits = (
        torch.einsum("bchw,kc->bkhw", head, state["_fc.weight"]) + state["_fc.bias"][:, None, None]
    )
    torch.testing.assert_close(seen.semantic, logits.softmax(1), rtol=1e-9, atol=1e-12)


def test_the_towers_maps_have_their_strides(features: ImageFeatures) -> None:
    assert features.stride4.shape == (3, 24, 16, 24)
    assert features.stride8.shape == (3, 40, 8, 12)
    assert features.fused.shape == (3, 32, 4, 6)
    assert features.context.shape == (3, 32, 2, 3)
    assert features.keys.shape == (3, PROMPT_SIZE, 2, 3)
    assert features.semantic.shape == (3, 1000, 2, 3)
    torch.testing.assert_close(features.semantic.sum(1), torch.ones(3, 2, 3))


def test_pictures_side_by_side_are_encoded_as_each_alone(decoder: NanoDecoder) -> None:
    pixels = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(2)) * 2 - 1
    together = decoder.encode_image(pixels)
    for number in range(3):
        alone = decoder.encode_image(pixels[number : number + 1])
        row = together.select(torch.tensor([number]))
        for name in ("stride4", "stride8", "fused", "context", "keys", "semantic"):
            torch.testing.assert_close(
                getattr(row, name), getattr(alone, name), rtol=1e-4, atol=1e-5
            )


# ---------------------------------------------------------------------- geometry


def test_here_logits_add_the_odds_of_two_scaled_dot_products() -> None:
    keys = torch.randn(2, 6, 3, 4, generator=torch.Generator().manual_seed(0))
    prompts = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(1))
    logits = location_logits(keys, prompts)
    assert logits.shape == (2, 6, 3, 4)
    for n, m, h, w in [(0, 0, 0, 0), (1, 5, 2, 3), (0, 3, 1, 2), (1, 2, 0, 3)]:
        learnt, known = (
            sum(float(keys[n, p, h, w]) * float(prompts[n, m, p]) for p in half) / math.sqrt(3)
            for half in (range(3), range(3, 6))
        )
        odds = math.exp(learnt + PRIOR_BIAS) + math.exp(known + PRIOR_BIAS)
        assert float(logits[n, m, h, w]) == pytest.approx(math.log(odds), abs=1e-5)


def test_before_training_a_thing_is_rarely_here() -> None:
    assert torch.sigmoid(torch.tensor(PRIOR_BIAS)) == pytest.approx(0.05, abs=0.005)


def test_positions_are_fourier_features_of_pixel_centres_row_by_row() -> None:
    position = FourierPosition(8)
    codes = position(2, 3)
    assert codes.shape == (6, 8)
    for row, column in [(0, 0), (0, 2), (1, 1)]:
        place = torch.tensor([(row + 0.5) / 2 * 2 - 1, (column + 0.5) / 3 * 2 - 1])  # y, x
        angles = [2 * math.pi * float(place @ position.frequencies[:, k]) for k in range(4)]
        expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        torch.testing.assert_close(
            codes[row * 3 + column], torch.tensor(expected), rtol=1e-4, atol=1e-5
        )


def test_positions_do_not_depend_on_the_random_state() -> None:
    torch.manual_seed(1)
    one = FourierPosition(8)
    torch.manual_seed(2)
    assert torch.equal(one.frequencies, FourierPosition(8).frequencies)


def test_attention_is_softmax_of_scaled_products_for_each_head() -> None:
    torch.manual_seed(0)
    attention = Attention(8, 2)
    query, other = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    q, k, v = attention.query(query)[0], attention.key(other)[0], attention.value(other)[0]
    heads = [
        (q[:, part] @ k[:, part].T / math.sqrt(2)).softmax(-1) @ v[:, part]
        for part in (slice(0, 2), slice(2, 4))
    ]
    expected = attention.output(torch.cat(heads, -1))
    torch.testing.assert_close(attention(query, other, other)[0], expected, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------- decoding


def some_prompts(count: int) -> Tensor:
    return torch.randn(count, PROMPT_SIZE, generator=torch.Generator().manual_seed(3))


def test_one_prompt_gives_one_mask(decoder: NanoDecoder, features: ImageFeatures) -> None:
    masks = decoder.decode(features, some_prompts(5), torch.tensor([0, 0, 2, 1, 0]))
    assert masks.low_res_masks.shape == (5, 16, 24)
    assert masks.iou_logits.shape == (5,)
    assert masks.similarity.shape == (5, 2, 3)


def test_a_prompt_is_answered_as_if_it_were_the_only_one(
    decoder: NanoDecoder, features: ImageFeatures
) -> None:
    prompts, index = some_prompts(4), torch.tensor([2, 0, 0, 1])
    together = decoder.decode(features, prompts, index)
    for number in range(4):
        picture = features.select(index[number : number + 1])
        alone = decoder.decode(picture, prompts[number : number + 1], torch.tensor([0]))
        row = together.select(torch.tensor([number]))
        for name in ("low_res_masks", "iou_logits", "similarity"):
            torch.testing.assert_close(
                getattr(row, name), getattr(alone, name), rtol=1e-4, atol=1e-4
            )


def test_masks_depend_on_the_picture_and_on_the_prompt(
    decoder: NanoDecoder, features: ImageFeatures
) -> None:
    prompts = some_prompts(2)
    masks = decoder.decode(features, prompts[[0, 0, 1]], torch.tensor([0, 1, 0])).low_res_masks
    assert (masks[0] - masks[1]).abs().max() > 0.01
    assert (masks[0] - masks[2]).abs().max() > 0.01


def test_similarity_is_where_the_keys_agree_with_the_prompt(
    decoder: NanoDecoder, features: ImageFeatures
) -> None:
    prompts = some_prompts(1)
    decoded = decoder.decode(features, prompts, torch.tensor([1]))
    expected = location_logits(features.keys[1:2], prompts[:, None])[:, 0]
    torch.testing.assert_close(decoded.similarity, expected)


def test_no_prompt_gives_no_mask(decoder: NanoDecoder, features: ImageFeatures) -> None:
    masks = decoder.decode(features, some_prompts(0), torch.zeros(0, dtype=torch.long))
    assert masks.low_res_masks.shape == (0, 16, 24)
    assert masks.iou_logits.shape == (0,)
    assert masks.similarity.shape == (0, 2, 3)
