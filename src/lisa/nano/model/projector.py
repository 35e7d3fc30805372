"""Image features -> visual tokens: the names seen, in the language model's own word embeddings.

Some tokens mix the names seen at one place of a grid; others spell out the names found most surely.
This file knows features and embeddings; it refuses to know questions and masks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lisa.model.config import LisaConfig
from lisa.nano.model.decoder import FourierPosition, ImageFeatures, location_logits
from lisa.nano.model.tower import IMAGENET_CLASSES

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
        logits = location_logits(features.keys, prompts.expand(len(features.keys), -1, -1))
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
