"""How precisely a model is held, and where: number formats, quantised layers, devices.

Only the linear layers of the language model's own layers are ever quantised. The word tables, the
projector, the head, the vision tower and the mask decoder keep 16 bits: they are small beside the
language model, and masks suffer first (the official code quantised some of them by oversight).
This file knows formats and names; it refuses to know how weights are spelled on disk.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from lisa.errors import ModelError

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
QUANTISED = ("8bit", "4bit")
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
EYES = ("vision", "visual")  # parts of the names of vision towers
BRIDGES = ("projector", "connector", "merger")  # and of what leads from them to the words
WORDS = ("embed_tokens", "lm_head")

DeviceMap = str | dict[str, int | str]


@dataclass(frozen=True)
class Precision:
    """What a caller asks for; every field has its own default.

    Attributes:
        dtype: "float32", "bfloat16", "float16" (or "fp32", "bf16", "fp16"); None: float32, or
            bfloat16 where something is quantised.
        device_map: as ``accelerate`` has it: "auto" fills the GPUs, then the memory, then the disk;
            or a dict from module names to devices. None: all on one device.
        quantize: "8bit" (LLM.int8), "4bit" (NF4, scales quantised, too), or None.

    Raises:
        ModelError: a name that is none of these.
    """

    dtype: str | None = None
    device_map: DeviceMap | None = None
    quantize: str | None = None

    def __post_init__(self) -> None:
        check_name("dtype", self.dtype, tuple(DTYPES))
        check_name("quantize", self.quantize, QUANTISED)
        if not isinstance(self.device_map, dict):
            check_name("device_map", self.device_map, DEVICE_MAPS)

    def __str__(self) -> str:
        asked = {"dtype": self.dtype, "device_map": self.device_map, "quantize": self.quantize}
        return ", ".join(f"{name}={value!r}" for name, value in asked.items() if value is not None)

    @property
    def plain(self) -> bool:
        """All of the model on one device, in float32."""
        return self == Precision(dtype=self.dtype) and self.torch_dtype == torch.float32

    @property
    def torch_dtype(self) -> torch.dtype:
        """The format of all that is not quantised."""
        return DTYPES[self.dtype or ("bfloat16" if self.quantize else "float32")]


def check_name(field: str, value: str | None, known: tuple[str, ...]) -> None:
    """None or one of the known names."""
    if value is not None and value not in known:
        raise ModelError(f"{field} is {value!r}; expected {', '.join(known)}")


DEFAULT = Precision()


def part_of(name: str) -> str:
    """The part of a model that the parameter or layer ``name`` belongs to, as plans call it."""
    top, _, rest = name.partition(".")
    if top == "head":
        return "projector and head"
    if top == "decoder":
        is_encoder = rest.startswith(("tower.", "vision_encoder.")) or ".vision_encoder." in rest
        return "image encoder" if is_encoder else "mask decoder"
    if any(word in rest for word in BRIDGES):
        return "projector and head"
    return "vision tower" if any(word in rest for word in EYES) else "language model"


def quantised_layers(model: nn.Module) -> list[str]:
    """Names of the linear layers that 8 and 4 bits are for: those of the language model's layers.

    Of a model whose language side is ``vlm``; it may be on the meta device.
    """
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and part_of(name) == "language model"
        and not any(word in name for word in WORDS)
    ]


def bitsandbytes_config(model: nn.Module, precision: Precision) -> BitsAndBytesConfig | None:
    """What ``transformers`` wants to know to quantise exactly ``quantised_layers``.

    Raises:
        ModelError: bitsandbytes is not installed.
    """
    if precision.quantize is None:
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            f"quantize={precision.quantize!r} needs bitsandbytes, which is not installed; "
            "expected: pip install 'lisa-seg[quantise]'"
        )
    return BitsAndBytesConfig(
        load_in_8bit=precision.quantize == "8bit",
        load_in_4bit=precision.quantize == "4bit",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=precision.torch_dtype,
        llm_int8_skip_modules=kept_layers(model),
        llm_int8_enable_fp32_cpu_offload=precision.device_map is not None,
    )


def kept_layers(model: nn.Module) -> list[str]:
    """Names of the linear layers that are not quantised."""
    quantised = set(quantised_layers(model))
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name not in quantised
    ]
