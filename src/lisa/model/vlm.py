"""Vision-language models of ``transformers`` behind the contract.

A row of ids has the places of a picture's features in it (``image_token_id``); the model puts its
features there, and its last hidden states go to the head. A row of ``FAMILIES`` says what is
particular to one family. This file knows ids and hidden states; it refuses to know strings, pixels
and masks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoModelForImageTextToText,
    DynamicCache,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.llava_next.modeling_llava_next import (
    get_anyres_image_grid_shape,
    unpad_image,
)

from lisa.model.chat_templates import IMAGE_TOKEN_ID, TEMPLATES
from lisa.model.config import LisaConfig, unfit
from lisa.model.generation import DecodingState, cache_name, count_places, pad_left
from lisa.model.interfaces import PADDING_SEGMENT, Batch, Pictures
from lisa.model.pretrained import Part

NOTHING = -1  # no id
Inputs = dict[str, Tensor]  # what an image processor makes of one picture
Layout = list[str | int]  # text, and numbers of places for features, in the order of the row


@dataclass
class VisionInputs:
    """Pictures as the language side keeps them: its eyes open when a row is read."""

    inputs: list[Inputs]  # of each picture
    picture_ids: list[list[int]]  # the tokens that stand for each


@dataclass(frozen=True)
class Family:
    """What is particular to one family.

    Attributes:
        layout: one picture's inputs, its configuration -> what stands for the picture.
        image_options: configuration -> what the family's image processor is made with, for models
            that come without one.
        image_inputs: what its model takes of that which the image processor gives.
        asks: further arguments of the image processor.
        positions: the model, ids, who is looked at, inputs -> position ids [3, R, T]; None: places
            are counted one by one.
    """

    layout: Callable[[Inputs, Any], Layout]
    image_options: Callable[[Any], dict[str, Any]]
    image_inputs: tuple[str, ...] = ("pixel_values",)
    positions: Callable[[Any, Tensor, Tensor, Inputs], Tensor] | None = None
    asks: tuple[tuple[str, Any], ...] = ()


class HfVlm(Part):
    """An image-text-to-text model with one more token, ``[SEG]``.

    Args:
        config: with ``vlm``.
        model: of this configuration; None: a new one with random weights.

    Raises:
        ModelError: the family is not known, or its vocabulary has no room for ``[SEG]``.
    """

    def __init__(self, config: LisaConfig, model: PreTrainedModel | None = None) -> None:
        settings = config.vlm_config()
        text, family = settings.get_text_config(), family_of(settings)
        if config.seg_token_id >= text.vocab_size:
            raise unfit("seg_token_id", config.seg_token_id, f"less than {text.vocab_size}")
        super().__init__(model or AutoModelForImageTextToText.from_config(settings))
        self.family = family
        self.hidden_size: int = text.hidden_size
        self.unread_id = unread_id(config)
        self.cache_name = cache_name(self.model.model)
        if config.projector == "linear":
            self.model.model.multi_modal_projector = nn.Linear(
                settings.vision_config.hidden_size, text.hidden_size
            )
        self.model.get_input_embeddings().register_forward_pre_hook(within_table)

    def visual_embeddings(self, features: Any) -> None:
        """None: this language side has eyes of its own."""

    def hidden_states(self, batch: Batch, visual: None = None) -> Tensor:
        """Last hidden states [R, T, H] of a batch's rows."""
        looked_at = batch.segments != PADDING_SEGMENT
        inputs = batch.vlm_inputs or {}
        positions = self.positions(batch.input_ids, looked_at, batch.position_ids, inputs)
        return self.step(DecodingState(batch.input_ids, None, looked_at, positions, inputs))

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits [.., vocabulary]."""
        return self.model.get_output_embeddings()(hidden)

    def keep(self, pictures: Pictures, visual: None = None) -> VisionInputs:
        """What is kept of pictures for questions about them."""
        assert pictures.vlm_inputs is not None and pictures.picture_ids is not None
        return VisionInputs(pictures.vlm_inputs, pictures.picture_ids)

    def open(
        self, pictures: VisionInputs, rows: Tensor, questions: Sequence[Sequence[int]]
    ) -> DecodingState:
        """Questions, with ``IMAGE_TOKEN_ID`` where the picture goes, ready to be read."""
        index = rows.tolist()
        expanded = [
            put_picture(question, pictures.picture_ids[picture])
            for question, picture in zip(questions, index, strict=True)
        ]
        ids, known = pad_left(expanded, rows)
        inputs = join([pictures.inputs[picture] for picture in index])
        looked_at = known & (ids != self.unread_id)
        positions = self.positions(ids, looked_at, count_places(known), inputs)
        return DecodingState(ids, DynamicCache(), looked_at, positions, inputs)

    def step(self, reading: DecodingState) -> Tensor:
        """Hidden states [R, t, H] of the ids that ``reading`` has not read yet."""
        floats = {
            name: value.to(self.model.dtype) if value.is_floating_point() else value
            for name, value in reading.inputs.items()
        }
        return self.model.model(
            input_ids=reading.input_ids,
            attention_mask=reading.mask.long(),
            position_ids=reading.positions,
            use_cache=reading.cache is not None,
            **{self.cache_name: reading.cache},
            **floats,
        ).last_hidden_state

    def positions(self, ids: Tensor, looked_at: Tensor, counted: Tensor, inputs: Inputs) -> Tensor:
        """Position ids as the family has them; ``counted`` [R, T] where it just counts."""
        if self.family.positions is None:
            return counted
        return self.family.positions(self.model.model, ids, looked_at, inputs)


def unread_id(config: LisaConfig) -> int:
    """The id that is never looked at, by its value, in official LISA: padding, and ``<unk>``."""
    is_legacy = config.conversation in TEMPLATES
    return config.language_config().pad_token_id if is_legacy else NOTHING


def within_table(embeddings: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The token of a picture's places may have no row in the table: it is replaced anyway."""
    ids, *others = arguments
    return (ids.clamp(max=embeddings.num_embeddings - 1), *others)


