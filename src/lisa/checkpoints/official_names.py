"""Names and sizes of official checkpoints: LISA v1, LLaVA, CLIP and segment-anything -> ours.

Every table pairs the beginning of an official name with the beginning of ours, ``{}`` being a
number; it is read in both directions, and the first pair that fits counts. Sizes that the official
``config.json`` leaves out are read from the shapes. This file knows names and shapes; it refuses to
know files and numbers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any

from lisa.errors import ModelError

Names = Sequence[tuple[str, str]]
Shapes = Mapping[str, tuple[int, ...]]

# Where the parts of a full-size model stand in ``LisaModel``.
VLM, DECODER, HEAD = "vlm.model.", "decoder.model.", "head.layers."
VISION_TOWER = "vision_tower"  # within the names of its tensors
PROJECTOR = "model.multi_modal_projector"  # in ``LlavaForConditionalGeneration``

SAM_NAMES: Names = (  # segment-anything, SamModel of transformers
    ("image_encoder.patch_embed.proj", "vision_encoder.patch_embed.projection"),
    ("image_encoder.blocks.{}.norm{}", "vision_encoder.layers.{}.layer_norm{}"),
    ("image_encoder.blocks", "vision_encoder.layers"),
    ("image_encoder.neck.0", "vision_encoder.neck.conv1"),
    ("image_encoder.neck.1", "vision_encoder.neck.layer_norm1"),
    ("image_encoder.neck.2", "vision_encoder.neck.conv2"),
    ("image_encoder.neck.3", "vision_encoder.neck.layer_norm2"),
    ("image_encoder", "vision_encoder"),
    (
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        "shared_image_embedding.positional_embedding",
    ),
    ("prompt_encoder.point_embeddings", "prompt_encoder.point_embed"),
    ("prompt_encoder.mask_downscaling.0", "prompt_encoder.mask_embed.conv1"),
    ("prompt_encoder.mask_downscaling.1", "prompt_encoder.mask_embed.layer_norm1"),
    ("prompt_encoder.mask_downscaling.3", "prompt_encoder.mask_embed.conv2"),
    ("prompt_encoder.mask_downscaling.4", "prompt_encoder.mask_embed.layer_norm2"),
    ("prompt_encoder.mask_downscaling.6", "prompt_encoder.mask_embed.conv3"),
    (
        "mask_decoder.transformer.layers.{}.norm{}",
        "mask_decoder.transformer.layers.{}.layer_norm{}",
    ),
    ("mask_decoder.transformer.norm_final_attn", "mask_decoder.transformer.layer_norm_final_attn"),
    ("mask_decoder.output_upscaling.0", "mask_decoder.upscale_conv1"),
    ("mask_decoder.output_upscaling.1", "mask_decoder.upscale_layer_norm"),
    ("mask_decoder.output_upscaling.3", "mask_decoder.upscale_conv2"),
    (
        "mask_decoder.output_hypernetworks_mlps.{}.layers.0",
        "mask_decoder.output_hypernetworks_mlps.{}.proj_in",
    ),
    (
        "mask_decoder.output_hypernetworks_mlps.{}.layers.1",
        "mask_decoder.output_hypernetworks_mlps.{}.layers.0",
    ),
    (
        "mask_decoder.output_hypernetworks_mlps.{}.layers.2",
        "mask_decoder.output_hypernetworks_mlps.{}.proj_out",
    ),
    ("mask_decoder.iou_prediction_head.layers.0", "mask_decoder.iou_prediction_head.proj_in"),
    ("mask_decoder.iou_prediction_head.layers.1", "mask_decoder.iou_prediction_head.layers.0"),
    ("mask_decoder.iou_prediction_head.layers.2", "mask_decoder.iou_prediction_head.proj_out"),
    ("prompt_encoder", "prompt_encoder"),
    ("mask_decoder", "mask_decoder"),
)
LLAVA_NAMES: Names = (  # LLaVA as its authors published it, LlavaForConditionalGeneration
    ("model.mm_projector.0", f"{PROJECTOR}.linear_1"),
    ("model.mm_projector.2", f"{PROJECTOR}.linear_2"),
    ("model.mm_projector", PROJECTOR),
    ("model.embed_tokens", "model.language_model.embed_tokens"),
    ("model.layers", "model.language_model.layers"),
    ("model.norm", "model.language_model.norm"),
    ("lm_head", "lm_head"),
)
CLIP_NAMES: Names = (("vision_model", f"model.{VISION_TOWER}"),)
LLAVA_AND_CLIP_NAMES: Names = (*LLAVA_NAMES, *CLIP_NAMES)
LISA_NAMES: Names = (
    ("model.text_hidden_fcs.0", HEAD.removesuffix(".")),
    *((f"model.visual_model.{official}", f"{DECODER}{ours}") for official, ours in SAM_NAMES),
    *((official, f"{VLM}{ours}") for official, ours in LLAVA_AND_CLIP_NAMES),
)

# Stored by older versions of transformers, and computed today.
COMPUTED = r".*\.rotary_emb\.inv_freq|.*\.embeddings\.position_ids"
PEFT_PREFIX = "base_model.model."
LORA = re.compile(r"(.*)\.lora_([AB])(?:\.default)?\.weight")


class Kind(StrEnum):
    """What a state dict of another project is."""

    lisa = "official LISA"
    lora = "unmerged training output"
    llava = "LLaVA base"
    sam = "SAM"


def kind_of(keys: Collection[str]) -> Kind | None:
    """What these are the names of; None: nothing that we know."""
    if any(LORA.fullmatch(key) or key.startswith(PEFT_PREFIX) for key in keys):
        return Kind.lora
    if any(key.startswith(("model.visual_model.", "model.text_hidden_fcs.")) for key in keys):
        return Kind.lisa
    if any(key.startswith("model.mm_projector.") for key in keys):
        return Kind.llava
    return Kind.sam if any(key.startswith("image_encoder.") for key in keys) else None


def renamed(key: str, names: Names, *, back: bool = False) -> str | None:
    """``key`` in our spelling, or with ``back`` the official spelling of ours; None: no pair fits.

    >>> renamed("image_encoder.blocks.3.norm1.weight", SAM_NAMES)
    'vision_encoder.layers.3.layer_norm1.weight'
    """
    for pair in names:
        ours, theirs = pair if back else pair[::-1]
        pattern = re.escape(theirs).replace(r"\{\}", r"(\d+)")
        if found := re.match(rf"{pattern}(?=\.|$)", key):
            return ours.format(*found.groups()) + key[found.end() :]
    return None


def is_computed(key: str) -> bool:
    """Whether a stored tensor is one that today's code computes."""
    return re.fullmatch(COMPUTED, key) is not None


