"""Recall: which known thing a question is about, before anybody looks at the picture.

The lowest layers of the language model read the question by itself; what they make of it is pooled
into a query, and what they make of a name into that name's key. A question is near the names that
answer it. What is recalled is then weighed against what the eyes see (``weigh``).

This file knows states, names by number, and how sure the eyes are. It refuses to know text,
pixels, and what is said in the end.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LAYERS = 8  # of the language model, from below, read a question by itself
SIZE, WIDTH, HEADS, HIDDEN = 256, 128, 8, 512
EVIDENCE = 3  # numbers about each name: how well it answers, how sure it is to be seen, and where


class StatePool(nn.Module):
    """States [N, T, H] of a text -> one vector [N, SIZE] of length 1, by attention pooling."""

    def __init__(self, hidden_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.value = nn.Linear(hidden_size, WIDTH)
        self.attention = nn.Sequential(nn.Linear(hidden_size, WIDTH), nn.GELU(), nn.Linear(WIDTH, HEADS))
        self.out = nn.Sequential(
            nn.LayerNorm(WIDTH * HEADS),
            nn.Dropout(dropout),
            nn.Linear(WIDTH * HEADS, HIDDEN),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(HIDDEN, SIZE),
        )

    def forward(self, states: Tensor, known: Tensor) -> Tensor:
        """``known`` [N, T] says which states belong to the text; at least one of each does."""
        states = self.norm(states)
        looks = self.attention(states).masked_fill(~known[..., None], -torch.inf).softmax(1)
        pooled = torch.einsum("nth,ntd->nhd", looks, self.value(states))
        return F.normalize(self.out(pooled.flatten(1)), dim=-1)


class Recall(nn.Module):
    """A question -> which of K names it is about.

    Args:
        hidden_size: of the language model.
        names: K.
    """

    keys: Tensor  # [K, SIZE] written when training ends
    name_ids: Tensor  # [K, L] the names' tokens, padded with -1

    def __init__(self, hidden_size: int, names: int, name_tokens: int) -> None:
        super().__init__()
        self.question, self.name = StatePool(hidden_size), StatePool(hidden_size)
        self.freely = nn.Parameter(torch.randn(SIZE) / SIZE**0.5)
        self.log_scale = nn.Parameter(torch.tensor(2.5))
        self.weigh = nn.Linear(EVIDENCE, 1)
        self.register_buffer("keys", torch.zeros(names, SIZE))
        self.register_buffer("name_ids", torch.full((names, name_tokens), -1))

    def forward(self, states: Tensor, known: Tensor, keys: Tensor | None = None) -> Tensor:
        """Log-probabilities [N, K + 1] of the names; the last one says: answer freely.

        Args:
            states: [N, T, H] of the questions after ``LAYERS`` layers.
            known: bool [N, T].
            keys: of other names than those of the model.
        """
        keys = self.keys if keys is None else keys
        all_keys = torch.cat([keys, F.normalize(self.freely, dim=0)[None]])
        logits = self.question(states, known) @ all_keys.T * self.log_scale.exp()
        return logits.log_softmax(-1)

    def choose(self, recalled: Tensor, seen: Tensor) -> Tensor:
        """How good each name is as an answer: [N, K].

        Args:
            recalled: log-probabilities [N, K + 1], as ``forward`` gives them.
            seen: [N, K, EVIDENCE - 1] what the eyes say of the names.
        """
        evidence = torch.cat([recalled[:, :-1, None], seen], -1)
        return self.weigh(evidence)[..., 0]
