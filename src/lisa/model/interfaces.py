"""What travels between the stations, and the two contracts of the model's parts.

``Batch`` goes into the model and ``Output`` comes out. A row of nano's batch is one picture with
all the questions about it: the picture's tokens stand first, the questions follow, and no question
sees another (``segments``). A row of a batch of full size is one conversation about one picture
(``row_image``). This file knows shapes; it computes nothing.

Letters: B pictures, R rows (nano: R = B), T tokens in the longest row, N targets in the whole
batch, S side of the decoder's square picture, H width of the language model, P width of a prompt, V
visual tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, TypeVar

import torch
from PIL import Image
from torch import Tensor

from lisa.masks import Mask

IGNORE_LABEL = -100
PADDING_SEGMENT = -1
PICTURE_SEGMENT = 0


@dataclass
class Batch:
    """Pictures and questions as tensors."""

    pixel_values: Tensor  # [B, 3, S, S] as the decoder takes it (nano: in [-1, 1])
    input_ids: Tensor  # [R, T]; what stands at visual positions is replaced
    segments: Tensor  # [R, T] 0 = picture, k = the row's k-th question, -1 = never looked at
    position_ids: Tensor  # [R, T] nano: restarts after the picture for each question
    labels: Tensor | None = None  # [R, T] the answers' ids, -100 elsewhere
    image_index: Tensor | None = None  # [N] row of each target's picture
    phrase_ids: Tensor | None = None  # [N, L] what each target is called, padded with -1
    masks: Tensor | None = None  # [N, S/4, S/4] the target's share of each low-resolution pixel
    known: Tensor | None = None  # [N] bool: the mask is known (where not, ``masks`` holds zeros)
    present: Tensor | None = None  # [N] bool: the target is in the picture, its answer has a [SEG]
    # Full size only:
    row_image: Tensor | None = None  # [R] the picture of each row
    vlm_inputs: dict[str, Tensor] | None = None  # what the vision tower reads, row after row
    sizes: list[tuple[int, int]] | None = None  # (height, width) of the B pictures
    full_masks: list[Tensor] | None = None  # B of [n, H, W]: the target of each [SEG], in order

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on ``device``."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: moved(value, device) for name, value in values.items()})


def moved(value: Any, device: torch.device | str) -> Any:
    """Tensors, and those in lists and tables, on ``device``; anything else as it is."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, list):
        return [moved(item, device) for item in value]
    if isinstance(value, dict):
        return {key: moved(item, device) for key, item in value.items()}
    return value


@dataclass
class Pictures:
    """Pictures alone, as tensors; what ``LisaModel.encode_images`` takes."""

    pixel_values: Tensor  # [B, 3, S, S] as the decoder takes it
    prefix_ids: Tensor | None = None  # nano: [B, V + ...] the row's tokens up to the question
    # Full size only:
    vlm_inputs: list[dict[str, Tensor]] | None = None  # what the vision tower reads of each
    picture_ids: list[list[int]] | None = None  # the tokens that stand for each

    def to(self, device: torch.device | str) -> Pictures:
        """The same pictures on ``device``."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: moved(value, device) for name, value in values.items()})


@dataclass
class DecodedMasks:
    """What the mask decoder says for each of N prompts."""

    low_res_masks: Tensor  # [N, S/4, S/4] logits
    iou_logits: Tensor  # [N] sigmoid = predicted IoU of the mask, 0 where the thing is absent
    similarity: Tensor  # [N, S/32, S/32] logits of "here", before refinement; SAM: [N, 0, 0]

    def select(self, which: Tensor) -> DecodedMasks:
        """The prompts that ``which`` (indices, or bool [N]) picks."""
        return DecodedMasks(*(getattr(self, field.name)[which] for field in fields(self)))


@dataclass
class Output:
    """What a forward pass over given answers returns."""

    logits: Tensor  # [K, vocabulary] where the next token is supervised (all positions: K = R * T)
    seg_prompts: Tensor  # [M, P] one for each [SEG], row by row, left to right
    seg_rows: Tensor  # [M] the row of each [SEG]
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
    """Reads a picture and text; its last hidden states are all that the head needs.

    ``generate`` needs three steps more: ``keep`` pictures, ``open`` questions about them, and
    ``step`` through the ``DecodingState`` that this gives.
    """

    hidden_size: int

    def visual_embeddings(self, features: FeaturesRead) -> Tensor | None:
        """Visual tokens [B, V, H] of pictures the decoder has encoded; None: it has own eyes."""
        ...

    def hidden_states(self, batch: Batch, visual: Any) -> Tensor:
        """Last hidden states [R, T, H] of a batch's rows."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits [.., vocabulary]."""
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


class Processor(Protocol):
    """Between meaning and tensors: images and questions in, text and masks out."""

    end_token_id: int
    max_new_tokens: int

    def encode_pictures(self, images: Sequence[Image.Image]) -> Pictures:
        """RGB images of any size, ready to be encoded."""
        ...

    def question_ids(self, question: str) -> list[int]:
        """A question and the assistant's opening."""
        ...

    def answer_ids(self, answer: str) -> list[int]:
        """An answer with its ``[SEG]`` tokens and the end."""
        ...

    def decode(self, generated: Generated, size: tuple[int, int]) -> tuple[str, tuple[Mask, ...]]:
        """An answer -> its text, and a mask [H, W] for each ``[SEG]``; ``size`` is (H, W)."""
        ...
