"""How fast the paper trains: its numbers, AdamW, and the learning rate over updates (§4.1).

This file knows the numbers of the recipe; it refuses to know which parameters are trained.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

LAGGING = ("official", "deepspeed")  # schedules that are one update late


@dataclass(frozen=True)
class Recipe:
    """The numbers of the paper's training.

    ``compat`` "official" or "deepspeed" reproduces the schedule of DeepSpeed: see ``warmup_decay``.
    """

    steps: int = 5000  # updates
    learning_rate: float = 3e-4
    warmup: int = 100  # updates
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    lora_rank: int = 8  # 0: no factors, the whole language model is trained
    lora_alpha: int = 16
    lora_dropout: float = 0.05
    lora_targets: tuple[str, ...] = ("q_proj", "v_proj")
    compat: str = ""


PAPER = Recipe()


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Add the low-rank factors to their matrices and take them out, in place."""
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, LoraLayer)]
    for name, layer in layers:
        layer.merge()
        model.set_submodule(name, layer.get_base_layer())


def make_optimizer(
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]], recipe: Recipe = PAPER
) -> tuple[torch.optim.AdamW, LambdaLR]:
    """AdamW of parameters, or of groups of them, and its schedule.

    Call ``step`` of both once per update, the schedule's last.
    """
    optimizer = torch.optim.AdamW(
        parameters,
        lr=recipe.learning_rate,
        betas=recipe.betas,
        weight_decay=recipe.weight_decay,
    )
    return optimizer, LambdaLR(
        optimizer, lambda update: warmup_decay(update, recipe.steps, recipe.warmup, recipe.compat)
    )


def warmup_decay(update: int, steps: int, warmup: int, compat: str = "") -> float:
    """The share of the learning rate at an update, counted from 0: up in a line, down in a line.

    The full rate is reached after ``warmup`` updates, and zero after ``steps``. With
    ``compat="official"`` as in the official runs (DeepSpeed before 0.11): the first update has the
    full rate, and from the second, which has none, the line lags one update behind. With
    ``compat="deepspeed"`` as in DeepSpeed since 0.11, where the first has none either.
    """
    if compat == "official" and update == 0:
        return 1.0
    if compat in LAGGING:
        return line(max(0, update - 1), steps, warmup)
    return line(update + 1, steps, warmup) if update < warmup else line(update, steps, warmup)


def line(update: int, steps: int, warmup: int) -> float:
    """From 0 up to 1 at ``warmup``, and down to 0 at ``steps``."""
    if update < warmup:
        return update / warmup
    return max(0.0, (steps - update) / max(1, steps - warmup))
