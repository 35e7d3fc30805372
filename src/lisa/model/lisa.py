"""LISA: embedding-as-mask, end to end (arXiv 2308.00692, §3.2 and figure 3).

A picture is encoded once. The language model reads it and the question and writes an answer; the
hidden state that predicts each ``[SEG]`` is projected into a prompt, and the mask decoder turns the
prompt into a mask. This file composes the parts and refuses to know what they are made of, how the
text became ids, and how losses are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lisa.model.config import LisaConfig
from lisa.model.head import EmbeddingAsMask, pick_seg_hidden
from lisa.model.interfaces import IGNORE_LABEL, Batch, DecodedMasks, Generated, Output
from lisa.model.nano import ImageFeatures, NanoDecoder
from lisa.model.vlm import NanoVlm, Prefix


@dataclass
class EncodedImages:
    """Pictures as the model keeps them: for the decoder, and for the language model."""

    features: ImageFeatures
    prefix: Prefix


class LisaModel(PreTrainedModel):
    """A vision-language model, a head and a mask decoder."""

    config_class = LisaConfig
    base_model_prefix = "lisa"
    _tied_weights_keys = {"vlm.language.lm_head.weight": "vlm.language.model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: LisaConfig) -> None:
        super().__init__(config)
        self.decoder = NanoDecoder(prompt_size=config.prompt_size, **config.decoder)
        self.vlm = NanoVlm(config)
        self.head = EmbeddingAsMask(self.vlm.hidden_size, config.prompt_size)
        self.post_init()

    def forward(self, batch: Batch, with_masks: bool = True) -> Output:
        """Read given answers; their ``[SEG]`` tokens become masks."""
        features = self.decoder.encode_image(batch.pixel_values)
        visual = self.vlm.visual_embeddings(features)  # [B, V, H]
        hidden = self.vlm.hidden_states(batch, visual)  # [B, T, H]
        seg_hidden, seg_rows = pick_seg_hidden(hidden, batch.input_ids, self.config.seg_token_id)
        seg_prompts = self.head(seg_hidden)  # [M, P]
        masks = self.decoder.decode(features, seg_prompts, seg_rows) if with_masks else None
        spoken = hidden[predicts_supervised(batch)]  # [K, H]
        return Output(self.vlm.logits(spoken), seg_prompts, seg_rows, masks)

    def segment_phrases(self, batch: Batch) -> DecodedMasks:
        """Masks of things by name alone, without the language model's layers: how the eyes are trained."""
        assert batch.phrase_ids is not None and batch.image_index is not None
        features = self.decoder.encode_image(batch.pixel_values)
        return self.decoder.decode(
            features, self.phrase_prompts(batch.phrase_ids), batch.image_index
        )

    def phrase_prompts(self, phrase_ids: Tensor) -> Tensor:
        """Prompts [N, P] of phrases [N, L] padded with -1."""
        return self.vlm.projector.name_prompt(self.vlm.name_embeddings(phrase_ids))

    @torch.inference_mode()
    def encode_images(self, pixel_values: Tensor, prefix_ids: Tensor) -> EncodedImages:
        """Pictures [B, 3, S, S], and the row's tokens up to the question [B, V + ...]."""
        features = self.decoder.encode_image(pixel_values)
        return EncodedImages(
            features, self.vlm.encode_prefix(prefix_ids, self.vlm.visual_embeddings(features))
        )

    @torch.inference_mode()
    def generate(  # type: ignore[override]
        self,
        images: EncodedImages,
        questions: Sequence[Sequence[int]],
        image_index: Sequence[int],
        *,
        end_token_id: int,
        answers: Sequence[Sequence[int] | None] | None = None,
        max_new_tokens: int = 48,
    ) -> list[Generated]:
        """Answer questions greedily; ``questions[n]`` (ids) asks about picture ``image_index[n]``.

        A given answer (ids) is read instead of generated: the paper's teacher-forced protocol.
        """
        rows = torch.tensor(list(image_index), device=images.features.fused.device)
        given = [
            None if answer is None else list(answer)
            for answer in answers or [None] * len(questions)
        ]
        answered = self._answer(images.prefix, rows, questions, given, end_token_id, max_new_tokens)
        counts = [len(answer.seg_hidden) for answer in answered]
        seg_hidden = [hidden for answer in answered for hidden in answer.seg_hidden]
        prompts = (
            self.head(torch.stack(seg_hidden))
            if seg_hidden
            else rows.new_zeros((0, self.config.prompt_size)).float()
        )
        masks = self.decoder.decode(
            images.features, prompts, rows.repeat_interleave(rows.new_tensor(counts))
        )
        per_answer = split_masks(masks, counts)
        return [Generated(a.token_ids, m) for a, m in zip(answered, per_answer, strict=True)]

    def _answer(
        self,
        prefix: Prefix,
        rows: Tensor,
        questions: Sequence[Sequence[int]],
        given: list[list[int] | None],
        end_token_id: int,
        max_new_tokens: int,
    ) -> list[Answer]:
        """Greedy decoding of all questions side by side, with one cache."""
        ids, known = pad_left(questions, rows)
        cache = prefix.cache(rows)
        mask = torch.cat([known.new_ones(len(rows), prefix.length), known], 1)
        positions = prefix.length + (known.long().cumsum(1) - 1).clamp(min=0)
        answers = [Answer([], []) for _ in questions]
        for step in range(max_new_tokens):
            hidden = self.vlm.step(ids, cache, mask, positions)[:, -1]  # [N, H]
            chosen = self.vlm.logits(hidden).argmax(-1).tolist()
            for n, answer in enumerate(answers):
                answer.take(
                    hidden[n],
                    follow(given[n], step, chosen[n], end_token_id),
                    self.config.seg_token_id,
                    end_token_id,
                )
            if all(answer.ended for answer in answers):
                break
            ids = rows.new_tensor([[answer.last] for answer in answers])
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
            positions = positions[:, -1:] + 1
        return answers


