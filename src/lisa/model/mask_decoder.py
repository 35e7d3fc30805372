"""Mask decoders of the SAM family behind the contract: a prompt takes the place of a click.

Each prompt is the one sparse prompt embedding of its picture, the dense one is "no mask", and the
first mask token answers (LISA §3.2; the official code does the same). The image encoder and the
decoder are those of ``transformers``; a row of ``FAMILIES`` says how one family differs from the
next. This file knows pixels and prompts; it refuses to know text, and where prompts come from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from lisa.model.config import LisaConfig, unfit
from lisa.model.geometry import SAM_MEAN, SAM_STD
from lisa.model.interfaces import DecodedMasks
from lisa.model.pretrained import Part

SURE = 1e-4  # predicted IoUs are kept so far from 0 and 1, to have logits


@dataclass
class SamFeatures:
    """What is kept of pictures."""

    embeddings: Tensor  # [B, P, h, w]
    others: list[Tensor] = field(default_factory=list)  # B of what the family's decoder adds

    def select(self, index: Tensor) -> SamFeatures:
        """Rows ``index`` [N]."""
        return SamFeatures(self.embeddings[index], [other[index] for other in self.others])


@dataclass(frozen=True)
class Family:
    """What is particular to one family.

    Attributes:
        encode: the model and pixels [B, 3, S, S] -> features.
        extras: features -> further arguments of its decoder.
        stretched: pictures are stretched to the square; else they keep their proportions and stand
            in its upper left corner.
        mean, std: of pixels in [0, 255].
    """

    encode: Callable[[Any, Tensor], SamFeatures]
    extras: Callable[[SamFeatures], dict[str, Any]]
    stretched: bool = True
    mean: tuple[float, ...] = SAM_MEAN
    std: tuple[float, ...] = SAM_STD


class SamDecoder(Part):
    """A model of the SAM family that answers prompts.

    Args:
        config: with ``mask_decoder``.
        model: of this configuration; None: a new one with random weights.

    Raises:
        ModelError: the family is not known.
    """

    def __init__(self, config: LisaConfig, model: PreTrainedModel | None = None) -> None:
        settings = config.mask_decoder_config()
        family = family_of(settings)
        super().__init__(model or AutoModel.from_config(settings))
        self.model.mask_decoder.dynamic_multimask_via_stability = False  # one token answers
        self.family = family
        self.prompt_size: int = settings.mask_decoder_config.hidden_size

    def encode_image(self, pixel_values: Tensor) -> SamFeatures:
        """Pictures [B, 3, S, S] -> what is kept of them."""
        return self.family.encode(self.model, pixel_values.to(self.model.dtype))

    def decode(self, features: SamFeatures, prompts: Tensor, image_index: Tensor) -> DecodedMasks:
        """Prompts [N, P], prompt n about picture ``image_index[n]`` -> N masks."""
        if not len(image_index):
            return no_masks(features)
        seen = features.select(image_index)
        count = len(image_index)
        none = torch.zeros(1, dtype=torch.long, device=prompts.device)
        no_mask = self.model.prompt_encoder.no_mask_embed(none)[..., None, None]  # [1, P, 1, 1]
        places = self.model.get_image_wide_positional_embeddings()  # [1, P, h, w]
        masks, qualities, *_ = self.model.mask_decoder(
            image_embeddings=seen.embeddings,
            image_positional_embeddings=places.expand(count, -1, -1, -1),
            sparse_prompt_embeddings=prompts[:, None, None].to(seen.embeddings.dtype),
            dense_prompt_embeddings=no_mask.expand_as(seen.embeddings),
            multimask_output=False,
            **self.family.extras(seen),
        )
        low_res_masks = masks[:, 0, 0]  # [N, 4h, 4w]
        quality = qualities[:, 0, 0].float().clamp(SURE, 1 - SURE).logit()
        return DecodedMasks(low_res_masks, quality, low_res_masks.new_zeros(count, 0, 0))


def no_masks(features: SamFeatures) -> DecodedMasks:
    """The masks of no prompts; the attention of ``transformers`` needs one at least."""
    height, width = features.embeddings.shape[-2:]
    empty = features.embeddings.new_zeros
    return DecodedMasks(empty(0, 4 * height, 4 * width), empty(0), empty(0, 0, 0))


def encode_sam(model: Any, pixel_values: Tensor) -> SamFeatures:
    """SAM: one map."""
    return SamFeatures(model.vision_encoder(pixel_values).last_hidden_state)


def encode_sam_hq(model: Any, pixel_values: Tensor) -> SamFeatures:
    """SAM-HQ: also the first global block's map [B, h, w, C]."""
    seen = model.vision_encoder(pixel_values)
    return SamFeatures(seen.last_hidden_state, [seen.intermediate_embeddings[0]])


def encode_pyramid(model: Any, pixel_values: Tensor) -> SamFeatures:
    """SAM 2 and its successors: three maps, the finer ones already projected for the decoder.

    SAM 3 has a fourth, still coarser one, which its tracker does not use.
    """
    flat = model.get_image_features(pixel_values, return_dict=True).fpn_hidden_states  # [h w, B, C]
    *finer, coarse = flat[: len(model.backbone_feature_sizes)]
    used = [*finer, coarse + model.no_memory_embedding]
    maps = [
        each.permute(1, 2, 0).unflatten(2, tuple(size))
        for each, size in zip(used, model.backbone_feature_sizes, strict=True)
    ]
    return SamFeatures(maps[-1], maps[:-1])


def nothing(features: SamFeatures) -> dict[str, Any]:
    return {}


def intermediate(features: SamFeatures) -> dict[str, Any]:
    return {"intermediate_embeddings": features.others, "hq_token_only": False}


def high_resolution(features: SamFeatures) -> dict[str, Any]:
    return {"high_resolution_features": features.others}


HALF = (127.5, 127.5, 127.5)
FAMILIES = {
    "sam": Family(encode_sam, nothing, stretched=False),
    "sam_hq": Family(encode_sam_hq, intermediate, stretched=False),
    "sam2": Family(encode_pyramid, high_resolution),
    "sam3_tracker": Family(encode_pyramid, high_resolution, mean=HALF, std=HALF),
    "edgetam": Family(encode_pyramid, high_resolution),
}


def family_of(settings: PretrainedConfig) -> Family:
    """What is particular to the model of a configuration.

    Raises:
        ModelError: the family is not known.
    """
    if settings.model_type not in FAMILIES:
        raise unfit("mask_decoder.model_type", settings.model_type, ", ".join(FAMILIES))
    return FAMILIES[settings.model_type]
