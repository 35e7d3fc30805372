"""How precisely a model is held, and where: number formats, quantised layers, devices.

Only the linear layers of the language model's own layers are ever quantised. The word tables, the
projector, the head, the vision tower and the mask decoder keep 16 bits: they are small beside the
language model, and masks suffer first (the official code quantised some of them by oversight).
Weights go tensor by tensor from the file to where they stay. This file knows formats and names; it
refuses to know what the model is made of, beyond the names of its parts.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from accelerate.utils import CustomDtype, get_max_memory, infer_auto_device_map
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from lisa.checkpoints.checkpoint import Checkpoint, check_complete
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
DEVICE_MAPS = ("auto",)
HEADROOM = 4 * 2**30  # bytes of the first device that are left to what a question needs
EYES = ("vision", "visual")  # parts of the names of vision towers
BRIDGES = ("projector", "connector", "merger")  # and of what leads from them to the words
WORDS = ("embed_tokens", "lm_head")

DeviceMap = str | dict[str, int | str]
Model = TypeVar("Model", bound=PreTrainedModel)


@dataclass(frozen=True)
class Precision:
    """What a caller asks for; every field has its own default.

    Attributes:
        dtype: "float32", "bfloat16", "float16" (or "fp32", "bf16", "fp16"); None: float32, or
            bfloat16 where something is quantised.
        device_map: "auto" puts the mask decoder and the head on the first device and fills the
            GPUs, then the memory, then the disk with the language side (see ``spread``); or a dict
            from module names to devices, as ``accelerate`` has it. None: all on one device.
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


def load_model(
    skeleton: Model, directory: Path, device: torch.device | str, precision: Precision
) -> Model:
    """A model with the weights of a directory, in a precision; for evaluation.

    Args:
        skeleton: the model on the meta device; left as it is.
        directory: with exactly its weights, in safetensors under the names that
            ``PreTrainedModel.save_pretrained`` gives the files.
        device: where all of it goes, unless ``precision`` has a device map.
        precision: formats and places.

    Raises:
        ModelError: a weight is missing, left over, mis-shaped or damaged, bitsandbytes is missing,
            or the model does not fit the devices.
    """
    check_stored(skeleton, directory)
    places = device_map(skeleton, device, precision)
    if precision.quantize == "4bit" and "cpu" in map(str, places.values()):
        check_packing(skeleton)
    settings = bitsandbytes_config(skeleton, precision)
    try:
        return type(skeleton).from_pretrained(
            directory,
            config=copy.deepcopy(skeleton.config),
            dtype=precision.torch_dtype,
            device_map=places,
            quantization_config=settings,
            local_files_only=True,
            use_safetensors=True,
        )
    except (
        AssertionError,
        ImportError,
        OSError,
        RuntimeError,
        SafetensorError,
        ValueError,
    ) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"cannot load '{directory}' with {precision}: {reason}; "
            "expected a precision that fits this machine (lisa plan)"
        ) from error


def check_packing(skeleton: nn.Module) -> None:
    """Whether a CPU can multiply the quantised layers: bitsandbytes packs blocks of 32 by 64.

    Raises:
        ModelError: names the first layer whose sizes do not divide.
    """
    for name in quantised_layers(skeleton):
        layer = skeleton.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        if layer.out_features % 32 or layer.in_features % 64:
            raise ModelError(
                f"'{name}' is {layer.out_features} x {layer.in_features}: "
                "too odd for 4bit on a CPU; "
                "expected multiples of 32 x 64, or quantize='8bit', or a GPU"
            )


def device_map(
    skeleton: PreTrainedModel, device: torch.device | str, precision: Precision
) -> dict[str, int | str]:
    """Module names and where they go."""
    if precision.device_map is None:
        return {"": str(device)}
    if isinstance(precision.device_map, dict):
        return precision.device_map
    return spread(skeleton, precision, get_max_memory())


def spread(
    skeleton: PreTrainedModel, precision: Precision, memory: dict[int | str, int]
) -> dict[str, int | str]:
    """Fill devices one after the other with the language side, layer by layer.

    Args:
        memory: free bytes of each device, the fastest first; what is left over goes to the disk.
    """
    first = next(iter(memory))
    vlm = skeleton.get_submodule("vlm")
    others = sum(
        p.numel() for name, p in skeleton.named_parameters() if not name.startswith("vlm.")
    )
    reserved = others * precision.torch_dtype.itemsize + HEADROOM
    layers = {f"{name}.weight".removeprefix("vlm.") for name in quantised_layers(skeleton)}
    width = {"8bit": torch.int8, "4bit": CustomDtype.INT4, None: precision.torch_dtype}
    places = infer_auto_device_map(
        vlm,
        max_memory=memory | {first: max(0, memory[first] - reserved)},
        no_split_module_classes=whole_modules(vlm),
        dtype=precision.torch_dtype,
        special_dtypes=dict.fromkeys(layers, width[precision.quantize]),
    )
    spread_out = {f"vlm.{name}".removesuffix("."): place for name, place in places.items()}
    return {"decoder": first, "head": first} | spread_out


def whole_modules(model: nn.Module) -> list[str]:
    """Classes of modules that stay on one device."""
    parts = (module for module in model.modules() if isinstance(module, PreTrainedModel))
    return sorted({name for part in parts for name in part._no_split_modules or ()})


def check_stored(skeleton: PreTrainedModel, directory: Path) -> None:
    """Whether the headers of the weight files name exactly the weights of the model.

    Raises:
        ModelError: names the first key that is missing, left over or mis-shaped.
    """
    tied = set(skeleton.all_tied_weights_keys)
    expected = {key: value for key, value in skeleton.state_dict().items() if key not in tied}
    stored = {
        key: like(expected.get(key), tensor.shape, tensor.dtype)
        for key, tensor in Checkpoint(directory).tensors.items()
    }
    check_complete(stored, expected, directory)


def like(expected: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A stored tensor's header as a tensor without memory; any floating format is as good."""
    if expected is not None and expected.is_floating_point() and dtype.is_floating_point:
        dtype = expected.dtype
    return torch.empty(shape, dtype=dtype, device="meta")


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
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells each layer's conversions
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
