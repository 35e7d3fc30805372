"""Between meaning and tensors, in both directions: ``Example`` -> ``Batch``, answers -> ``Result``.

All image geometry is here: a picture is stretched to the model's square (as SAM 2 does), a mask is
stretched back to the picture's own size. All text layout is here too: what a person writes is text,
whatever it looks like; only this file writes control tokens. It refuses to know the model's parts,
the data sets, and where a picture came from.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer
from torch import Tensor

from lisa.errors import ModelError
from lisa.example import SEG_TOKEN, Example
from lisa.masks import Mask
from lisa.model.answers import group_by_image, is_present, phrases, target_answer, visible_text
from lisa.model.config import LisaConfig
from lisa.model.geometry import stretch_above
from lisa.model.interfaces import (
    IGNORE_LABEL,
    PADDING_SEGMENT,
    Batch,
    DecodedMasks,
    Generated,
    Pictures,
)

START_OF_TURN = "<|im_start|>"
END_OF_ANSWER = "<|im_end|>"
BEFORE_PICTURE = f"{START_OF_TURN}user\n"
AFTER_PICTURE = "\n"
BEFORE_ANSWER = f"{END_OF_ANSWER}\n{START_OF_TURN}assistant\n"
LOW_RES_STRIDE = 4


RECALL_TOKENS = 64  # of a question that is read by itself


class LisaProcessor:
    """Encodes examples for, and decodes answers of, a model of the given configuration.

    Args:
        tokenizer: of the language model, with ``[SEG]`` as one token of id ``config.seg_token_id``.
            From here on it reads control markers in running text as text.
        config: of the model.

    Raises:
        ModelError: ``[SEG]`` is not exactly that one id, the chat markers are not there, or text
            can be mistaken for them.
    """

    max_new_tokens = 48

    def __init__(self, tokenizer: Tokenizer, config: LisaConfig) -> None:
        self.tokenizer = tokenizer
        self.config = config
        check_seg_token(tokenizer, config.seg_token_id)
        tokenizer.encode_special_tokens = True
        self.control_ids = {
            marker: marker_id(tokenizer, marker) for marker in (START_OF_TURN, END_OF_ANSWER)
        }
        self.end_token_id = self.control_ids[END_OF_ANSWER]
        self._check_text()

    @classmethod
    def from_directory(cls, directory: Path, config: LisaConfig) -> LisaProcessor:
        """Read ``tokenizer.json`` of a model directory.

        Raises:
            ModelError: it cannot be read, or does not fit ``config``; the message names the file.
        """
        path = directory / "tokenizer.json"
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare Exception
            reason = " ".join(str(error).split())
            raise ModelError(
                f"cannot read '{path}': {reason}; expected a tokenizer file"
            ) from error
        try:
            return cls(tokenizer, config)
        except ModelError as error:
            raise ModelError(f"cannot use '{path}': {error}") from error

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
        return [*self._text_ids(question.strip()), *self._template_ids(BEFORE_ANSWER)]

    def answer_ids(self, answer: str) -> list[int]:
        """An answer with its ``[SEG]`` tokens and the end mark; other markers are plain text."""
        ids: list[int] = []
        for number, words in enumerate(re.split(rf"\s*{re.escape(SEG_TOKEN)}", answer)):
            ids += [self.config.seg_token_id] if number else []
            ids += self._text_ids(words)
        return [*ids, self.end_token_id]

    def phrase_ids(self, phrase: str) -> list[int]:
        """The ids of a name, as they stand in running text."""
        return self._text_ids(" " + phrase.strip())

    def recall_ids(self, text: str) -> list[int]:
        """The ids of a question or a name that is read by itself, as in running text."""
        text = text.strip()
        return self.phrase_ids(text[:1].lower() + text[1:])[:RECALL_TOKENS]

    @property
    def comma_id(self) -> int:
        """The token that stands between names."""
        return self._text_ids("a,")[-1]

    def _text_ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _template_ids(self, template: str) -> list[int]:
        """Chat markers become their tokens, what stands between them is text."""
        ids: list[int] = []
        for part in re.split(f"({'|'.join(map(re.escape, self.control_ids))})", template):
            marker = self.control_ids.get(part)
            ids += self._text_ids(part) if marker is None else [marker]
        return ids

    def _check_text(self) -> None:
        """Nobody can write a control token, and the picture ends where the model expects it to."""
        for marker, control in {**self.control_ids, SEG_TOKEN: self.config.seg_token_id}.items():
            if control in self._text_ids(f"a {marker} b"):
                raise ModelError(
                    f"the tokenizer reads '{marker}' in text as a control token; "
                    "expected it to be marked as special"
                )
        after_picture = self._text_ids(AFTER_PICTURE)
        if len(after_picture) != 1:
            raise ModelError(
                f"the tokenizer reads a line break as {after_picture}; expected one id"
            )

    # ----------------------------------------------------- examples -> batch

    def encode(self, examples: Sequence[Example]) -> Batch:
        """Examples -> one batch; neighbours that share one picture share one row.

        An example with a ``phrase`` has a target: its answer gets one ``[SEG]`` unless ``masks``
        say that the target is absent. An example without a phrase only talks.
        """
        rows = group_by_image(examples)
        batch = self.encode_text(rows)
        batch.pixel_values = self.encode_images([row[0].image for row in rows])
        targets = [(n, e) for n, row in enumerate(rows) for e in row if e.phrase]
        if targets:
            batch.image_index = torch.tensor([n for n, _ in targets])
            batch.phrase_ids = pad([self.phrase_ids(e.phrase) for _, e in targets], -1)
            batch.masks = torch.stack([self.encode_target(e) for _, e in targets])
            batch.known = torch.tensor([e.masks is not None for _, e in targets])
            batch.present = torch.tensor([is_present(e) for _, e in targets])
        return batch

    def encode_text(self, rows: Sequence[Sequence[Example]]) -> Batch:
        """The text of a batch whose rows are the questions about one picture each; no pixels."""
        ids, segments, positions, labels = zip(*map(self._encode_row, rows), strict=True)
        return Batch(
            pixel_values=torch.empty(0),
            input_ids=pad(ids, 0),
            segments=pad(segments, PADDING_SEGMENT),
            position_ids=pad(positions, 0),
            labels=pad(labels, IGNORE_LABEL),
        )

    def _encode_row(self, examples: Sequence[Example]) -> tuple[list[int], ...]:
        """Ids, segments, positions and labels of one picture with all its questions."""
        ids = self.prefix_ids()
        start = len(ids)
        segments, positions, labels = [0] * start, list(range(start)), [IGNORE_LABEL] * start
        for number, example in enumerate(examples, start=1):
            question = self.question_ids(example.question)
            answer = self.answer_ids(target_answer(example))
            length = len(question) + len(answer)
            ids += question + answer
            segments += [number] * length
            positions += range(start, start + length)
            labels += [IGNORE_LABEL] * len(question) + answer
        return ids, segments, positions, labels

    # -------------------------------------------------------------- geometry

    def encode_pictures(self, images: Sequence[Image.Image]) -> Pictures:
        """RGB pictures of any size, ready to be encoded."""
        prefix_ids = torch.tensor([self.prefix_ids()] * len(images))
        return Pictures(self.encode_images(images), prefix_ids)

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
        """bool [H, W] -> float [S/4, S/4]: the share of each low-resolution pixel in the target."""
        side = self.config.image_size // LOW_RES_STRIDE
        grey = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
        shares = grey.resize((side, side), Image.Resampling.BOX)
        return torch.from_numpy(np.asarray(shares, dtype=np.float32) / 255)

    def encode_target(self, example: Example) -> Tensor:
        """The union of an example's masks as ``encode_mask`` has it; zeros where not known."""
        side = self.config.image_size // LOW_RES_STRIDE
        return torch.zeros(side, side) if example.masks is None else self.encode_mask(example.mask)

    def decode_mask(self, low_res_mask: Tensor, size: tuple[int, int]) -> np.ndarray:
        """Logits [S/4, S/4] -> bool [H, W] at the picture's own ``size`` (height, width).

        Bilinear. Beside the mask itself, memory does not grow with the picture's area. A mask whose
        peak stays under twice the threshold is cut at half its peak: a ``[SEG]`` points somewhere.
        """
        logits = low_res_mask.float().cpu()
        full = np.empty(size, dtype=bool)
        tall = size[0] >= size[1]  # the longer side is stretched last, band by band
        stretch_above(
            logits if tall else logits.T,
            full if tall else full.T,
            self._cut(float(logits.max())),
        )
        return full

    def _cut(self, peak: float) -> float:
        """The logit above which a pixel belongs to the mask, for a mask with this highest logit."""
        half = torch.tensor(peak).sigmoid().item() / 2
        threshold = min(self.config.mask_threshold, max(half, 1e-6))
        return math.log(threshold / (1 - threshold))

    # ------------------------------------------------------ answers -> meaning

    def scores(self, iou_logits: Tensor) -> list[float]:
        """The decoder's estimates [N] of its masks' IoU, calibrated, each in [0, 1]."""
        config = self.config
        moved = config.score_scale * iou_logits.float() + config.score_bias
        scores: list[float] = moved.sigmoid().tolist()
        return scores

    def decode(self, generated: Generated, size: tuple[int, int]) -> tuple[str, tuple[Mask, ...]]:
        """An answer -> its text without ``[SEG]``, and one mask for each ``[SEG]``.

        Args:
            generated: the answer's ids and masks.
            size: (height, width) of the picture.
        """
        raw = self.read(generated.token_ids)
        return visible_text(raw), self._decode_masks(generated.masks, phrases(raw), size)

    def read(self, token_ids: Sequence[int]) -> str:
        """Ids -> text with ``[SEG]`` where its token stands, and nowhere else."""
        seg_token_id = self.config.seg_token_id
        parts: list[list[int]] = [[]]
        for token in token_ids:
            if token == seg_token_id:
                parts.append([])
            else:
                parts[-1].append(token)
        texts = [self.tokenizer.decode(part, skip_special_tokens=True) for part in parts]
        return SEG_TOKEN.join(text.replace(SEG_TOKEN, " ") for text in texts)

    def _decode_masks(
        self, masks: DecodedMasks, names: list[str], size: tuple[int, int]
    ) -> tuple[Mask, ...]:
        scores = self.scores(masks.iou_logits)
        decoded = [self.decode_mask(low_res_mask, size) for low_res_mask in masks.low_res_masks]
        return tuple(Mask(*parts) for parts in zip(decoded, names, scores, strict=True))