def put_picture(ids: Sequence[int], picture_ids: Sequence[int]) -> list[int]:
    """A row with the picture's own tokens in the place of ``IMAGE_TOKEN_ID``."""
    row: list[int] = []
    for token in ids:
        row += picture_ids if token == IMAGE_TOKEN_ID else [token]
    return row


def join(inputs: Sequence[Inputs]) -> Inputs:
    """The inputs of several pictures, one after the other; smaller ones are padded with zeros."""
    return {name: stack_ragged([one[name] for one in inputs]) for name in inputs[0]}


def stack_ragged(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors along their first dimension; in the others, zeros up to the largest."""
    largest = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    padded = []
    for tensor in tensors:
        missing = [want - have for want, have in zip(largest, tensor.shape[1:], strict=True)]
        padding = [amount for each in reversed(missing) for amount in (0, each)]
        padded.append(F.pad(tensor, padding) if any(missing) else tensor)
    return torch.cat(padded)


# ------------------------------------------------------------------------- families


def llava_layout(inputs: Inputs, config: Any) -> Layout:
    """One place for each patch."""
    return [(config.vision_config.image_size // config.vision_config.patch_size) ** 2]


def llava_options(config: Any) -> dict[str, Any]:
    side = config.vision_config.image_size
    return {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}


def llava_next_layout(inputs: Inputs, config: Any) -> Layout:
    """The whole picture in one tile, then its tiles without padding, each line with an end."""
    vision = config.vision_config
    side, size = vision.image_size // vision.patch_size, inputs["image_sizes"][0].tolist()
    tall, wide = get_anyres_image_grid_shape(size, config.image_grid_pinpoints, vision.image_size)
    tiles = torch.empty(1, tall * side, wide * side, device="meta")
    height, width = unpad_image(tiles, size).shape[1:]
    return [side**2 + height * (width + 1)]


def llava_next_options(config: Any) -> dict[str, Any]:
    return llava_options(config) | {"image_grid_pinpoints": config.image_grid_pinpoints}


def qwen_layout(inputs: Inputs, config: Any) -> Layout:
    """One place for each square of patches that are merged."""
    return [int(inputs["image_grid_thw"].prod()) // config.vision_config.spatial_merge_size**2]


def qwen_options(config: Any) -> dict[str, Any]:
    vision = config.vision_config
    return {
        "patch_size": vision.patch_size,
        "merge_size": vision.spatial_merge_size,
        "temporal_patch_size": vision.temporal_patch_size,
    }


def qwen_positions(model: Any, ids: Tensor, looked_at: Tensor, inputs: Inputs) -> Tensor:
    """Time, height and width of each token: [3, R, T]."""
    is_picture = (ids == model.config.image_token_id).int()
    grid = inputs.get("image_grid_thw")
    positions, _ = model.get_rope_index(
        ids, is_picture, image_grid_thw=grid, attention_mask=looked_at.long()
    )
    return positions


def smolvlm_layout(inputs: Inputs, config: Any) -> Layout:
    """Tiles row by row, each with its name, then the whole picture."""
    vision = config.vision_config
    count = (vision.image_size // vision.patch_size) ** 2 // config.scale_factor**2
    rows, columns = (int(inputs[name]) for name in ("rows", "cols"))
    layout: Layout = []
    for row in range(1, rows + 1):
        for column in range(1, columns + 1):
            layout += [f"<fake_token_around_image><row_{row}_col_{column}>", count]
        layout.append("\n")
    layout += ["\n"] if layout else []
    return [*layout, "<fake_token_around_image><global-img>", count, "<fake_token_around_image>"]


def smolvlm_options(config: Any) -> dict[str, Any]:
    side = config.vision_config.image_size
    return {
        "size": {"longest_edge": side},
        "max_image_size": {"longest_edge": side},
        "do_image_splitting": False,
    }


def internvl_layout(inputs: Inputs, config: Any) -> Layout:
    """Places for all tiles, between two marks."""
    return ["<img>", len(inputs["pixel_values"]) * config.image_seq_length, "</img>"]


def internvl_options(config: Any) -> dict[str, Any]:
    height, width = config.vision_config.image_size
    return {"size": {"height": height, "width": width}, "crop_to_patches": False}


GRID = ("pixel_values", "image_grid_thw")
FAMILIES = {
    "llava": Family(llava_layout, llava_options),
    "llava_next": Family(llava_next_layout, llava_next_options, ("pixel_values", "image_sizes")),
    "qwen2_5_vl": Family(qwen_layout, qwen_options, GRID, qwen_positions),
    "qwen3_vl": Family(qwen_layout, qwen_options, GRID, qwen_positions),
    "smolvlm": Family(
        smolvlm_layout,
        smolvlm_options,
        ("pixel_values", "pixel_attention_mask"),
        asks=(("return_row_col_info", True),),
    ),
    "internvl": Family(internvl_layout, internvl_options),
}


def family_of(settings: PretrainedConfig) -> Family:
    """What is particular to the model of a configuration.

    Raises:
        ModelError: the family is not known.
    """
    if settings.model_type not in FAMILIES:
        raise unfit("vlm.model_type", settings.model_type, ", ".join(FAMILIES))
    return FAMILIES[settings.model_type]
