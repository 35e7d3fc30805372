"""``LisaProcessor``'s counterpart for models of full size: meaning to tensors, and back.

A picture is prepared twice, for the vision tower and for the mask decoder, each in the way that it
was trained with; a mask goes back to the picture's own size. What a family needs is in its row of
``vlm.FAMILIES`` and ``mask_decoder.FAMILIES``. This file refuses to know weights and strings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoImageProcessor, PreTrainedTokenizerFast
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

from lisa.errors import ModelError
from lisa.example import SEG_TOKEN, Example
from lisa.masks import Mask
from lisa.model import mask_decoder, vlm
from lisa.model.answers import group_by_image, is_present, phrases, target_answer, visible_text
from lisa.model.chat_templates import IMAGE_TOKEN_ID, TEMPLATES, Row, text_limit
from lisa.model.config import OFFICIAL, LisaConfig
from lisa.model.geometry import clip_pixels, longest_side_size, restore_masks, sam_pixels
from lisa.model.interfaces import (
    IGNORE_LABEL,
    PADDING_SEGMENT,
    PICTURE_SEGMENT,
    Batch,
    Generated,
    Output,
    Pictures,
)
from lisa.model.llama_tokenizer import LegacyTokenizer
from lisa.model.text_processor import ChatText, OfficialText, TextProcessor

MAX_NEW_TOKENS = 512  # as the official chat.py has it
IMAGE_FILE = "preprocessor_config.json"
Size = tuple[int, int]  # height, width


class FullSizeProcessor:
    """Encodes examples for, and decodes answers of, a model of full size.

    Args:
        voice: writes and reads its text.
        image_processor: of ``transformers``, for the vision tower; None: the central square, as
            CLIP takes it.
        config: of the model.
    """

    max_new_tokens = MAX_NEW_TOKENS

    def __init__(self, voice: TextProcessor, image_processor: Any, config: LisaConfig) -> None:
        self.voice, self.image_processor, self.config = voice, image_processor, config
        self.vlm: Any = config.vlm_config()
        self.language_family = vlm.family_of(self.vlm)
        self.mask_family = mask_decoder.family_of(config.mask_decoder_config())
        self.end_token_id = voice.end_token_id

    @classmethod
    def from_directory(cls, directory: Path, config: LisaConfig) -> FullSizeProcessor:
        """Read tokenizer and image processor of a model directory.

        Raises:
            ModelError: one cannot be read, or does not fit ``config``.
        """
        voice = read_voice(directory, config)
        return cls(voice, read_image_processor(directory, config), config)

    def save(self, directory: Path) -> None:
        """Write what ``from_directory`` reads."""
        self.voice.save(directory)
        if self.image_processor is not None:
            self.image_processor.save_pretrained(directory)

    # ------------------------------------------------------------------ text

    def question_ids(self, question: str) -> list[int]:
        """A question and the assistant's opening, with the place of the picture."""
        return self.voice.question_ids(question)

    def answer_ids(self, answer: str) -> list[int]:
        """An answer with its ``[SEG]`` tokens and the end."""
        return self.voice.answer_ids(answer)

    # --------------------------------------------------------------- pictures

    def encode_pictures(self, images: Sequence[Image.Image]) -> Pictures:
        """RGB pictures of any size, ready to be encoded."""
        seen = [self._see(image) for image in images]
        return Pictures(
            torch.stack([self.decoder_pixels(image) for image in images]),
            vlm_inputs=[
                {name: inputs[name] for name in self.language_family.image_inputs}
                for inputs in seen
            ],
            picture_ids=[self._picture_ids(inputs) for inputs in seen],
        )

    def _see(self, image: Image.Image) -> vlm.Inputs:
        """What the vision tower reads of a picture."""
        if self.image_processor is None:
            return {"pixel_values": clip_pixels(image, self.vlm.vision_config.image_size)[None]}
        asked = dict(self.language_family.asks)
        made = self.image_processor(images=[image], return_tensors="pt", **asked)
        return {name: torch.as_tensor(value) for name, value in made.items()}

    def _picture_ids(self, inputs: vlm.Inputs) -> list[int]:
        """The tokens that stand for a picture."""
        ids: list[int] = []
        for is_text, parts in groupby(
            self.language_family.layout(inputs, self.vlm), lambda part: isinstance(part, str)
        ):
            if is_text:  # neighbours are one text: "\n" twice may be one token
                ids += self.voice.text_ids("".join(map(str, parts)))
            else:
                ids += [self.vlm.image_token_id] * sum(map(int, parts))
        return ids

    def decoder_pixels(self, image: Image.Image) -> Tensor:
        """What the mask decoder takes of an RGB picture: [3, S, S]."""
        side, family = self.config.image_size, self.mask_family
        if not family.stretched:
            return sam_pixels(image, side, family.mean, family.std)[0]
        square = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR), np.float32)
        normal = (square - np.array(family.mean)) / np.array(family.std)
        return torch.from_numpy(normal.astype(np.float32)).permute(2, 0, 1)

    def restore(self, low_res_masks: Tensor, size: Size) -> Tensor:
        """Logits of the square [N, h, w] -> float32 logits at the picture's own size [N, H, W]."""
        if self.mask_family.stretched:
            return F.interpolate(low_res_masks[:, None].float(), size, mode="bilinear")[:, 0]
        inside = longest_side_size(*size, self.config.image_size)
        return restore_masks(low_res_masks, inside, size, self.config.image_size)

    # ----------------------------------------------------- examples -> batch

    def encode(self, examples: Sequence[Example]) -> Batch:
        """Examples -> one batch, a row each; neighbours that share a picture share its features.

        An example with a phrase has a target: its answer gets one ``[SEG]``, or keeps its own where
        it has as many as there are masks, or one.

        Raises:
            QuestionError: a conversation is too long, and cutting it would cut its ``[SEG]``.
        """
        groups = group_by_image(examples)
        pictures = self.encode_pictures([group[0].image for group in groups])
        limits = [self._limit(ids) for ids in pictures.picture_ids or []]
        rows = [
            (number, self._row(example, limits[number]))
            for number, group in enumerate(groups)
            for example in group
        ]
        batch = self.encode_rows(pictures, rows)
        batch.sizes = [(group[0].image.height, group[0].image.width) for group in groups]
        batch.full_masks = list(map(targets, groups))
        return batch

    def _row(self, example: Example, limit: int | None) -> Row:
        """An example's conversation, cut where the official code cuts it."""
        row = self.voice.row(example.question, training_answer(example), example.further)
        if limit is None:
            return row
        silently = self.config.compat == OFFICIAL
        return row.cut(limit, self.config.seg_token_id, silently=silently)

    def _limit(self, picture_ids: Sequence[int]) -> int | None:
        """How many ids of a conversation training keeps; None: all."""
        is_legacy = self.config.conversation in TEMPLATES
        return text_limit(len(picture_ids)) if is_legacy else None

    def encode_rows(self, pictures: Pictures, rows: Sequence[tuple[int, Row]]) -> Batch:
        """Conversations, each after the number of its picture -> a batch without targets."""
        assert pictures.vlm_inputs is not None and pictures.picture_ids is not None
        expanded = [put_picture(row, pictures.picture_ids[number]) for number, row in rows]
        padding = (0, IGNORE_LABEL, PADDING_SEGMENT)
        ids, labels, segments = (
            pad_sequence([torch.tensor(row) for row in part], True, value)
            for part, value in zip(zip(*expanded, strict=True), padding, strict=True)
        )
        unread = ids == vlm.unread_id(self.config)
        return Batch(
            pictures.pixel_values,
            ids,
            segments.masked_fill(unread, PADDING_SEGMENT),
            torch.arange(ids.shape[1]).expand_as(ids),
            labels,
            row_image=torch.tensor([number for number, _ in rows]),
            vlm_inputs=vlm.join([pictures.vlm_inputs[number] for number, _ in rows]),
        )

    # ------------------------------------------------------ answers -> meaning

    def decode(self, generated: Generated, size: Size) -> tuple[str, tuple[Mask, ...]]:
        """An answer -> its text without ``[SEG]``, and one mask for each ``[SEG]``.

        Args:
            generated: the answer's ids and masks.
            size: (height, width) of the picture.
        """
        raw = self.voice.read(generated.token_ids)
        masks = [
            self.decode_mask(low_res_mask, size) for low_res_mask in generated.masks.low_res_masks
        ]
        scores = generated.masks.iou_logits.float().sigmoid().tolist()
        names = phrases(raw)
        names = [""] * (len(masks) - len(names)) + names  # of a question's own [SEG]s (official)
        named = zip(masks, names, scores, strict=True)
        return visible_text(raw), tuple(Mask(*parts) for parts in named)

    def decode_mask(self, low_res_mask: Tensor, size: Size) -> np.ndarray:
        """Logits [h, w] of the square -> bool [H, W] at the picture's own ``size``."""
        threshold = self.config.mask_threshold
        logits = self.restore(low_res_mask[None].cpu(), size)[0]
        return (logits > math.log(threshold / (1 - threshold))).numpy()

    def predicted_masks(self, output: Output, batch: Batch) -> list[Tensor]:
        """Logits [n, H, W] of each picture of a batch at its own size, in the order of [SEG]s."""
        assert batch.row_image is not None and batch.sizes is not None
        index = batch.row_image[output.seg_rows]
        return [
            self.restore(output.masks.low_res_masks[index == number], size)
            for number, size in enumerate(batch.sizes)
        ]


