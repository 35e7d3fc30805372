"""Between meaning and tensors, in both directions: ``Example`` -> ``Batch``, answers -> ``Result``.

All image geometry is here: a picture is stretched to the model's square (as SAM 2 does), a mask is
stretched back to the picture's own size. All text layout is here too. This file refuses to know the
model's parts, the data sets, and where a picture came from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer
from torch import Tensor
from torch.nn import functional as F

from lisa.errors import ModelError
from lisa.example import Example
from lisa.model.config import SEG_TOKEN, TEACHER_FORCED_ANSWER, LisaConfig
from lisa.model.interfaces import IGNORE_LABEL, PADDING_SEGMENT, Batch, DecodedMasks, Generated
from lisa.result import Mask

BEFORE_PICTURE = "<|im_start|>user\n"
AFTER_PICTURE = "\n"
BEFORE_ANSWER = "<|im_end|>\n<|im_start|>assistant\n"
END_OF_ANSWER = "<|im_end|>"
LOW_RES_STRIDE = 4


class LisaProcessor:
    """Encodes examples for, and decodes answers of, a model of the given configuration.

    Args:
        tokenizer: of the language model, with ``[SEG]`` as one token of id ``config.seg_token_id``.
        config: of the model.

    Raises:
        ModelError: ``[SEG]`` is not exactly that one id.
    """

    def __init__(self, tokenizer: Tokenizer, config: LisaConfig) -> None:
        self.tokenizer = tokenizer
        self.config = config
        check_seg_token(tokenizer, config.seg_token_id)
        self.end_token_id: int = tokenizer.token_to_id(END_OF_ANSWER)

    @classmethod
    def from_directory(cls, directory: Path, config: LisaConfig) -> LisaProcessor:
        """Read ``tokenizer.json`` of a model directory."""
        path = directory / "tokenizer.json"
        try:
            return cls(Tokenizer.from_file(str(path)), config)
        except ModelError:
            raise
        except Exception as error:  # tokenizers raises bare Exception
            raise ModelError(
                f"cannot read '{path}': expected a tokenizer file ({error})"
            ) from error

    # ------------------------------------------------------------------ text

    def prefix_ids(self) -> list[int]:
        """The row's ids up to the question; visual tokens are placeholders of id 0."""
        return [
            *self._template_ids(BEFORE_PICTURE),
            *[0] * self.config.visual_tokens,
            *self._template_ids(AFTER_PICTURE),
        ]

    def question_ids(self, question: str) -> list[int]:
        """A question and the assistant's opening. Control markers in it are read as plain text."""
        self.tokenizer.encode_special_tokens = True
        ids = self.tokenizer.encode(question.strip(), add_special_tokens=False).ids
        return [*ids, *self._template_ids(BEFORE_ANSWER)]

    def answer_ids(self, answer: str) -> list[int]:
        """An answer with its ``[SEG]`` tokens and the end mark."""
        return self._template_ids(answer + END_OF_ANSWER)

    def phrase_ids(self, phrase: str) -> list[int]:
        """The ids of a name, as they stand in running text."""
        return self._template_ids(" " + phrase.strip())

    def _template_ids(self, text: str) -> list[int]:
        self.tokenizer.encode_special_tokens = False
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    # ----------------------------------------------------- examples -> batch

    def encode(self, examples: Sequence[Example]) -> Batch:
        """Examples -> one batch; neighbours that share one picture share one row.

        An example with a ``phrase`` has a target: its answer gets one ``[SEG]`` unless ``masks`` say
        that the target is absent. An example without a phrase only talks.
        """
        rows = group_by_image(examples)
        tokens = [self._encode_row(row) for row in rows]
        targets = [(n, e) for n, row in enumerate(rows) for e in row if e.phrase]
        batch = Batch(
            pixel_values=self.encode_images([row[0].image for row in rows]),
            input_ids=pad([t[0] for t in tokens], 0),
            segments=pad([t[1] for t in tokens], PADDING_SEGMENT),
            position_ids=pad([t[2] for t in tokens], 0),
            labels=pad([t[3] for t in tokens], IGNORE_LABEL),
        )
        if targets:
            batch.image_index = torch.tensor([n for n, _ in targets])
            batch.phrase_ids = pad([self.phrase_ids(e.phrase) for _, e in targets], -1)
            batch.masks = torch.stack([self.encode_target(e) for _, e in targets])
            batch.known = torch.tensor([e.masks is not None for _, e in targets])
            batch.present = torch.tensor([is_present(e) for _, e in targets])
        return batch

    def _encode_row(self, examples: Sequence[Example]) -> tuple[list[int], ...]:
        ids = self.prefix_ids()
        start = len(ids)
        segments, positions, labels = [0] * start, list(range(start)), [IGNORE_LABEL] * start
        for k, example in enumerate(examples, start=1):
            question, answer = (
                self.question_ids(example.question),
                self.answer_ids(spoken_answer(example)),
            )
            ids += question + answer
            segments += [k] * (len(question) + len(answer))
            positions += range(start, start + len(question) + len(answer))
            labels += [IGNORE_LABEL] * len(question) + answer
        return ids, segments, positions, labels

    # -------------------------------------------------------------- geometry

    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB pictures of any size -> [B, 3, S, S] in [-1, 1]."""
        side = (self.config.image_size, self.config.image_size)
        squares = [
            image if image.size == side else image.resize(side, Image.Resampling.BILINEAR)
            for image in images
        ]
        pixels = torch.from_numpy(np.stack([np.asarray(square) for square in squares]))
        return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1

    def encode_mask(self, mask: np.ndarray) -> Tensor:
        """bool [H, W] -> float [S/4, S/4]: the share of each low-resolution pixel that is target."""
        side = self.config.image_size // LOW_RES_STRIDE
        shares = Image.fromarray(mask.astype(np.uint8) * 255).resize(
            (side, side), Image.Resampling.BOX
        )
        return torch.from_numpy(np.asarray(shares, dtype=np.float32) / 255)

    def encode_target(self, example: Example) -> Tensor:
        """The union of an example's masks as ``encode_mask`` has it; zeros where they are not known."""
        side = self.config.image_size // LOW_RES_STRIDE
        return torch.zeros(side, side) if example.masks is None else self.encode_mask(example.mask)

    def decode_mask(self, low_res_mask: Tensor, size: tuple[int, int]) -> np.ndarray:
        """Logits [S/4, S/4] -> bool [H, W] at the picture's own ``size`` (height, width)."""
        full = F.interpolate(
            low_res_mask[None, None].float(), size=size, mode="bilinear", align_corners=False
        )
        return (full[0, 0].sigmoid() > self.config.mask_threshold).cpu().numpy()

    # ------------------------------------------------------ answers -> meaning

    def decode(self, generated: Generated, size: tuple[int, int]) -> tuple[str, tuple[Mask, ...]]:
        """An answer -> its text without ``[SEG]``, and one mask for each ``[SEG]``."""
        raw = self.tokenizer.decode(generated.token_ids, skip_special_tokens=False)
        text = re.sub(r"\s+", " ", raw.replace(SEG_TOKEN, " ")).strip()
        return text, self._decode_masks(generated.masks, phrases(raw), size)

    def _decode_masks(
        self, masks: DecodedMasks, names: list[str], size: tuple[int, int]
    ) -> tuple[Mask, ...]:
        scores = masks.iou_logits.float().sigmoid().tolist()
        decoded = [self.decode_mask(low_res_mask, size) for low_res_mask in masks.low_res_masks]
        return tuple(Mask(*parts) for parts in zip(decoded, names, scores, strict=True))


