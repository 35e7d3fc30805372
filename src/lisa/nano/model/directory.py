"""What a new lisa-nano is given before it is written: the tokens of all names it can see.

This file knows the projector's tables; it refuses to know files and weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lisa.errors import ModelError
from lisa.nano.model.lisa import NanoModel
from lisa.nano.model.processor import LisaProcessor


@torch.no_grad()
def write_names(model: NanoModel, processor: LisaProcessor, imagenet_names: Sequence[str]) -> None:
    """The tokens of the names that the projector writes a picture with.

    Raises:
        ModelError: a name has more tokens than there is room for.
    """
    projector = model.vlm.projector
    tables = {
        projector.class_ids: imagenet_names,
        projector.concept_ids: processor.config.concepts,
    }
    for table, names in tables.items():
        for row, name in zip(table, names, strict=True):
            ids = processor.phrase_ids(name)
            if len(ids) > len(row):
                raise ModelError(f"'{name}' has {len(ids)} tokens; expected at most {len(row)}")
            row[: len(ids)] = torch.tensor(ids)
    projector.comma_id.fill_(processor.comma_id)
