"""Checkpoints as files: what is in them, one tensor at a time, and new ones written the same way.

A checkpoint is a file or a directory, of safetensors or of PyTorch pickles, in one part or in
several with an index. Opening it reads headers; ``read`` maps one file at a time into memory and
takes nothing but the tensor. Pickles are opened with ``weights_only``, so that nothing in them is
executed. This file knows bytes and names; it refuses to know what the tensors mean.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pickle
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lisa.errors import ModelError, OutputError
from lisa.files import write_atomically

SHARD_BYTES = 4_000_000_000  # of a written file, about
SAFETENSORS = ".safetensors"  # any other weight file is taken for a pickle
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SAFETENSORS_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
TORCH_TYPES = {name: kind for kind, name in SAFETENSORS_NAMES.items()}


@dataclass(frozen=True)
class Stored:
    """A tensor that has not been read."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    file: Path

    @property
    def nbytes(self) -> int:
        """Its size in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


class Checkpoint:
    """Tensors by name, in one or several files.

    Args:
        path: a weight file, or a directory with weight files.

    Raises:
        ModelError: there are no weights, a file is missing, cut short, damaged or more than plain
            tensors, a tensor stands in two files, or the index says something else than the files.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = weight_files(path)
        self.tensors: dict[str, Stored] = {}
        for file in self.files:
            header = read_header(file)
            twice = sorted(header.keys() & self.tensors.keys())
            if twice:
                raise ModelError(f"'{file}' holds '{twice[0]}' a second time; expected it once")
            self.tensors |= header
        check_index(path, self.tensors)
        self._open: tuple[Path, Callable[[str], Tensor]] | None = None

    def read(self, key: str) -> Tensor:
        """The tensor ``key``, on the CPU, in its own type; shared with the file where possible."""
        file = self.tensors[key].file
        if self._open is None or self._open[0] != file:
            self._open = None  # lets go of the last file before the next is mapped
            self._open = (file, open_file(file))
        return self._open[1](key)


def weight_files(path: Path) -> list[Path]:
    """The weight files of a checkpoint, in order; safetensors rather than pickles.

    Raises:
        ModelError: there is none, or one that the index names is missing.
    """
    if path.is_file():
        return [path]
    index = find_index(path)
    if index is not None:
        files = sorted({path / name for name in read_index(index).values()})
        for file in files:
            if not file.is_file():
                raise ModelError(f"'{file}' is missing; expected it, since '{index}' names it")
        return files
    for pattern in ("*.safetensors", "pytorch_model*.bin", "*.pth", "*.bin"):
        if files := sorted(path.glob(pattern)):
            return files
    raise ModelError(f"no weights in '{path}'; expected safetensors, .bin or .pth files")


def find_index(path: Path) -> Path | None:
    """The index of a directory that has one."""
    return next((path / name for name in INDEXES if (path / name).is_file()), None)


def read_index(index: Path) -> dict[str, str]:
    """Tensor name -> file name.

    Raises:
        ModelError: it is not an index.
    """
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
        raise ModelError(f"'{index}' has no weight_map; expected tensor names and their files")
    return table


def check_index(path: Path, tensors: dict[str, Stored]) -> None:
    """Whether the files hold what the index says."""
    index = find_index(path)
    if index is None:
        return
    table = read_index(index)
    for key in sorted(table.keys() | tensors.keys()):
        named, found = table.get(key), tensors.get(key)
        if found is None or named != found.file.name:
            raise ModelError(
                f"'{index}' puts '{key}' into {named or 'no file'}; "
                f"expected {found.file.name if found else 'no such tensor'}"
            )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ModelError: the file is not there, or no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"cannot read '{path}': {reason}; expected a JSON object") from error
    if not isinstance(content, dict):
        raise ModelError(f"'{path}' holds a {type(content).__name__}; expected a JSON object")
    return content


# ------------------------------------------------------------------------------ reading


def read_header(file: Path) -> dict[str, Stored]:
    """What a weight file holds, without its numbers.

    Raises:
        ModelError: the file is cut short, damaged, or more than plain tensors.
    """
    if file.suffix != SAFETENSORS:
        return {
            key: Stored(tuple(value.shape), value.dtype, file)
            for key, value in unpickle(file, "meta").items()
        }
    with opened(file) as tensors:
        slices = {key: tensors.get_slice(key) for key in tensors.keys()}  # noqa: SIM118
        return {
            key: Stored(tuple(part.get_shape()), TORCH_TYPES[part.get_dtype()], file)
            for key, part in slices.items()
        }


def open_file(file: Path) -> Callable[[str], Tensor]:
    """What reads a tensor of ``file`` by name."""
    if file.suffix != SAFETENSORS:
        return unpickle(file, "cpu").__getitem__
    with opened(file) as tensors:
        read: Callable[[str], Tensor] = tensors.get_tensor
        return read


