"""Tensors on their way from one checkpoint to another: renamed, merged, counted, not yet read.

``Tensors`` collects them under the names they will have and keeps what each was called; ``check``
holds them against those that a model wants. What changes a tensor (low-rank factors, rows for new
tokens) happens when it is read. This file refuses to know which checkpoint is which.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from lisa.checkpoints.checkpoint import Checkpoint, Planned
from lisa.checkpoints.official_names import LORA, Names, is_computed, merged_name, renamed
from lisa.errors import ModelError

ALPHA = 16.0  # of the official LoRA; its rank is read from the factors
NEW_ROW_STD = 0.02  # of the word embeddings of new tokens
NOT_NEEDED = (  # CLIP's text side; a copy of the vision tower, which nobody trains
    "text_model.",
    "text_projection.",
    "visual_projection.",
    "logit_scale",
    "model.vision_tower.",
)

Shape = tuple[int, ...]


def as_stored(checkpoint: Checkpoint, prefix: str = "") -> dict[str, Planned]:
    """The tensors of a checkpoint as they are, ``prefix`` put before their names."""
    return {
        f"{prefix}{key}": Planned(
            f"{prefix}{key}", tensor.shape, tensor.dtype, partial(checkpoint.read, key)
        )
        for key, tensor in checkpoint.tensors.items()
    }


def merged(checkpoint: Checkpoint, alpha: float = ALPHA) -> dict[str, Planned]:
    """The tensors of a model under PEFT, low-rank factors merged, without PEFT's prefixes.

    Raises:
        ModelError: a factor without the other one or without its matrix.
    """
    stored = as_stored(checkpoint)
    factors = {key: found for key in stored if (found := LORA.fullmatch(key))}
    tensors = {
        merged_name(key): replace(tensor, key=merged_name(key))
        for key, tensor in stored.items()
        if key not in factors
    }
    for key, found in factors.items():
        other = key.replace(f".lora_{found[2]}.", f".lora_{'BA'[found[2] == 'B']}.")
        name = f"{merged_name(found[1])}.weight"
        if other not in stored or name not in tensors:
            missing = name if name not in tensors else other
            raise ModelError(
                f"'{key}' has no '{missing}' beside it in '{checkpoint.path}'; expected low-rank "
                "factors with the matrix that they are added to"
            )
        if found[2] == "A":
            tensors[name] = with_factors(tensors[name], stored[key], stored[other], alpha)
    return tensors


def with_factors(matrix: Planned, down: Planned, up: Planned, alpha: float) -> Planned:
    """``matrix + alpha / rank * up @ down``, computed in float32 when it is read.

    Raises:
        ModelError: the shapes do not go together.
    """
    rank = down.shape[0]
    if (up.shape, down.shape) != ((matrix.shape[0], rank), (rank, matrix.shape[1])):
        raise ModelError(
            f"'{down.key}' and its pair form {list(up.shape)} x {list(down.shape)}; "
            f"expected the shape {list(matrix.shape)} of '{matrix.key}'"
        )

    def read() -> Tensor:
        product = up.read().float() @ down.read().float()
        return (matrix.read().float() + alpha / rank * product).to(matrix.dtype)

    return replace(matrix, read=read)


def with_rows(table: Planned, rows: int) -> Planned:
    """A table of word embeddings with random rows at its end, the same ones each time."""
    missing = rows - table.shape[0]
    if missing <= 0:
        return table

    def read() -> Tensor:
        generator = torch.Generator().manual_seed(0)
        new = torch.randn(missing, table.shape[1], generator=generator) * NEW_ROW_STD
        return torch.cat([table.read(), new.to(table.dtype)])

    return replace(table, shape=(rows, table.shape[1]), read=read)


def shapes_of(tensors: Mapping[str, Planned]) -> dict[str, Shape]:
    """Shapes by name."""
    return {key: tensor.shape for key, tensor in tensors.items()}


@dataclass
class Tensors:
    """Tensors on their way: by our key, and the key that each came from."""

    planned: dict[str, Planned] = field(default_factory=dict)
    origins: dict[str, tuple[str, Path]] = field(default_factory=dict)
    left_over: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(
        self, tensors: Iterable[Planned], names: Names, source: Path, prefix: str = ""
    ) -> Tensors:
        """Take ``tensors`` in under our names."""
        for tensor in tensors:
            ours = renamed(tensor.key, names)
            if is_computed(tensor.key) or tensor.key.startswith(NOT_NEEDED):
                self.left_out.append(tensor.key)
            elif ours is None:
                self.left_over.append(tensor.key)
            else:
                self.planned[prefix + ours] = replace(tensor, key=prefix + ours)
                self.origins[prefix + ours] = (tensor.key, source)
        return self

    def new(self, key: str, value: Tensor) -> None:
        """Put in a tensor that no checkpoint has."""
        self.planned[key] = Planned(key, tuple(value.shape), value.dtype, lambda: value)
        self.origins[key] = (key, Path("new"))


def check(tensors: Tensors, expected: Mapping[str, Shape], names: Names, source: Path) -> None:
    """Every tensor that the model has is there in its shape, and no other.

    Raises:
        ModelError: names up to three keys that are not so, in their official spelling.
    """
    found = problems(tensors, expected, names)
    if found:
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        raise ModelError(
            f"the tensors of '{source}' do not fit: {'; '.join(found[:3])}{more}; "
            "expected exactly those of the model"
        )


def problems(tensors: Tensors, expected: Mapping[str, Shape], names: Names) -> list[str]:
    """One line for each key that is missing, left over, or of another shape."""
    spelled = {key: renamed(key, names, back=True) or key for key in expected}
    spelled |= {key: name for key, (name, _) in tensors.origins.items()}
    found = {spelled[key]: tensor.shape for key, tensor in tensors.planned.items()}
    wanted = {spelled[key]: shape for key, shape in expected.items()}
    return differences(found | dict.fromkeys(tensors.left_over, ()), wanted)


def differences(found: Mapping[str, Shape], expected: Mapping[str, Shape]) -> list[str]:
    """One line for each key that is missing, left over, or of another shape."""
    return [
        *(f"'{key}' is missing" for key in sorted(expected.keys() - found.keys())),
        *(f"'{key}' is left over" for key in sorted(found.keys() - expected.keys())),
        *(
            f"'{key}' is {list(found[key])} instead of {list(expected[key])}"
            for key in sorted(found.keys() & expected.keys())
            if found[key] != expected[key]
        ),
    ]
