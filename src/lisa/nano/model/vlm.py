"""The language side of the embedded model: Llama layers that read a picture as names they know.

``SemanticProjector`` writes a picture in the language model's own words: at every place the mean
input embeddings of the names that the eyes see there, and after them the names found most surely
anywhere, spelled out. ``NanoVlm`` puts these in front of the question. This file knows embeddings
and hidden states; it refuses to know pixels, strings and masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from lisa.errors import ModelError
from lisa.model.config import LisaConfig
from lisa.model.generation import DecodingState, cache_name, count_places, pad_left
from lisa.model.interfaces import PADDING_SEGMENT, PICTURE_SEGMENT, Batch, Pictures
from lisa.nano.model.decoder import ImageFeatures
from lisa.nano.model.projector import SemanticProjector, mean_embeddings
from lisa.nano.model.retriever import Recall


@dataclass
class Prefix:
    """Keys and values of a picture's tokens at every layer, shared by all questions about it."""

    layers: list[tuple[Tensor, Tensor]]  # per layer [B, heads, V, head size]

    @property
    def length(self) -> int:
        return self.layers[0][0].shape[2]

    def cache(self, image_index: Tensor) -> DynamicCache:
        """A fresh cache whose row n continues picture ``image_index[n]``."""
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(self.layers):
            cache.update(keys[image_index], values[image_index], layer)
        return cache