def merged_name(key: str) -> str:
    """A key of a model under PEFT, without what PEFT puts around it."""
    return key.removeprefix(PEFT_PREFIX).replace(".base_layer.", ".")


# ------------------------------------------------------------------------------ sizes


def sam_fields(shapes: Shapes) -> dict[str, Any]:
    """The fields of a ``SamConfig``, from the shapes of a segment-anything state dict.

    Raises:
        ModelError: a tensor that tells a size is missing; the message names it.
    """
    _, grid, _, width = shape_of(shapes, "image_encoder.pos_embed", 4)
    _, channels, patch, _ = shape_of(shapes, "image_encoder.patch_embed.proj.weight", 4)
    inner, _ = shape_of(shapes, "image_encoder.blocks.0.mlp.lin1.weight", 2)
    prompt, *_ = shape_of(shapes, "image_encoder.neck.0.weight", 4)
    between, _ = shape_of(shapes, "mask_decoder.transformer.layers.0.mlp.lin1.weight", 2)
    quality, _ = shape_of(shapes, "mask_decoder.iou_prediction_head.layers.0.weight", 2)
    reach = [
        shape_of(shapes, f"image_encoder.blocks.{n}.attn.rel_pos_h", 2)
        for n in range(count_layers(shapes, "image_encoder.blocks"))
    ]
    everywhere = [n for n, (length, _) in enumerate(reach) if length == 2 * grid - 1]
    windows = [length for length, _ in reach if length != 2 * grid - 1]
    return {
        "model_type": "sam",
        "vision_config": {
            "hidden_size": width,
            "output_channels": prompt,
            "num_hidden_layers": len(reach),
            "num_attention_heads": width // reach[0][1],
            "num_channels": channels,
            "image_size": grid * patch,
            "patch_size": patch,
            "window_size": (windows[0] + 1) // 2 if windows else 0,
            "global_attn_indexes": everywhere,
            "mlp_dim": inner,
            "mlp_ratio": inner / width,
            "num_pos_feats": prompt // 2,
        },
        "prompt_encoder_config": {
            "hidden_size": prompt,
            "image_size": grid * patch,
            "patch_size": patch,
            "image_embedding_size": grid,
        },
        "mask_decoder_config": {
            "hidden_size": prompt,
            "mlp_dim": between,
            "iou_head_hidden_dim": quality,
        },
    }


