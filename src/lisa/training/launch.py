"""Several processes: the configurations of ``accelerate`` that are shipped, and who one is.

``accelerate launch`` starts the processes and tells them about each other in the environment. This
file reads that; it refuses to know what is trained.
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

from lisa.errors import LisaError

FOLDER = Path(str(resources.files("lisa"))) / "assets" / "accelerate"


def config_path(name: str) -> Path:
    """The file of a shipped configuration, for ``accelerate launch --config_file``.

    Raises:
        LisaError: there is none of this name.
    """
    path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in FOLDER.glob("*.yaml")))
        raise LisaError(f"there is no accelerate configuration '{name}'; expected one of {known}")
    return path


def number_of_processes() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this one writes and prints."""
    return os.environ.get("RANK", "0") == "0"


def is_sharded() -> bool:
    """Whether the processes were started to share the model out among themselves (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def own_device(device: torch.device) -> torch.device:
    """Where this process loads the model: on its own GPU; to be shared out, in memory.

    Raises:
        LisaError: a GPU other than the first is asked for; the loop takes the first that it sees.
    """
    if device.index:
        raise LisaError(
            f"training takes the first GPU; expected CUDA_VISIBLE_DEVICES={device.index} and "
            f"--device cuda instead of '{device}'"
        )
    if is_sharded():
        return torch.device("cpu")
    if device.type == "cuda" and number_of_processes() > 1:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device


def shard_on_cpu(accelerator: Any) -> bool:
    """Let processes on CPUs share a model out, too; whether they do.

    ``accelerate`` (1.15) follows the request for FSDP on accelerators only; on CPUs each process
    would silently hold the whole model.
    """
    is_cpu = accelerator.distributed_type == DistributedType.MULTI_CPU
    if not (is_cpu and is_sharded()):
        return False
    AcceleratorState._shared_state |= {
        "distributed_type": DistributedType.FSDP,
        "fsdp_plugin": FullyShardedDataParallelPlugin(),
    }
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    return True