@dataclass
class Answer:
    """An answer as it grows."""

    token_ids: list[int]
    seg_hidden: list[Tensor]  # the hidden state that predicted each [SEG]
    ended: bool = False
    last: int = 0

    def take(self, hidden: Tensor, token: int, seg_token_id: int, end_token_id: int) -> None:
        """Append the token that ``hidden`` [H] predicted."""
        self.last = token
        self.ended = self.ended or token == end_token_id
        if self.ended:
            return
        self.token_ids.append(token)
        if token == seg_token_id:
            self.seg_hidden.append(hidden)


def follow(given: list[int] | None, step: int, chosen: int, end_token_id: int) -> int:
    """The model's own choice, or the next token of a given answer."""
    if given is None:
        return chosen
    return given[step] if step < len(given) else end_token_id


def pad_left(questions: Sequence[Sequence[int]], like: Tensor) -> tuple[Tensor, Tensor]:
    """Ids [N, L] with zeros before the shorter ones, and where the real ones are [N, L] bool."""
    length = max(len(question) for question in questions)
    ids = like.new_tensor([[0] * (length - len(q)) + list(q) for q in questions])
    known = like.new_tensor([[0] * (length - len(q)) + [1] * len(q) for q in questions]).bool()
    return ids, known


def predicts_supervised(batch: Batch) -> Tensor:
    """True [B, T] where the next token has a label."""
    assert batch.labels is not None, "this batch has no answers to read"
    following = torch.nn.functional.pad(batch.labels[:, 1:], (0, 1), value=IGNORE_LABEL)
    return following != IGNORE_LABEL


def split_masks(masks: DecodedMasks, counts: list[int]) -> list[DecodedMasks]:
    """Masks of all prompts -> masks of each answer."""
    parts = (getattr(masks, field.name).split(counts) for field in fields(masks))
    return [DecodedMasks(*row) for row in zip(*parts, strict=True)]
