"""What a run took: time, memory, and graphics memory.

This file knows how to ask the operating system and the GPU; it refuses to know what was run.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Footprint:
    """What a run took.

    Attributes:
        seconds: wall time.
        processes: how many took part.
        memory_bytes: the most that one process held at once.
        gpu_memory_bytes: the most that one process held on its GPUs; None without one.
    """

    seconds: float
    processes: int
    memory_bytes: int
    gpu_memory_bytes: int | None


def peak_memory() -> int:
    """The most memory that this process has held so far, in bytes."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_gpu_memory() -> int | None:
    """The most memory that this process has held on its GPUs, in bytes; None if it used none."""
    torch = sys.modules.get("torch")  # who has not loaded it has used no GPU through it
    if torch is None or not torch.cuda.is_initialized():
        return None
    return sum(torch.cuda.max_memory_allocated(n) for n in range(torch.cuda.device_count()))


def together(parts: Sequence[Footprint], seconds: float) -> Footprint:
    """The footprint of processes that ran side by side for so many seconds."""
    gpu = [part.gpu_memory_bytes for part in parts if part.gpu_memory_bytes is not None]
    return Footprint(
        seconds=seconds,
        processes=sum(part.processes for part in parts),
        memory_bytes=max(part.memory_bytes for part in parts),
        gpu_memory_bytes=max(gpu, default=None),
    )