class NanoVlm(nn.Module):
    """Llama behind a semantic projector, with the one new token ``[SEG]``.

    The token's input and output embeddings are two vectors of their own, so that the language
    model's table stays as it was.

    Raises:
        ModelError: ``[SEG]`` is not the token after the language model's own.
    """

    def __init__(self, config: LisaConfig) -> None:
        super().__init__()
        self.language = LlamaForCausalLM(LlamaConfig(**config.language))
        if config.seg_token_id != self.language.config.vocab_size:
            raise ModelError(
                f"seg_token_id is {config.seg_token_id}; expected {self.language.config.vocab_size}"
                ", the one after the language model's own tokens"
            )
        self.hidden_size: int = self.language.config.hidden_size
        self.seg_token_id = config.seg_token_id
        self.projector = SemanticProjector(config, self.hidden_size)
        sizes = config.prompt_size, len(config.recall_names), config.recall_texts
        self.recall = Recall(self.hidden_size, *sizes) if config.recall_names else None
        self.recall_layers = config.recall_layers
        self.seg_input = nn.Parameter(torch.randn(self.hidden_size) * 0.02)
        self.seg_output = nn.Parameter(torch.randn(self.hidden_size) * 0.02)

    @property
    def vocabulary(self) -> Tensor:
        """The language model's own input embeddings [vocabulary, H]."""
        return self.language.model.embed_tokens.weight

    def embed(self, input_ids: Tensor) -> Tensor:
        """Input embeddings [.., H] of ids, ``[SEG]`` included."""
        is_seg = (input_ids == self.seg_token_id)[..., None]
        known = F.embedding(input_ids.clamp(0, len(self.vocabulary) - 1), self.vocabulary)
        return torch.where(is_seg, self.seg_input, known)

    def name_embeddings(self, phrase_ids: Tensor) -> Tensor:
        """Mean input embedding [N, H] of phrases [N, L] padded with -1."""
        return mean_embeddings(self.embed, phrase_ids)

    def visual_embeddings(self, features: ImageFeatures) -> Tensor:
        return self.projector(features, self.embed)

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits [.., vocabulary + 1]; the last one is ``[SEG]``."""
        known = self.language.lm_head(hidden)
        return torch.cat([known, (hidden @ self.seg_output)[..., None]], -1)

    def hidden_states(self, batch: Batch, visual: Tensor) -> Tensor:
        """Last hidden states [B, T, H]; visual tokens [B, V, H] replace the picture's places."""
        embeddings = self.embed(batch.input_ids)
        places = visual_places(batch.segments, visual.shape[1])
        embeddings = embeddings.masked_scatter(places[..., None], visual.to(embeddings.dtype))
        return self.language.model(
            inputs_embeds=embeddings,
            attention_mask=segment_mask(batch.segments),
            position_ids=batch.position_ids,
            use_cache=False,
        ).last_hidden_state

    def read_alone(self, texts: Tensor) -> tuple[Tensor, Tensor]:
        """What the lowest layers make of texts [N, T] padded with -1, each by itself.

        Returns:
            States [N, T, H], and which of them belong to a text, bool [N, T].
        """
        known = texts >= 0
        language, ids = self.language.model, F.pad(texts.clamp(min=0), (1, 0))  # 0 starts a text
        places = torch.arange(ids.shape[1], device=ids.device)[None]
        mask = segment_mask(F.pad(known.long() - 1, (1, 0)))
        states = self.embed(ids)
        rotary = language.rotary_emb(states, places)
        for layer in language.layers[: self.recall_layers]:
            states = layer(
                states, attention_mask=mask, position_ids=places, position_embeddings=rotary
            )
        return states[:, 1:], known

    def encode_prefix(self, prefix_ids: Tensor, visual: Tensor) -> Prefix:
        """Run the picture's part of a row once: ids [B, V + ...], visual tokens [B, V, H]."""
        embeddings = self.embed(prefix_ids)
        places = visual_places(torch.zeros_like(prefix_ids), visual.shape[1])
        embeddings = embeddings.masked_scatter(places[..., None], visual.to(embeddings.dtype))
        cache = DynamicCache()
        name = cache_name(self.language.model)
        self.language.model(inputs_embeds=embeddings, use_cache=True, **{name: cache})
        return Prefix([(keys, values) for keys, values, *_ in cache])

    def keep(self, pictures: Pictures, visual: Tensor) -> Prefix:
        """What is kept of pictures for questions about them."""
        assert pictures.prefix_ids is not None
        return self.encode_prefix(pictures.prefix_ids, visual)

    def open(
        self, prefix: Prefix, rows: Tensor, questions: Sequence[Sequence[int]]
    ) -> DecodingState:
        """Questions, question n about picture ``rows[n]``, ready to be read."""
        ids, known = pad_left(questions, rows)
        mask = torch.cat([known.new_ones(len(rows), prefix.length), known], 1)
        return DecodingState(ids, prefix.cache(rows), mask, prefix.length + count_places(known))

    def step(self, reading: DecodingState) -> Tensor:
        """Hidden states [N, t, H] of the ids that ``reading`` has not read yet."""
        return self.language.model(
            inputs_embeds=self.embed(reading.input_ids),
            attention_mask=reading.mask,
            position_ids=reading.positions,
            use_cache=True,
            **{cache_name(self.language.model): reading.cache},
        ).last_hidden_state

    def next_ids(self, reading: DecodingState) -> Tensor:
        """Log-probabilities [N, vocabulary + 1] of what follows; ``reading`` is read for that."""
        return self.logits(self.step(reading)[:, -1]).log_softmax(-1)

    def likelihoods(
        self, reading: DecodingState, following: Tensor, answers: Sequence[Sequence[Sequence[int]]]
    ) -> Tensor:
        """Log-probabilities [N, K] of K answers (ids) to each of N questions.

        Args:
            reading: the questions, read; its cache is used up.
            following: as ``next_ids`` gives it for them.
            answers: of each question; a question is not read again for each of them.
        """
        count = len(answers[0])
        flat = [torch.tensor(list(answer)) for of_one in answers for answer in of_one]
        ids = nn.utils.rnn.pad_sequence(flat, batch_first=True, padding_value=-1)
        ids = ids.to(following.device)
        known = ids >= 0
        cache = reading.cache
        assert cache is not None
        cache.batch_repeat_interleave(count)
        mask = torch.cat([reading.mask.repeat_interleave(count, 0), known], 1)
        places = torch.arange(1, ids.shape[1] + 1, device=ids.device)
        positions = reading.positions[:, -1:].repeat_interleave(count, 0) + places
        states = self.step(DecodingState(ids.clamp(min=0), cache, mask, positions))
        later = self.logits(states[:, :-1]).log_softmax(-1)
        later = later.gather(2, ids[:, 1:, None].clamp(min=0))[..., 0] * known[:, 1:]
        begun = following.repeat_interleave(count, 0).gather(1, ids[:, :1])[:, 0]
        return (begun + later.sum(1)).unflatten(0, (-1, count))


def visual_places(segments: Tensor, count: int) -> Tensor:
    """True [B, T] where the picture's ``count`` visual tokens go: before its last token."""
    length = (segments == PICTURE_SEGMENT).sum(1, keepdim=True)
    index = torch.arange(segments.shape[1], device=segments.device)
    return (index >= length - 1 - count) & (index < length - 1)


def segment_mask(segments: Tensor) -> Tensor:
    """Who may look at whom, [B, 1, T, T]: causal, the picture and one's own question only."""
    looks, seen = segments[:, :, None], segments[:, None, :]  # [B, T, 1], [B, 1, T]
    related = ((seen == PICTURE_SEGMENT) | (seen == looks)) & (seen != PADDING_SEGMENT)
    place = torch.arange(segments.shape[1], device=segments.device)
    causal, itself = place[:, None] >= place, place[:, None] == place  # [T, T]
    return (related & causal | itself)[:, None]