def check_seg_token(tokenizer: Tokenizer, seg_token_id: int) -> None:
    """``[SEG]`` must be one id, and that id must read ``[SEG]``; anything else scores near zero."""
    tokenizer.encode_special_tokens = False
    ids = tokenizer.encode(SEG_TOKEN, add_special_tokens=False).ids
    if ids != [seg_token_id]:
        raise ModelError(
            f"the tokenizer reads '{SEG_TOKEN}' as ids {ids}; expected the one id {seg_token_id}"
        )


def add_seg_token(tokenizer: Tokenizer) -> int:
    """Give a language model's tokenizer the new token; returns its id."""
    tokenizer.add_special_tokens(
        [AddedToken(SEG_TOKEN, lstrip=True, normalized=False, special=True)]
    )
    return int(tokenizer.token_to_id(SEG_TOKEN))


def phrases(raw_answer: str) -> list[str]:
    """What the answer calls each mask: the words before its ``[SEG]``, without article and stop."""
    spoken = raw_answer.split(SEG_TOKEN)[:-1]
    return [
        re.sub(r"^(and |, )*(the |a |an )?", "", words.strip(" .,:;"), flags=re.IGNORECASE)
        for words in spoken
    ]


def group_by_image(examples: Sequence[Example]) -> list[list[Example]]:
    """Runs of neighbours that hold the same picture object."""
    rows: list[list[Example]] = []
    for example in examples:
        if rows and rows[-1][0].image is example.image:
            rows[-1].append(example)
        else:
            rows.append([example])
    return rows


def is_present(example: Example) -> bool:
    """Whether an example's target is in its picture, and so gets a ``[SEG]``."""
    return bool(example.phrase) and (example.masks is None or bool(example.masks.any()))


def spoken_answer(example: Example) -> str:
    """The answer with its ``[SEG]``; an example that names a present target and says nothing says "[SEG]."."""
    answer = example.answer or ""
    if not is_present(example):
        return answer
    return f"{answer} {SEG_TOKEN}" if answer else TEACHER_FORCED_ANSWER


def pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Lists of different lengths -> [rows, longest], filled with ``value`` on the right."""
    length = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (length - len(row))] for row in rows])
