"""What travels between the stations, and the two contracts of the model's parts.

``Batch`` goes into the model and ``Output`` comes out. A row of a batch is one picture with all the
questions about it: the picture's tokens stand first, the questions follow, and no question sees
another (``segments``). This file knows shapes; it computes nothing.

Letters: B pictures, T tokens in the longest row, N targets in the whole batch, S side of the
model's square picture, H width of the language model, P width of a prompt, V visual tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor

IGNORE_LABEL = -100
PADDING_SEGMENT = -1
PICTURE_SEGMENT = 0


@dataclass
class Batch:
    """Pictures and questions as tensors."""

    pixel_values: Tensor  # [B, 3, S, S] in [-1, 1]
    input_ids: Tensor  # [B, T]; visual positions hold the padding id and are replaced
    segments: Tensor  # [B, T] 0 = picture, k = the row's k-th question, -1 = padding
    position_ids: Tensor  # [B, T] restarts after the picture for each question
    labels: Tensor | None = None  # [B, T] the answers' ids, -100 elsewhere
    image_index: Tensor | None = None  # [N] row of each target's picture
    phrase_ids: Tensor | None = None  # [N, L] what each target is called, padded with -1
    masks: Tensor | None = None  # [N, S/4, S/4] the target's share of each low-resolution pixel
    known: Tensor | None = None  # [N] bool: the mask is known (where not, ``masks`` holds zeros)
    present: Tensor | None = None  # [N] bool: the target is in the picture, its answer has a [SEG]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on ``device``."""
        moved = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{k: v.to(device) for k, v in moved.items() if v is not None})


@dataclass
class DecodedMasks:
    """What the mask decoder says for each of N prompts."""

    low_res_masks: Tensor  # [N, S/4, S/4] logits
    iou_logits: Tensor  # [N] sigmoid = predicted IoU of the mask, 0 where the thing is absent
    similarity: Tensor  # [N, S/32, S/32] logits of "here", before the decoder refines it

    def select(self, which: Tensor) -> DecodedMasks:
        """The prompts that ``which`` (indices, or bool [N]) picks."""
        return DecodedMasks(*(getattr(self, field.name)[which] for field in fields(self)))


@dataclass
class Output:
    """What a forward pass over given answers returns."""

    logits: Tensor  # [K, vocabulary] where the next token is supervised (all positions: K = B * T)
    seg_prompts: Tensor  # [M, P] one for each [SEG], row by row, left to right
    seg_rows: Tensor  # [M] the row (picture) of each [SEG]
    masks: DecodedMasks  # of the M prompts


@dataclass
class Generated:
    """One generated answer."""

    token_ids: list[int]  # up to and without the end token
    masks: DecodedMasks  # one per [SEG] among them, maybe none
    prompts: Tensor  # [M, P] what each mask was decoded from


class ImageFeaturesLike(Protocol):
    """What a decoder keeps of pictures; the language side may look at it too."""

    def select(self, index: Tensor) -> ImageFeaturesLike:
        """Rows ``index`` [N]."""
        ...


Features = TypeVar("Features", bound=ImageFeaturesLike)
FeaturesRead = TypeVar("FeaturesRead", bound=ImageFeaturesLike, contravariant=True)


class VisionLanguageModel(Protocol[FeaturesRead]):
    """Reads a picture and text; its last hidden states are all that the head needs."""

    hidden_size: int

    def visual_embeddings(self, features: FeaturesRead) -> Tensor:
        """Visual tokens [B, V, H] of pictures the decoder has encoded."""
        ...

    def hidden_states(self, batch: Batch, visual: Tensor) -> Tensor:
        """Last hidden states [B, T, H] of a batch's rows."""
        ...


class MaskDecoder(Protocol[Features]):
    """Encodes a picture once, then answers any number of prompts about it."""

    prompt_size: int

    def encode_image(self, pixel_values: Tensor) -> Features:
        """Pictures [B, 3, S, S] -> what is kept of them."""
        ...

    def decode(self, features: Features, prompts: Tensor, image_index: Tensor) -> DecodedMasks:
        """Prompts [N, P], prompt n about picture ``image_index[n]`` -> N masks."""
        ...
