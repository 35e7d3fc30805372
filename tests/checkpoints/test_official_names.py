"""Names in both directions, and sizes read from shapes."""

import pytest
import torch
from transformers import SamConfig, SamModel

from helpers.official_checkpoint import CLIP, TEXT, lisa_state, llava_state, sam_state, with_lora
from lisa.checkpoints.official_names import (
    LISA_NAMES,
    LLAVA_AND_CLIP_NAMES,
    SAM_NAMES,
    Kind,
    is_computed,
    kind_of,
    llava_fields,
    merged_name,
    projector_kind,
    renamed,
    sam_fields,
)
from lisa.errors import ModelError

ROWS = 40


def shapes(state: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


@pytest.mark.parametrize(
    ("official", "ours"),
    [
        ("model.embed_tokens.weight", "vlm.model.model.language_model.embed_tokens.weight"),
        ("model.norm.weight", "vlm.model.model.language_model.norm.weight"),
        ("lm_head.weight", "vlm.model.lm_head.weight"),
        ("model.mm_projector.bias", "vlm.model.model.multi_modal_projector.bias"),
        ("model.text_hidden_fcs.0.2.bias", "head.layers.2.bias"),
        (
            "model.visual_model.image_encoder.blocks.11.norm2.bias",
            "decoder.model.vision_encoder.layers.11.layer_norm2.bias",
        ),
        (
            "model.visual_model.mask_decoder.output_hypernetworks_mlps.3.layers.1.weight",
            "decoder.model.mask_decoder.output_hypernetworks_mlps.3.layers.0.weight",
        ),
        (
            "vision_model.encoder.layers.2.mlp.fc1.bias",
            "vlm.model.model.vision_tower.encoder.layers.2.mlp.fc1.bias",
        ),
    ],
)
def test_a_name_and_back(official: str, ours: str) -> None:
    names = LISA_NAMES
    assert renamed(official, names) == ours
    assert renamed(ours, names, back=True) == official


@pytest.mark.parametrize("key", ["model.nrm.weight", "model.normal.weight", "optimizer.step", ""])
def test_a_name_that_is_not_official(key: str) -> None:
    assert renamed(key, LISA_NAMES) is None


def test_all_names_of_a_checkpoint_are_different_and_come_back() -> None:
    state = {key: value for key, value in lisa_state(ROWS).items() if not is_computed(key)}
    ours = [renamed(key, LISA_NAMES) for key in state]
    assert None not in ours
    assert len(set(ours)) == len(state)
    assert [renamed(key, LISA_NAMES, back=True) for key in ours if key] == list(state)


def test_sam_sizes_from_shapes() -> None:
    """The model of the sizes found has exactly the tensors that they were found in."""
    state = sam_state()
    with torch.device("meta"):
        model = SamModel(SamConfig(**sam_fields(shapes(state))))
    expected = shapes(model.state_dict())
    del expected["prompt_encoder.shared_embedding.positional_embedding"]
    assert {renamed(key, SAM_NAMES): shape for key, shape in shapes(state).items()} == expected
    vision = model.config.vision_config
    assert (vision.window_size, vision.global_attn_indexes) == (2, [1])
    assert (vision.image_size, vision.num_attention_heads) == (64, 2)


def test_a_missing_tensor_that_tells_a_size_is_named() -> None:
    state = shapes(sam_state())
    del state["image_encoder.pos_embed"]
    with pytest.raises(ModelError, match=r"'image_encoder.pos_embed' is missing; expected it with"):
        sam_fields(state)


def test_llava_sizes() -> None:
    fields = llava_fields(TEXT | {"rope_theta": 500.0}, CLIP, shapes(llava_state(ROWS)))
    assert fields["text_config"]["vocab_size"] == ROWS
    assert fields["text_config"]["rope_parameters"]["rope_theta"] == 500.0
    assert fields["image_seq_length"] == 4
    assert llava_fields(TEXT, {"vision_config": CLIP}, shapes(llava_state(ROWS)))[
        "vision_config"
    ] == (CLIP)
    with pytest.raises(ModelError, match=r"config.json has no 'num_hidden_layers'"):
        incomplete = {name: TEXT[name] for name in ("hidden_size", "intermediate_size")}
        llava_fields(incomplete, CLIP, shapes(llava_state(ROWS)))


def test_projectors() -> None:
    assert projector_kind(shapes(llava_state(ROWS))) == "linear"
    assert projector_kind(shapes(llava_state(ROWS, layers=2))) == "own"
    assert renamed("model.mm_projector.2.bias", LLAVA_AND_CLIP_NAMES) == (
        "model.multi_modal_projector.linear_2.bias"
    )


def test_kinds() -> None:
    assert kind_of(lisa_state(ROWS)) is Kind.lisa
    assert kind_of(with_lora(lisa_state(ROWS))) is Kind.lora
    assert kind_of(llava_state(ROWS)) is Kind.llava
    assert kind_of(sam_state()) is Kind.sam
    assert kind_of(["conv1.weight"]) is None


@pytest.mark.parametrize(
    "key",
    [
        "base_model.model.model.layers.0.self_attn.q_proj.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight",
    ],
)
def test_what_peft_puts_around_a_name_comes_off(key: str) -> None:
    assert merged_name(key) == "model.layers.0.self_attn.q_proj.weight"
