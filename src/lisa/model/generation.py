"""``DecodingState``: rows of ids on their way through a language model, and what was read before.

This file knows ids, places and who may be looked at; it refuses to know what the ids mean.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import Cache


@dataclass
class DecodingState:
    """Rows that continue what ``cache`` holds, if there is one."""

    input_ids: Tensor  # [R, t] not read yet
    cache: Cache | None  # grows as they are read
    mask: Tensor  # [R, cached + t] bool, False on padding
    positions: Tensor  # [.., R, t]
    inputs: dict[str, Tensor] = field(default_factory=dict)  # pictures that come with the ids

    def then(self, tokens: Sequence[int]) -> DecodingState:
        """The reading goes on with one token for each row."""
        ids = self.input_ids.new_tensor(list(tokens))[:, None]
        mask = torch.cat([self.mask, self.mask.new_ones(len(ids), 1)], 1)
        return DecodingState(ids, self.cache, mask, self.positions[..., -1:] + 1)


def cache_name(model: nn.Module) -> str:
    """What a model of ``transformers`` calls its cache: newer versions have a shorter name."""
    names = inspect.signature(model.forward).parameters
    return "cache" if "cache" in names else "past_key_values"


def pad_left(rows: Sequence[Sequence[int]], like: Tensor) -> tuple[Tensor, Tensor]:
    """Ids [R, T] with zeros before the shorter ones, and where the real ones are [R, T] bool."""
    length = max(len(row) for row in rows)
    ids = like.new_tensor([[0] * (length - len(row)) + list(row) for row in rows])
    known = like.new_tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows]).bool()
    return ids, known


def count_places(known: Tensor) -> Tensor:
    """Positions [R, T] of rows padded on the left: 0 for the first real id."""
    return (known.long().cumsum(1) - 1).clamp(min=0)
