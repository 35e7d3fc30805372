"""A model of ``transformers`` as a part of ours: what it knows about its weights stays known.

``PreTrainedModel`` asks its children which weights are one and the same, which layers must stay
together and which stay in float32; a part answers for the model in it.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel

KNOWN = (
    "_no_split_modules",
    "_keep_in_fp32_modules",
    "_keep_in_fp32_modules_strict",
    "_skip_keys_device_placement",
)


class Part(nn.Module):
    """A module around ``model``."""

    model: Any  # a PreTrainedModel of one of many families

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.all_tied_weights_keys = {
            f"model.{copy}": f"model.{source}"
            for copy, source in model.all_tied_weights_keys.items()
        }
        for name in KNOWN:
            setattr(self, name, getattr(model, name, None))
