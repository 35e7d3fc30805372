"""Low-rank adaptation of the language model (arXiv 2106.09685): put in once, trained by stages.

The lowest layers stay as published: they also read questions by themselves (model/recall).

This file knows which matrices are adapted; it refuses to know what is learnt.
"""

from __future__ import annotations

from dataclasses import replace

from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from lisa.nano.model.lisa import NanoModel

LORA = LoraConfig(
    r=16,
    lora_alpha=32,
    lora_dropout=0.0,
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
)


def adapt_language(model: NanoModel) -> None:
    """Add low-rank factors to the language model, unless it has them."""
    if not adapted(model):
        layers = range(model.config.recall_layers, model.vlm.language.config.num_hidden_layers)
        chosen = replace(LORA, layers_to_transform=list(layers), layers_pattern="layers")
        inject_adapter_in_model(chosen, model.vlm.language)


def adapted(model: NanoModel) -> list[nn.Parameter]:
    """The low-rank factors."""
    return [p for name, p in model.vlm.language.named_parameters() if ".lora_" in name]
