"""How precisely and where: what may be asked for, which part is which, what is quantised."""

import importlib.util

import pytest
import torch
from torch import nn

from full_size_parts import LAYERS, FullSize
from lisa.errors import ModelError
from lisa.model.precision import (
    Precision,
    bitsandbytes_config,
    kept_layers,
    part_of,
    quantised_layers,
)


@pytest.fixture
def model() -> FullSize:
    with torch.device("meta"):
        return FullSize()


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"dtype": "int8"}, "dtype is 'int8'; expected float32"),
        ({"quantize": "2bit"}, "quantize is '2bit'; expected 8bit, 4bit"),
        ({"device_map": "everywhere"}, "device_map is 'everywhere'; expected auto"),
    ],
)
def test_what_nobody_knows_is_refused_by_name(asked: dict[str, str], named: str) -> None:
    with pytest.raises(ModelError, match=named):
        Precision(**asked)


def test_formats_have_defaults_that_fit_what_is_asked() -> None:
    assert Precision().torch_dtype == torch.float32 and Precision().plain
    assert Precision(dtype="fp32").plain
    assert Precision(dtype="fp16").torch_dtype == torch.float16
    assert not Precision(dtype="fp16").plain
    quantised = Precision(quantize="4bit")
    assert quantised.torch_dtype == torch.bfloat16 and not quantised.plain
    assert not Precision(device_map={"": "cpu"}).plain


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("head.layers.0.weight", "projector and head"),
        ("decoder.tower.blocks.0.weight", "image encoder"),
        ("decoder.vision_encoder.neck.conv1.weight", "image encoder"),
        ("decoder.sam.vision_encoder.layers.0.attn.qkv.weight", "image encoder"),
        ("decoder.mask_decoder.iou_token.weight", "mask decoder"),
        ("vlm.model.vision_tower.encoder.layers.0.mlp.fc1.weight", "vision tower"),
        ("vlm.model.visual.blocks.0.attn.qkv.weight", "vision tower"),
        ("vlm.model.visual.merger.mlp.0.weight", "projector and head"),
        ("vlm.model.multi_modal_projector.linear_1.weight", "projector and head"),
        ("vlm.model.connector.modality_projection.proj.weight", "projector and head"),
        ("vlm.model.language_model.layers.0.mlp.up_proj.weight", "language model"),
        ("vlm.lm_head.weight", "language model"),
    ],
)
def test_every_familys_names_are_put_in_their_part(name: str, part: str) -> None:
    assert part_of(name) == part


def test_only_the_layers_of_the_language_model_are_quantised(model: FullSize) -> None:
    kinds = ["self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o"]
    kinds += ["mlp.gate", "mlp.up", "mlp.down"]
    assert sorted(quantised_layers(model)) == sorted(
        f"vlm.model.language_model.layers.{number}.{kind}_proj"
        for number in range(LAYERS)
        for kind in kinds
    )


def test_every_other_linear_layer_is_kept(model: FullSize) -> None:
    kept = set(kept_layers(model))
    assert kept >= {"vlm.lm_head", "head.0", "vlm.model.multi_modal_projector.linear_1"}
    assert not kept & set(quantised_layers(model))
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert kept | set(quantised_layers(model)) == linear


def test_nothing_is_quantised_unless_it_is_asked_for(model: FullSize) -> None:
    assert bitsandbytes_config(model, Precision(dtype="bf16")) is None


def test_a_missing_package_is_named_with_its_cure(
    model: FullSize, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"needs bitsandbytes.*lisa-seg\[quantise\]"):
        bitsandbytes_config(model, Precision(quantize="8bit"))


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_the_quantiser_is_told_what_to_keep(model: FullSize, bits: str) -> None:
    pytest.importorskip("bitsandbytes")
    config = bitsandbytes_config(model, Precision(quantize=bits))
    assert config is not None and set(config.llm_int8_skip_modules) == set(kept_layers(model))
    assert (config.load_in_8bit, config.load_in_4bit) == (bits == "8bit", bits == "4bit")