@contextlib.contextmanager
def opened(file: Path) -> Iterator[Any]:
    """A safetensors file; what is wrong with it becomes one line."""
    try:
        yield safe_open(file, framework="pt")
    except (SafetensorError, OSError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"cannot read '{file}': {reason}; expected a complete safetensors file"
        ) from error


def unpickle(file: Path, device: str) -> dict[str, Tensor]:
    """The tensors of a PyTorch file; on "meta" without their numbers.

    Raises:
        ModelError: the file is cut short, damaged, or more than a table of plain tensors.
    """
    try:
        content = load_pickle(file, device)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"'{file}' is no plain tensor file, and was not run; "
            "expected nothing but names and tensors"
        ) from error
    except Exception as error:  # a damaged archive raises many types
        reason = (" ".join(str(error).split()) or type(error).__name__)[:120]
        raise ModelError(
            f"cannot read '{file}': {reason}; expected a complete PyTorch file"
        ) from error
    if not isinstance(content, dict):
        raise ModelError(f"'{file}' holds a {type(content).__name__}; expected named tensors")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            kind = type(value).__name__
            raise ModelError(f"'{file}' holds a {kind} under {key!r}; expected a tensor")
    return content


def load_pickle(file: Path, device: str) -> Any:
    """``torch.load`` that runs nothing, and maps the file where its format allows it."""
    with file.open("rb") as stream:
        is_archive = stream.read(2) == b"PK"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what cannot be read is said in one line
        return torch.load(file, map_location=device, weights_only=True, mmap=is_archive)


# ------------------------------------------------------------------------------ writing


@dataclass(frozen=True)
class Planned:
    """A tensor to be written; ``read`` supplies it when its turn comes."""

    key: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]

    @property
    def nbytes(self) -> int:
        """Its size in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_shards(planned: Sequence[Planned], directory: Path, limit: int = SHARD_BYTES) -> None:
    """Safetensors files of about ``limit`` bytes, and their index where there are several."""
    shards = list(split(planned, limit))
    table: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        name = name if len(shards) > 1 else "model.safetensors"
        write_shard(shard, directory / name)
        table |= {tensor.key: name for tensor in shard}
    if len(shards) > 1:
        size = sum(tensor.nbytes for tensor in planned)
        index = {"metadata": {"total_size": size}, "weight_map": table}
        (directory / INDEXES[0]).write_text(json.dumps(index, indent=1, sort_keys=True))


def split(planned: Sequence[Planned], limit: int) -> Iterator[list[Planned]]:
    """Runs of tensors that fit in one file each."""
    shard: list[Planned] = []
    for tensor in planned:
        if shard and sum(other.nbytes for other in shard) + tensor.nbytes > limit:
            yield shard
            shard = []
        shard.append(tensor)
    yield shard


def write_shard(shard: Sequence[Planned], file: Path) -> None:
    """One safetensors file, tensor by tensor (format: huggingface/safetensors, README)."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in shard:
        start, end = end, end + tensor.nbytes
        header[tensor.key] = {
            "dtype": SAFETENSORS_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("xb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for tensor in shard:
            value = tensor.read().to(tensor.dtype).contiguous().reshape(-1)
            stream.write(value.view(torch.uint8).numpy().data)
        stream.flush()
        os.fsync(stream.fileno())


def read_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file.

    Raises:
        ModelError: the file is not there or damaged; the message names it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"cannot read '{path}': {reason}; expected a complete safetensors file"
        ) from error


def write_file(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write one safetensors file, whole or not at all; the folder is made if it is missing.

    Raises:
        OutputError: the folder cannot be made or written to; the message names the path.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot write '{path}': {error.strerror}; expected a writable folder"
        ) from error
    write_atomically(path, save({key: value.contiguous() for key, value in tensors.items()}))


def check_complete(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], directory: Path
) -> None:
    """Every parameter is there, has its shape and kind, and nothing is left over.

    Raises:
        ModelError: names the first key that is not so, and the directory.
    """
    problems = [
        *listed("is missing", expected.keys() - state.keys(), expected),
        *listed("is unexpected", state.keys() - expected.keys(), {}),
        *(
            f"'{key}' has {described(state[key])}; expected {described(expected[key])}"
            for key in sorted(expected.keys() & state.keys())
            if described(state[key]) != described(expected[key])
        ),
    ]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ModelError(f"the weights in '{directory}' do not fit: {problems[0]}{more}")


def described(tensor: Tensor) -> str:
    """What must agree for one tensor to stand for another."""
    return f"shape {list(tensor.shape)} of {dtype_name(tensor)}"


def dtype_name(tensor: Tensor) -> str:
    """``torch.float32`` -> ``float32``."""
    return str(tensor.dtype).removeprefix("torch.")


def listed(what: str, keys: Iterable[str], expected: Mapping[str, Tensor]) -> list[str]:
    """One problem per key."""
    return [
        f"'{key}' {what}; expected {described(expected[key]) if key in expected else 'no such key'}"
        for key in sorted(keys)
    ]
