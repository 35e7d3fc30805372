"""Embedding-as-mask: the hidden states that predict ``[SEG]`` become prompts (LISA §3.2).

This file knows hidden states and ids. It refuses to know which language model made them and which
decoder reads the prompts.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


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
