"""What was learnt, put into the model that it was learnt from: a directory that loads as a model.

Matrices with low-rank factors become one matrix again in a model of full size; nano, whose matrices
are stored in 4 bits, keeps its files and gets the factors beside them, as it is published. Tensors
are read and written one by one. This file knows names and files; it refuses to know what was
trained, and why.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from lisa.checkpoints.checkpoint import Checkpoint, Planned, read_file, write_file, write_shards
from lisa.checkpoints.directory import Processor, write_config
from lisa.checkpoints.packed import LOW_RANK, split_key
from lisa.errors import ModelError
from lisa.files import new_directory
from lisa.model.processor import FullSizeProcessor

OWNER = "model."  # what a task calls its model
RECALL = "vlm.recall."
ADAPTER = "adapter.safetensors"


@dataclass
class Learnt:
    """What a run learnt, under the model's own names."""

    tensors: dict[str, Tensor] = field(default_factory=dict)  # replace those of the model
    factors: dict[str, dict[str, Tensor]] = field(default_factory=dict)  # matrix -> "A", "B"

    def difference(self, name: str) -> Tensor:
        """What is added to a matrix, in float32."""
        return self.factors[name]["B"].float() @ self.factors[name]["A"].float()


def sort_learnt(state: Mapping[str, Tensor], scale: float) -> Learnt:
    """The state of a task, sorted; the factors' ``scale`` goes into the second of them."""
    learnt = Learnt()
    for key, value in state.items():
        name = key.removeprefix(OWNER)
        if ".lora_" not in name:
            learnt.tensors[name] = value
            continue
        layer, _, rest = name.partition(".lora_")  # ...q_proj, A.default.weight
        factor = rest[0]
        pair = learnt.factors.setdefault(f"{layer}.weight", {})
        pair[factor] = value.float() * (scale if factor == "B" else 1.0)
    return learnt


def write_merged(source: Path, learnt: Learnt, processor: Processor, out: Path) -> None:
    """Write the directory of the finished model; what stands there is replaced at the end.

    Args:
        source: the directory of the model that training started from.
        learnt: what it learnt.
        processor: with the configuration that is written.
        out: the directory.

    Raises:
        ModelError: something that was learnt has no place in ``source``.
        OutputError: ``out`` cannot be written.
    """
    finished = out.with_name(f"{out.name}.finished")
    shutil.rmtree(finished, ignore_errors=True)
    with new_directory(finished) as temporary:
        if isinstance(processor, FullSizeProcessor):
            write_full(source, learnt, processor, temporary)
        else:
            write_nano(source, learnt, temporary)
            own = copy.deepcopy(processor.config)
            own.recall_names, own.recall_texts = [], 0
            write_config(own, temporary)
    shutil.rmtree(out, ignore_errors=True)
    finished.rename(out)


def write_full(source: Path, learnt: Learnt, processor: FullSizeProcessor, out: Path) -> None:
    """Every tensor of the source, changed where something was learnt, in its own format."""
    stored = Checkpoint(source)
    check_places({*learnt.tensors, *learnt.factors}, set(stored.tensors))
    planned = [
        Planned(key, tensor.shape, tensor.dtype, changed(stored, learnt, key))
        for key, tensor in stored.tensors.items()
    ]
    processor.config.to_json_file(out / "config.json", use_diff=False)
    processor.save(out)
    write_shards(planned, out)


def changed(stored: Checkpoint, learnt: Learnt, key: str) -> Callable[[], Tensor]:
    """What reads a tensor as it is after training."""
    if key in learnt.tensors:
        return partial(learnt.tensors[key].to, stored.tensors[key].dtype)
    if key in learnt.factors:
        return partial(merged_matrix, stored, learnt, key)
    return partial(stored.read, key)


def merged_matrix(stored: Checkpoint, learnt: Learnt, key: str) -> Tensor:
    """A matrix with its factors in it."""
    matrix = stored.read(key)
    return (matrix.float() + learnt.difference(key)).to(matrix.dtype)


def write_nano(source: Path, learnt: Learnt, out: Path) -> None:
    """The source's files, with what was learnt in them; factors stand beside those there were.

    Recall is left out: it would answer with the names that it knows, and not with what was learnt.
    """
    files = {
        path.name: {k: v for k, v in read_file(path).items() if not k.startswith(RECALL)}
        for path in sorted(source.glob("*.safetensors"))
    }
    check_places({*learnt.tensors, *learnt.factors}, names_of(files))
    adapter: dict[str, Tensor] = {}
    for name, tensors in files.items():
        adapter |= {key: value for key, value in tensors.items() if split_key(key)[1] in LOW_RANK}
        kept = {key: value for key, value in tensors.items() if key not in adapter}
        if kept:
            write_file({key: newest(learnt, key, value) for key, value in kept.items()}, out / name)
    for name, pair in learnt.factors.items():
        adapter |= joined(name, pair, adapter)
    if adapter:
        write_file(adapter, out / ADAPTER)
    shutil.copyfile(source / "tokenizer.json", out / "tokenizer.json")


def newest(learnt: Learnt, key: str, stored: Tensor) -> Tensor:
    """A tensor as it is after training, in the format that it had."""
    return learnt.tensors[key].to(stored.dtype) if key in learnt.tensors else stored


def joined(name: str, pair: Mapping[str, Tensor], there: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The factors of a matrix below and beside those that it has: their products add up."""
    made = {}
    for factor, dimension in (("A", 0), ("B", 1)):
        key = f"{name}.lora_{factor}"
        new = pair[factor].to(torch.float16)
        made[key] = torch.cat([there[key], new], dimension) if key in there else new
    return made


def names_of(files: Mapping[str, Mapping[str, Tensor]]) -> set[str]:
    """The parameters that files hold, in whatever spelling."""
    return {split_key(key)[0] for tensors in files.values() for key in tensors}


def check_places(learnt: set[str], there: set[str]) -> None:
    """Everything that was learnt has its place.

    Raises:
        ModelError: names the first that has none.
    """
    lost = sorted(learnt - there)
    if lost:
        raise ModelError(
            f"'{lost[0]}' was trained; expected it in the model that training began with"
        )