# --------------------------------------------------------------------- tokens


def check_seg_token(tokenizer: Tokenizer, seg_token_id: int) -> None:
    """``[SEG]`` must be one id, and that id must read ``[SEG]``; anything else scores near zero.

    Raises:
        ModelError: it is not.
    """
    tokenizer.encode_special_tokens = False
    ids = tokenizer.encode(SEG_TOKEN, add_special_tokens=False).ids
    if ids != [seg_token_id]:
        raise ModelError(
            f"the tokenizer reads '{SEG_TOKEN}' as ids {ids}; expected the one id {seg_token_id}"
        )


def marker_id(tokenizer: Tokenizer, marker: str) -> int:
    """The id of a control token.

    Raises:
        ModelError: the tokenizer has no such token.
    """
    token_id = tokenizer.token_to_id(marker)
    if token_id is None:
        raise ModelError(f"the tokenizer has no token '{marker}'; expected that of a chat model")
    return token_id


def add_seg_token(tokenizer: Tokenizer) -> int:
    """Give a language model's tokenizer the new token; returns its id."""
    tokenizer.add_special_tokens(
        [AddedToken(SEG_TOKEN, lstrip=True, normalized=False, special=True)]
    )
    return marker_id(tokenizer, SEG_TOKEN)


# ---------------------------------------------------------------------- words


def pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Lists of different lengths -> [rows, longest], filled with ``value`` on the right."""
    length = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (length - len(row))] for row in rows])


# ------------------------------------------------------------------- geometry
