"""A model by name: "nano", the embedded one, or a directory.

What is needed to run it is imported when it is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lisa.checkpoints.precision import DeviceMap
    from lisa.predict import Segmenter


def load(
    model: str | Path = "nano",
    device: str | None = None,
    *,
    dtype: str | None = None,
    device_map: DeviceMap | None = None,
    quantize: str | None = None,
) -> Segmenter:
    """Load a model: ``"nano"``, the embedded one, or a directory.

    Args:
        model: name or directory.
        device: "cpu", "cuda", "cuda:1" ...; None takes a GPU if there is one.
        dtype: "float32", "bfloat16" or "float16", for models of full size.
        device_map: "auto" spreads a model of full size over the GPUs, the memory and the disk.
        quantize: "8bit" or "4bit" for the layers of a full-size language model.

    Raises:
        ModelError: no such model, damaged weights, no such device, an unknown precision, or one
            that the model cannot have.
    """
    from lisa.checkpoints.precision import Precision
    from lisa.nano.model import segmenter

    precision = Precision(dtype=dtype, device_map=device_map, quantize=quantize)
    return segmenter.load(model, device, precision)
