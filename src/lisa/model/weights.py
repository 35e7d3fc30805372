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

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lisa.errors import ModelError, OutputError

BLOCK = 32
SPELLINGS = ("q4_1", "q8_0")
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


UNPACK = {"q4_1": unpack_q4_1, "q8_0": unpack_q8_0}


def assemble(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stored tensors under any spelling -> float32 state dict."""
    state: dict[str, Tensor] = {}
    for key, tensor in stored.items():
        name, _, suffix = key.rpartition(".")
        if suffix in UNPACK:
            state[name] = UNPACK[suffix](tensor)
        elif suffix not in LOW_RANK:
            state[key] = tensor.float() if tensor.is_floating_point() else tensor
    for key in stored:
        name, _, suffix = key.rpartition(".")
        if suffix == "lora_A":
            state[name] = torch.addmm(state[name], stored[f"{name}.lora_B"].float(), stored[key].float())
    return state


def read_weights(directory: Path) -> dict[str, Tensor]:
    """All tensors of a weight directory as a float32 state dict.

    Raises:
        ModelError: no weight file, or one that is damaged; the message names the file.
    """
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise ModelError(f"no weights in '{directory}'; expected *.safetensors files")
    stored: dict[str, Tensor] = {}
    for path in files:
        stored.update(read_file(path))
    orphans = [k for k in stored if k.endswith(LOW_RANK) and not complete_pair(k, stored)]
    if orphans:
        raise ModelError(f"'{orphans[0]}' in '{directory}' has no matrix to add to; expected its base and pair")
    return assemble(stored)


def complete_pair(key: str, stored: Mapping[str, Tensor]) -> bool:
    """A low-rank factor needs the other one and a matrix to be added to."""
    name = key.rpartition(".")[0]
    bases = {name, *(f"{name}.{spelling}" for spelling in SPELLINGS)}
    return all(f"{name}.{factor}" in stored for factor in LOW_RANK) and bool(bases & stored.keys())


def read_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"cannot read '{path}': {error}; expected a complete safetensors file") from error


def write_file(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write one safetensors file under a temporary name, then rename it."""
    temporary = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"cannot write '{path}': {error}") from error


def check_complete(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], directory: Path) -> None:
    """Every parameter is there, has its shape, and nothing is left over; the message names the key."""
    problems = [
        *listed("missing", expected.keys() - state.keys()),
        *listed("unexpected", state.keys() - expected.keys()),
        *(
            f"'{key}' has shape {list(state[key].shape)}; expected {list(expected[key].shape)}"
            for key in sorted(expected.keys() & state.keys())
            if state[key].shape != expected[key].shape
        ),
    ]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ModelError(f"the weights in '{directory}' do not fit config.json: {problems[0]}{more}")


def listed(what: str, keys: Iterable[str]) -> list[str]:
    """One problem per key."""
    return [f"'{key}' is {what}" for key in sorted(keys)]
