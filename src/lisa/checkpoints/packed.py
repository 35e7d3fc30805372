"""How matrices are spelled on disk, and reading them back without losing one.

A weight directory holds ``config.json``, ``tokenizer.json`` and any number of ``*.safetensors``.
Under a parameter's name a file may hold the tensor itself, or

    name.q4_1            uint8 [rows, blocks, 20]: blocks of 32 numbers as GGUF's Q4_1 has them
    name.q8_0            uint8 [rows, blocks, 34]: the same for Q8_0
    name.lora_A, lora_B  a low-rank difference; ``lora_B @ lora_A`` is added to the matrix

(block formats: the GGUF specification, ggml-common.h). What is read is what runs: float32. This
file knows bytes and names; it refuses to know what the tensors mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from lisa.checkpoints.checkpoint import dtype_name, read_file
from lisa.errors import ModelError

BLOCK_BYTES = {"q4_1": 20, "q8_0": 34}  # for 32 numbers
SPELLINGS = tuple(BLOCK_BYTES)
LOW_RANK = ("lora_A", "lora_B")


def unpack_q4_1(blocks: Tensor) -> Tensor:
    """uint8 [rows, blocks, 20] -> float32 [rows, 32 * blocks]: scale * code + minimum."""
    header = blocks[..., :4].contiguous().view(torch.float16).float()  # scale, minimum
    codes = blocks[..., 4:]
    nibbles = torch.cat([codes & 15, codes >> 4], -1)  # [rows, blocks, 32]
    return torch.addcmul(header[..., 1:], nibbles.float(), header[..., :1]).flatten(1)


def unpack_q8_0(blocks: Tensor) -> Tensor:
    """uint8 [rows, blocks, 34] -> float32 [rows, 32 * blocks]: scale * code."""
    scale = blocks[..., :2].contiguous().view(torch.float16).float()
    codes = blocks[..., 2:].contiguous().view(torch.int8)
    return (codes.float() * scale).flatten(1)


UNPACK: dict[str, Callable[[Tensor], Tensor]] = {"q4_1": unpack_q4_1, "q8_0": unpack_q8_0}


def assemble(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stored tensors under any spelling -> float32 state dict.

    Raises:
        ModelError: a tensor that is not what its spelling says, a parameter that is spelled twice,
            a low-rank factor without the other one or without a matrix that it fits.
    """
    state: dict[str, Tensor] = {}
    for key, tensor in stored.items():
        name, spelling = split_key(key)
        if spelling in LOW_RANK:
            continue
        if name in state:
            raise ModelError(f"'{name}' is stored in two spellings; expected one")
        state[name] = plain(key, tensor)
    for key in stored:
        name, spelling = split_key(key)
        if spelling in LOW_RANK and not complete_pair(key, stored):
            raise ModelError(f"'{key}' has no matrix to add to; expected its base and pair")
        if spelling == "lora_A":
            factors = [stored[f"{name}.{factor}"] for factor in LOW_RANK]
            state[name] = add_low_rank(name, state[name], *factors)
    return state


def split_key(key: str) -> tuple[str, str]:
    """``"x.weight.q4_1"`` -> ``("x.weight", "q4_1")``; the second is "" for a tensor as it is."""
    name, _, suffix = key.rpartition(".")
    return (name, suffix) if suffix in (*SPELLINGS, *LOW_RANK) else (key, "")


def plain(key: str, tensor: Tensor) -> Tensor:
    """A stored tensor of any spelling as float32; counters keep their type."""
    spelling = split_key(key)[1]
    if not spelling:
        kind = torch.float32 if tensor.is_floating_point() else tensor.dtype
        return tensor.to(kind, copy=True)  # out of the file, which may be replaced while we run
    size = BLOCK_BYTES[spelling]
    if tensor.dtype != torch.uint8 or tensor.ndim != 3 or tensor.shape[2] != size:
        raise ModelError(
            f"'{key}' holds {dtype_name(tensor)} {list(tensor.shape)}; "
            f"expected uint8 [rows, blocks, {size}]"
        )
    return UNPACK[spelling](tensor)


def add_low_rank(name: str, matrix: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """``matrix`` [rows, columns] + ``up`` [rows, rank] @ ``down`` [rank, columns]."""
    rank = len(down) if down.ndim else 0
    fits = matrix.ndim == 2 and (up.shape, down.shape) == (
        (matrix.shape[0], rank),
        (rank, matrix.shape[-1]),
    )
    if not fits:
        raise ModelError(
            f"the low-rank factors {list(up.shape)} and {list(down.shape)} do not fit '{name}'; "
            f"expected a product of {list(matrix.shape)}"
        )
    return torch.addmm(matrix, up.float(), down.float())


def read_weights(directory: Path) -> dict[str, Tensor]:
    """All tensors of a weight directory as a float32 state dict.

    Raises:
        ModelError: no weight file, or one that is damaged, or weights that ``assemble`` refuses;
            the message names the file, or the tensor and the directory.
    """
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise ModelError(f"no weights in '{directory}'; expected *.safetensors files")
    stored: dict[str, Tensor] = {}
    for path in files:
        tensors = read_file(path)
        twice = sorted(tensors.keys() & stored.keys())
        if twice:
            raise ModelError(f"'{path}' holds '{twice[0]}' a second time; expected it in one file")
        stored |= tensors
    try:
        return assemble(stored)
    except ModelError as error:
        raise ModelError(f"cannot use the weights in '{directory}': {error}") from error


def complete_pair(key: str, stored: Mapping[str, Tensor]) -> bool:
    """A low-rank factor needs the other one and a matrix to be added to."""
    name = split_key(key)[0]
    bases = {name, *(f"{name}.{spelling}" for spelling in SPELLINGS)}
    return all(f"{name}.{factor}" in stored for factor in LOW_RANK) and bool(bases & stored.keys())
