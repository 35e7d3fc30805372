"""Embedding-as-mask: the hidden states that predict ``[SEG]`` become prompts (LISA §3.2).

This file knows hidden states and ids. It refuses to know which language model made them and which
decoder reads the prompts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EmbeddingAsMask(nn.Module):
    """Linear, ReLU, linear: hidden states [.., H] -> prompts [.., P] (LISA §3.2, "an MLP projection")."""

    def __init__(self, hidden_size: int, prompt_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(hidden_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, prompt_size)
        )

    def forward(self, seg_hidden: Tensor) -> Tensor:
        return self.layers(seg_hidden)


def predicts_seg(input_ids: Tensor, seg_token_id: int) -> Tensor:
    """True [B, T] at each position whose *next* token is ``[SEG]``: its hidden state is the embedding."""
    following = torch.nn.functional.pad(input_ids[:, 1:], (0, 1), value=-1)
    return following == seg_token_id


def pick_seg_hidden(hidden: Tensor, input_ids: Tensor, seg_token_id: int) -> tuple[Tensor, Tensor]:
    """Hidden states [M, H] that predict ``[SEG]`` and the row [M] of each, row by row, left to right."""
    where = predicts_seg(input_ids, seg_token_id)
    return hidden[where], where.nonzero()[:, 0]
