"""The language side of the embedded model: Llama layers that read a picture as names they know.

``SemanticProjector`` writes a picture in the language model's own words: at every place the mean
input embeddings of the names that the eyes see there, and after them the names found most surely
anywhere, spelled out. ``NanoVlm`` puts these in front of the question. This file knows embeddings
and hidden states; it refuses to know pixels, strings and masks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from lisa.errors import ModelError
from lisa.model.config import LisaConfig
from lisa.model.interfaces import PADDING_SEGMENT, PICTURE_SEGMENT, Batch, Pictures
from lisa.model.nano import IMAGENET_CLASSES, FourierPosition, ImageFeatures, here_logits
from lisa.model.reading import Reading, cache_name, count_places, pad_left
from lisa.model.recall import Recall

NAME_TOKENS = 12  # of the longest name
CONCEPT, CLASS, PLACE = range(3)  # kinds of visual tokens


class NamePrompt(nn.Module):
    """Mean input embedding of a name's tokens [.., H] -> a prompt [.., P].

    No layer of the language model is needed. It trains the eyes before the mind is there, and it
    turns the bank of concept names into prompts.
    """

    def __init__(self, hidden_size: int, prompt_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(hidden_size),
            nn.Linear(hidden_size, 2 * hidden_size),
            nn.GELU(),
            nn.Linear(2 * hidden_size, prompt_size),
        )

    def forward(self, name_embeddings: Tensor) -> Tensor:
        return self.layers(name_embeddings)


@dataclass
class FoundNames:
    """Names that were seen in pictures: K a picture, the surest first."""

    ids: Tensor  # [B, K, L] their tokens, padded with -1
    places: Tensor  # [B, K, H] where each was seen most surely, as ``place_vectors`` has it
    scores: Tensor  # [B, K] probability there
    kinds: Tensor  # [K] CONCEPT or CLASS

    @classmethod
    def join(cls, parts: Sequence[FoundNames]) -> FoundNames:
        """The names of several lists, one list after the other."""
        ids, places, scores = (
            torch.cat([getattr(part, name) for part in parts], 1)
            for name in ("ids", "places", "scores")
        )
        return cls(ids, places, scores, torch.cat([part.kinds for part in parts]))


class SemanticProjector(nn.Module):
    """Picture features -> visual tokens [B, grid² + found tokens, H].

    One token a place, which mixes the names seen there; then the names found most surely anywhere,
    spelled out in the language model's own tokens.
    """

    class_ids: Tensor  # [1000, NAME_TOKENS] tokens of the ImageNet names, padded with -1
    concept_ids: Tensor  # [M, NAME_TOKENS] the same of ``config.concepts``
    comma_id: Tensor  # [] the token between names

    def __init__(self, config: LisaConfig, hidden_size: int) -> None:
        super().__init__()
        self.grid = config.grid
        self.found = (config.found_concepts, config.found_classes)
        self.found_tokens = config.found_tokens
        width = config.decoder["width"]
        for name, count in (("class_ids", IMAGENET_CLASSES), ("concept_ids", len(config.concepts))):
            self.register_buffer(name, torch.full((count, NAME_TOKENS), -1))
        self.register_buffer("comma_id", torch.tensor(0))
        self.name_prompt = NamePrompt(hidden_size, config.prompt_size)
        self.learned = nn.Sequential(
            nn.Linear(width, hidden_size), nn.GELU(), nn.Linear(hidden_size, hidden_size)
        )
        self.place = FourierPosition(width)
        self.place_embedding = nn.Linear(width, hidden_size)
        nn.init.normal_(self.place_embedding.weight, std=0.005)  # whispers beside the word itself
        nn.init.zeros_(self.place_embedding.bias)
        self.kind_embedding = nn.Parameter(torch.zeros(3, hidden_size))  # concept, class, place
        self.score_embedding = nn.Parameter(torch.zeros(2, hidden_size))

    def forward(self, features: ImageFeatures, embed: Callable[[Tensor], Tensor]) -> Tensor:
        """``embed`` gives the language model's input embeddings of ids."""
        classes, concepts = (
            mean_embeddings(embed, ids) for ids in (self.class_ids, self.concept_ids)
        )
        probabilities = self.concept_probabilities(features, concepts)  # [B, M, h, w]
        named = names_by_place(probabilities, concepts)
        named = named + torch.einsum("bchw,cd->bdhw", features.semantic, classes)
        learned = self.learned(features.context.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        found = [
            self.surest(probabilities, self.concept_ids, CONCEPT),
            self.surest(features.semantic, self.class_ids, CLASS),
        ]
        places = self.place_tokens(named + learned)
        return torch.cat([places, self.spell(FoundNames.join(found), embed)], 1)

    def concept_probabilities(self, features: ImageFeatures, concepts: Tensor) -> Tensor:
        """Probability [B, M, h, w] that each concept [M, H] of the bank is at each location.

        Names compete: two for one place can hardly both be right, however sure the eyes are.
        """
        prompts = self.name_prompt(concepts)
        logits = here_logits(features.keys, prompts.expand(len(features.keys), -1, -1))
        return logits.sigmoid() * logits.softmax(1)

    def place_vectors(self, height: int, width: int) -> Tensor:
        """What says where: [height * width, H], row by row."""
        return self.place_embedding(self.place(height, width))

    def place_tokens(self, seen: Tensor) -> Tensor:
        """What is seen at each location [B, H, h, w] -> one token a cell [B, grid², H]."""
        tokens = F.adaptive_avg_pool2d(seen, self.grid).flatten(2).transpose(1, 2)
        return tokens + self.place_vectors(self.grid, self.grid) + self.kind_embedding[PLACE]

    def surest(self, probabilities: Tensor, ids: Tensor, kind: int) -> FoundNames:
        """The names with the highest peaks in ``probabilities`` [B, M, h, w]."""
        places = self.place_vectors(*probabilities.shape[-2:])
        peaks, cells = probabilities.flatten(2).max(-1)  # [B, M]
        scores, index = peaks.topk(min(self.found[kind], len(ids)), dim=1)
        kinds = torch.full((scores.shape[1],), kind, device=scores.device)
        return FoundNames(ids[index], places[cells.gather(1, index)], scores, kinds)

    def spell(self, found: FoundNames, embed: Callable[[Tensor], Tensor]) -> Tensor:
        """The names token by token, commas after them, all with place and score: [B, found, H].

        What does not fit is left out; what stays free is zero.
        """
        commas = torch.where(found.ids[..., :1] >= 0, self.comma_id, -1)  # none in a free slot
        spelled = torch.cat([found.ids, commas], 2)
        count, length = spelled.shape[1:]
        ids, owners = spelled.flatten(1), torch.arange(count, device=spelled.device)
        order = torch.argsort((ids < 0).long(), dim=1, stable=True)[
            :, : self.found_tokens
        ]  # real ones first
        ids, owners = ids.gather(1, order), owners.repeat_interleave(length)[order]  # [B, F]
        sure = found.scores[..., None] * self.score_embedding[found.kinds]
        about = found.places + sure + self.kind_embedding[found.kinds]  # [B, K, H]
        rows = torch.arange(len(ids), device=ids.device)[:, None]
        tokens = embed(ids.clamp(min=0)) + about[rows, owners]
        tokens = tokens * (ids >= 0)[..., None]
        return F.pad(tokens, (0, 0, 0, self.found_tokens - tokens.shape[1]))


def mean_embeddings(embed: Callable[[Tensor], Tensor], ids: Tensor) -> Tensor:
    """Mean input embedding [N, H] of names [N, L] padded with -1."""
    known = (ids >= 0)[..., None]
    return (embed(ids.clamp(min=0)) * known).sum(1) / known.sum(1).clamp(min=1)


def names_by_place(probabilities: Tensor, embeddings: Tensor) -> Tensor:
    """Names [M, H] mixed by their probabilities [B, M, h, w] at each location: [B, H, h, w]."""
    mixed = torch.einsum("bmhw,md->bdhw", probabilities, embeddings)
    return mixed / probabilities.sum(1, keepdim=True).clamp(min=1)


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

    def open(self, prefix: Prefix, rows: Tensor, questions: Sequence[Sequence[int]]) -> Reading:
        """Questions, question n about picture ``rows[n]``, ready to be read."""
        ids, known = pad_left(questions, rows)
        mask = torch.cat([known.new_ones(len(rows), prefix.length), known], 1)
        return Reading(ids, prefix.cache(rows), mask, prefix.length + count_places(known))

    def step(self, reading: Reading) -> Tensor:
        """Hidden states [N, t, H] of the ids that ``reading`` has not read yet."""
        return self.language.model(
            inputs_embeds=self.embed(reading.input_ids),
            attention_mask=reading.mask,
            position_ids=reading.positions,
            use_cache=True,
            **{cache_name(self.language.model): reading.cache},
        ).last_hidden_state

    def next_ids(self, reading: Reading) -> Tensor:
        """Log-probabilities [N, vocabulary + 1] of what follows; ``reading`` is read for that."""
        return self.logits(self.step(reading)[:, -1]).log_softmax(-1)

    def likelihoods(
        self, reading: Reading, following: Tensor, answers: Sequence[Sequence[Sequence[int]]]
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
        states = self.step(Reading(ids.clamp(min=0), cache, mask, positions))
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
