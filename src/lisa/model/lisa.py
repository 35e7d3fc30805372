"""LISA: embedding-as-mask, end to end (arXiv 2308.00692, §3.2 and figure 3).

A picture is encoded once. The language model reads it and the question and writes an answer; the
hidden state that predicts each ``[SEG]`` is projected into a prompt, and the mask decoder turns the
prompt into a mask. This file composes the parts and refuses to know what they are made of, how the
text became ids, and how losses are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from lisa.model.config import OFFICIAL, LisaConfig
from lisa.model.interfaces import (
    IGNORE_LABEL,
    Batch,
    DecodedMasks,
    Generated,
    ImageFeaturesLike,
    MaskDecoder,
    Output,
    Pictures,
    VisionLanguageModel,
)


@dataclass
class EncodedImages:
    """Pictures as the model keeps them: for the decoder, and for the language model."""

    features: ImageFeaturesLike
    prefix: Any  # what the language side keeps


class LisaModel(PreTrainedModel):
    """A vision-language model, a head and a mask decoder.

    Args:
        config: names and sizes of the parts.
        vlm: reads images and text; a ``VisionLanguageModel``.
        decoder: makes masks of prompts; a ``MaskDecoder``.
    """

    config_class = LisaConfig
    base_model_prefix = "lisa"
    decoder: Any  # a ``MaskDecoder``
    vlm: Any  # a ``VisionLanguageModel``

    def __init__(
        self,
        config: LisaConfig,
        vlm: VisionLanguageModel[Any],
        decoder: MaskDecoder[Any],
    ) -> None:
        super().__init__(config)
        self.decoder, self.vlm = decoder, vlm
        self.head = EmbeddingAsMask(vlm.hidden_size, config.prompt_size)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """The parts start with the weights that they gave themselves.

        ``transformers`` would replace them all by its own (normal, 0.02); its language model it
        still initialises as it does.
        """

    def forward(self, batch: Batch) -> Output:
        """Read given answers; their ``[SEG]`` tokens become masks.

        Args:
            batch: with ``labels``, logits are given only where the next token has one.
        """
        features = self.decoder.encode_image(batch.pixel_values)
        visual = self.vlm.visual_embeddings(features)  # [B, V, H]
        hidden = self.vlm.hidden_states(batch, visual)  # [R, T, H]
        logits, seg_prompts, seg_rows = self.read(hidden, batch)
        image_index = seg_rows if batch.row_image is None else batch.row_image[seg_rows]
        masks = self.decoder.decode(features, seg_prompts, image_index)
        return Output(logits, seg_prompts, seg_rows, masks)

    def read(self, hidden: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """What hidden states [R, T, H] say: logits, prompts and their rows, as ``Output`` has."""
        seg_hidden, seg_rows = pick_seg_hidden(hidden, batch.input_ids, self.config.seg_token_id)
        spoken = hidden[predicts_supervised(batch)]  # [K, H]
        return self.vlm.logits(spoken), self.head(seg_hidden), seg_rows

    @torch.inference_mode()
    def encode_images(self, pictures: Pictures) -> EncodedImages:
        """Pictures, kept for any number of questions about them."""
        features = self.decoder.encode_image(pictures.pixel_values)
        visual = self.vlm.visual_embeddings(features)
        return EncodedImages(features, self.vlm.keep(pictures, visual))

    @torch.inference_mode()
    def generate(
        self,
        images: EncodedImages,
        questions: Sequence[Sequence[int]],
        image_index: Sequence[int],
        *,
        end_token_id: int,
        answers: Sequence[Sequence[int] | None] | None = None,
        max_new_tokens: int = 48,
    ) -> list[Generated]:
        """Answer questions greedily, side by side.

        Args:
            images: the pictures.
            questions: ids of each question, with the assistant's opening.
            image_index: which picture each question is about.
            end_token_id: ends an answer.
            answers: for each question None, or an answer (ids) that is read instead of generated:
                the paper's teacher-forced protocol. It is read to its end.
            max_new_tokens: where a generated answer is cut.

        Returns:
            For each question the answer's ids, and a mask for each ``[SEG]`` among them.
        """
        if not questions:
            return []
        rows = torch.tensor(list(image_index), device=self.device)
        started = [
            Answer(None if given is None else list(given), max_new_tokens)
            for given in answers or [None] * len(questions)
        ]
        answered = self.answer(images.prefix, rows, questions, started, end_token_id)
        return self._segment(images.features, rows, answered)

    def answer(
        self,
        prefix: Any,
        rows: Tensor,
        questions: Sequence[Sequence[int]],
        answers: list[Answer],
        end_token_id: int,
    ) -> list[Answer]:
        """Greedy decoding of all questions side by side, with one cache, until all have ended."""
        reading = self.vlm.open(prefix, rows, questions)
        states = self.vlm.step(reading)  # [N, t, H]
        if self.config.compat == OFFICIAL:
            self._take_questions(states, reading.input_ids, answers)
        while True:
            hidden = states[:, -1]  # [N, H]
            chosen = self.vlm.logits(hidden).argmax(-1).tolist()
            for answer, state, token in zip(answers, hidden, chosen, strict=True):
                answer.take(state, token, self.config.seg_token_id, end_token_id)
            if all(answer.ended for answer in answers):
                return answers
            reading = reading.then([answer.last for answer in answers])
            states = self.vlm.step(reading)

    def _take_questions(self, states: Tensor, input_ids: Tensor, answers: list[Answer]) -> None:
        """The official code makes a mask of a ``[SEG]`` in a question, too."""
        seg_hidden, rows = pick_seg_hidden(states, input_ids, self.config.seg_token_id)
        for hidden, row in zip(seg_hidden, rows.tolist(), strict=True):
            answers[row].seg_hidden.append(hidden)

    def _segment(
        self, features: ImageFeaturesLike, rows: Tensor, answers: Sequence[Answer]
    ) -> list[Generated]:
        """Each answer with its masks; answer n is about picture ``rows[n]``."""
        counts = [len(answer.seg_hidden) for answer in answers]
        seg_hidden = [hidden for answer in answers for hidden in answer.seg_hidden]
        nothing = torch.zeros(0, self.vlm.hidden_size, dtype=self.dtype, device=rows.device)
        prompts = self.head(torch.stack(seg_hidden) if seg_hidden else nothing)  # [M, P]
        image_index = rows.repeat_interleave(rows.new_tensor(counts))  # [M]
        masks = split_masks(self.decoder.decode(features, prompts, image_index), counts)
        token_ids = [answer.token_ids for answer in answers]
        return list(map(Generated, token_ids, masks, prompts.split(counts)))


@dataclass
class Answer:
    """An answer as it grows."""

    given: list[int] | None  # read this one instead of choosing
    max_new_tokens: int  # where one that is not given is cut
    token_ids: list[int] = field(default_factory=list)
    seg_hidden: list[Tensor] = field(default_factory=list)  # what predicted each [SEG], [H]
    ended: bool = False
    last: int = 0  # what the model reads next, also after the end

    def take(self, hidden: Tensor, chosen: int, seg_token_id: int, end_token_id: int) -> None:
        """Grow by the token that ``hidden`` [H] predicted; the model has chosen ``chosen``."""
        self.last = self._next(chosen, end_token_id)
        self.ended = self.ended or self.last == end_token_id
        if self.ended:
            return
        self.token_ids.append(self.last)
        if self.last == seg_token_id:
            self.seg_hidden.append(hidden)

    def _next(self, chosen: int, end_token_id: int) -> int:
        length = len(self.token_ids)
        if self.given is None:
            return chosen if length < self.max_new_tokens else end_token_id
        return self.given[length] if length < len(self.given) else end_token_id


def predicts_supervised(batch: Batch) -> Tensor:
    """True [R, T] where the next token has a label; everywhere in a batch without labels."""
    if batch.labels is None:
        return torch.ones_like(batch.input_ids, dtype=torch.bool)
    following = torch.nn.functional.pad(batch.labels[:, 1:], (0, 1), value=IGNORE_LABEL)
    return following != IGNORE_LABEL


def split_masks(masks: DecodedMasks, counts: list[int]) -> list[DecodedMasks]:
    """Masks of all prompts -> masks of each answer."""
    parts = (getattr(masks, part.name).split(counts) for part in fields(masks))
    return [DecodedMasks(*row) for row in zip(*parts, strict=True)]


class EmbeddingAsMask(nn.Module):
    """Hidden states [.., H] -> prompts [.., P]: linear, ReLU, linear (LISA §3.2, "MLP")."""

    def __init__(self, hidden_size: int, prompt_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(hidden_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, prompt_size)
        )

    def forward(self, seg_hidden: Tensor) -> Tensor:
        return self.layers(seg_hidden)


def predicts_seg(input_ids: Tensor, seg_token_id: int) -> Tensor:
    """True [B, T] where the *next* token is ``[SEG]``: the hidden state there is its embedding."""
    following = F.pad(input_ids[:, 1:], (0, 1), value=-1)
    return following == seg_token_id


def pick_seg_hidden(hidden: Tensor, input_ids: Tensor, seg_token_id: int) -> tuple[Tensor, Tensor]:
    """Hidden states that predict ``[SEG]``, row by row and left to right, and where they come from.

    Args:
        hidden: [B, T, H].
        input_ids: [B, T].
        seg_token_id: id of ``[SEG]``.

    Returns:
        Hidden states [M, H] and the row [M] of each.
    """
    where = predicts_seg(input_ids, seg_token_id)
    return hidden[where], where.nonzero()[:, 0]