STANDARD_CLIP = {  # ViT-L/14, the tower of every published LISA
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "projection_dim": 768,
}
ANY_CLIP = {  # stands in for a tower of which only the width matters
    "image_size": 224,
    "patch_size": 14,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
}
LLAMA_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "rms_norm_eps",
    "max_position_embeddings",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)


def llava_fields(
    config: Mapping[str, Any], clip: Mapping[str, Any], shapes: Shapes
) -> dict[str, Any]:
    """The fields of a ``LlavaConfig``.

    Args:
        config: the official ``config.json``.
        clip: that of the CLIP vision tower.
        shapes: of the official state dict.

    Raises:
        ModelError: a field or tensor that tells a size is missing, or this cannot be LLaVA.
    """
    vocabulary, _ = shape_of(shapes, "model.embed_tokens.weight", 2)
    missing = [name for name in LLAMA_FIELDS[:4] if name not in config]
    if missing:
        raise ModelError(f"the official config.json has no '{missing[0]}'; expected LLaMA's fields")
    text = {name: config[name] for name in LLAMA_FIELDS if name in config}
    theta = float(config.get("rope_theta", 10000.0))
    text |= {
        "model_type": "llama",
        "vocab_size": vocabulary,
        "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
    }
    vision = dict(clip.get("vision_config", clip)) | {"model_type": "clip_vision_model"}
    return {
        "model_type": "llava",
        "text_config": text,
        "vision_config": vision,
        "vision_feature_layer": config.get("mm_vision_select_layer", -2),
        "vision_feature_select_strategy": "default",  # every patch, and not the class token
        "image_seq_length": (vision["image_size"] // vision["patch_size"]) ** 2,
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True,
        "image_token_index": vocabulary,  # no row of the table: the official code writes -200
        "tie_word_embeddings": False,
    }


def projector_kind(shapes: Shapes) -> str:
    """ "linear" (LLaVA 1.0, LISA) or "own" (LLaVA 1.5: two layers)."""
    return "own" if "model.mm_projector.2.weight" in shapes else "linear"


def count_layers(shapes: Shapes, prefix: str) -> int:
    """How many numbered blocks stand under ``prefix``."""
    found = (re.match(rf"{re.escape(prefix)}\.(\d+)\.", key) for key in shapes)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def shape_of(shapes: Shapes, key: str, dimensions: int) -> tuple[int, ...]:
    """The shape of a tensor that must be there.

    Raises:
        ModelError: it is not there, or has another number of dimensions.
    """
    shape = shapes.get(key)
    if shape is None or len(shape) != dimensions:
        found = "missing" if shape is None else f"{list(shape)}"
        raise ModelError(f"'{key}' is {found}; expected it with {dimensions} dimensions")
    return shape