def put_picture(row: Row, picture_ids: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Ids, labels and segments of a conversation with its picture's own tokens in it."""
    ids, labels, segments = list[int](), list[int](), list[int]()
    for token, label in zip(row.ids, row.labels, strict=True):
        here = picture_ids if token == IMAGE_TOKEN_ID else [token]
        ids += here
        labels += [label] if token != IMAGE_TOKEN_ID else [IGNORE_LABEL] * len(here)
        segments += [PICTURE_SEGMENT if token == IMAGE_TOKEN_ID else 1] * len(here)
    return ids, labels, segments


def training_answer(example: Example) -> str:
    """The answer as it is trained on: ``target_answer``, or one whose ``[SEG]``s fit its masks."""
    answer = example.answer or ""
    points = answer.count(SEG_TOKEN) in (1, 0 if example.masks is None else len(example.masks))
    is_own = is_present(example) and SEG_TOKEN in answer and points
    return answer if is_own else target_answer(example)


def targets(examples: Sequence[Example]) -> Tensor:
    """The masks [n, H, W] of a picture's examples, one for each ``[SEG]``, in their order.

    An answer with one ``[SEG]`` points at all of the example's masks together.

    Raises:
        DataError: a target has no mask.
    """
    image = examples[0].image
    masks = [
        torch.from_numpy(mask)
        for example in examples
        for mask in pointed_at(example, training_answer(example).count(SEG_TOKEN))
    ]
    return torch.stack(masks) if masks else torch.zeros(0, image.height, image.width).bool()


def pointed_at(example: Example, count: int) -> Sequence[np.ndarray]:
    """What each of the ``count`` ``[SEG]``s of an example's answer points at."""
    if count == 1:
        return [example.mask]
    return () if example.masks is None else list(example.masks[:count])


# ----------------------------------------------------------------------- files


def read_voice(directory: Path, config: LisaConfig) -> TextProcessor:
    """The tokenizer of a model directory.

    Raises:
        ModelError: it cannot be read, or does not fit the configuration.
    """
    if config.conversation in TEMPLATES:
        return OfficialText(LegacyTokenizer.read(directory), config)
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True)
    except Exception as error:  # tokenizers and transformers raise many types
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"cannot read the tokenizer in '{directory}': {reason}; expected tokenizer.json"
        ) from error
    return ChatText(tokenizer, config)


def read_image_processor(directory: Path, config: LisaConfig) -> Any:
    """The image processor of a model directory; without its file, the family's usual one.

    Raises:
        ModelError: its file cannot be used.
    """
    if not (directory / IMAGE_FILE).is_file():
        return usual_image_processor(config)
    try:
        return AutoImageProcessor.from_pretrained(directory, backend="pil", local_files_only=True)
    except Exception as error:  # transformers raises many types
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"cannot use '{directory / IMAGE_FILE}': {reason}; expected an image processor"
        ) from error


def usual_image_processor(config: LisaConfig) -> Any:
    """The image processor of a family, for the sizes of one model; None for official LISA."""
    if config.conversation in TEMPLATES:
        return None
    settings = config.vlm_config()
    name = IMAGE_PROCESSOR_MAPPING_NAMES[settings.model_type]["pil"]
    made = getattr(transformers, name)
    return made(**vlm.family_of(settings).image_options(settings))
