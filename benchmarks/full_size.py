"""How large and how fast a LISA of full size is on this machine; its weights are random.

    python benchmarks/full_size.py
    python benchmarks/full_size.py --size 13b --precision 4bit --out table.md
    python benchmarks/full_size.py --size tiny --device cpu

A model of the paper's shape (LLaVA with CLIP ViT-L/14, SAM ViT-H) is built on the device, layer by
layer, so that neither a download nor the memory for a larger format is needed. It then answers: the
picture is encoded, and an answer of a fixed length with one [SEG] is written token by token. The
words mean nothing, but every layer computes what it would.
"""

import gc
import platform
import resource
import statistics
import sys
import time
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn
from transformers.integrations.bitsandbytes import replace_with_bnb_linear

from lisa.checkpoints.directory import empty_model, pick_device
from lisa.checkpoints.precision import Precision, bitsandbytes_config, kept_layers
from lisa.files import write_atomically
from lisa.model.chat_templates import IMAGE_TOKEN_ID
from lisa.model.config import LisaConfig
from lisa.model.interfaces import Pictures
from lisa.model.lisa import LisaModel

PACKAGES = ("torch", "transformers", "bitsandbytes", "lisa-seg")
RUNS = 3
QUESTION_TOKENS, ANSWER_TOKENS = 48, 32
SPREAD = 0.02  # of the random weights
SIZES: dict[str, dict[str, int]] = {
    "7b": {"words": 32003, "width": 4096, "inner": 11008, "layers": 32, "heads": 32},
    "13b": {"words": 32002, "width": 5120, "inner": 13824, "layers": 40, "heads": 40},
    "tiny": {"words": 128, "width": 64, "inner": 128, "layers": 2, "heads": 4},
}


class Size(StrEnum):
    """Shapes of a model."""

    small = "7b"
    large = "13b"
    tiny = "tiny"


class Format(StrEnum):
    """How the language model is held; the rest has 16 bits."""

    bfloat16 = "bfloat16"
    eight = "8bit"
    four = "4bit"


@dataclass(frozen=True)
class Measured:
    """What one precision took; memory in bytes, time in seconds."""

    precision: str
    weights: int
    peak: int
    picture: float
    answer: float


def main(
    size: Annotated[Size, typer.Option(help="Of the model; tiny is for trying this out.")] = (
        Size.small
    ),
    precision: Annotated[
        list[Format] | None, typer.Option(help="Once or more often; else all three.")
    ] = None,
    device: Annotated[str, typer.Option(help="As `lisa segment --device` has it.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Write the table here, too.")] = None,
) -> None:
    """Build a random model in each precision, let it answer, and tell memory and time."""
    here = pick_device(device)
    measured = [measure(shape(size), here, each) for each in precision or list(Format)]
    text = report(size, here, measured)
    typer.echo(text, nl=False)
    if out is not None:
        write_atomically(out, text.encode())


def shape(size: str) -> LisaConfig:
    """The configuration of a released model, or of one that has its make and no size."""
    sizes, tiny = SIZES[size], size == Size.tiny
    text = {
        "model_type": "llama",
        "vocab_size": sizes["words"],
        "hidden_size": sizes["width"],
        "intermediate_size": sizes["inner"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["heads"],
        "num_key_value_heads": sizes["heads"],
    }
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 64 if tiny else 1024,
        "intermediate_size": 128 if tiny else 4096,
        "num_hidden_layers": 2 if tiny else 24,
        "num_attention_heads": 4 if tiny else 16,
        "image_size": 28 if tiny else 224,
        "patch_size": 14,
    }
    llava = {
        "model_type": "llava",
        "text_config": text,
        "vision_config": vision,
        "image_token_index": sizes["words"] - 1,
        "tie_word_embeddings": False,
    }
    eyes = {
        "hidden_size": 32 if tiny else 1280,
        "num_hidden_layers": 2 if tiny else 32,
        "num_attention_heads": 2 if tiny else 16,
        "global_attn_indexes": [1] if tiny else [7, 15, 23, 31],
        "mlp_dim": 64 if tiny else 5120,
        "image_size": 64 if tiny else 1024,
        "window_size": 2 if tiny else 14,
    }
    sam = {
        "model_type": "sam",
        "vision_config": eyes,
        "prompt_encoder_config": {
            "image_size": eyes["image_size"],
            "image_embedding_size": eyes["image_size"] // 16,
        },
    }
    return LisaConfig.from_parts(llava, sam, projector="linear", conversation="llava_v1")


def measure(config: LisaConfig, device: torch.device, precision: Format) -> Measured:
    """Memory and time of one precision; the model is gone afterwards."""
    asked = None if precision is Format.bfloat16 else precision.value
    model = build_random(config, device, Precision(dtype="bfloat16", quantize=asked))
    weights = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    start_counting(device)
    times = [answer(model, config, device) for _ in range(RUNS + 1)][1:]  # the first warms up
    peak = peak_bytes(device)
    picture, written = (statistics.median(each) for each in zip(*times, strict=True))
    del model
    gc.collect()
    return Measured(precision.value, weights, peak, picture, written)


def answer(model: LisaModel, config: LisaConfig, device: torch.device) -> tuple[float, float]:
    """Seconds to encode a picture, and to write an answer and its mask."""
    vision = config.vlm_config().vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    sides = {"device": device, "dtype": torch.bfloat16}
    pictures = Pictures(
        pixel_values=torch.randn(1, 3, config.image_size, config.image_size, **sides),
        vlm_inputs=[
            {"pixel_values": torch.randn(1, 3, vision.image_size, vision.image_size, **sides)}
        ],
        picture_ids=[[config.vlm_config().image_token_index] * patches],
    )
    question = [1, IMAGE_TOKEN_ID, *range(3, 3 + QUESTION_TOKENS)]
    words = [*range(3, 2 + ANSWER_TOKENS), config.seg_token_id]
    started = now(device)
    encoded = model.encode_images(pictures)
    seen = now(device)
    (said,) = model.generate(encoded, [question], [0], end_token_id=2, answers=[words])
    assert said.token_ids == words and len(said.masks.low_res_masks) == 1
    return seen - started, now(device) - seen


def now(device: torch.device) -> float:
    """The time when the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def start_counting(device: torch.device) -> None:
    """Forget how much memory it took to build the model."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """The most memory that was taken: of the card, or of this process since it began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def build_random(config: LisaConfig, device: torch.device, precision: Precision) -> LisaModel:
    """A model with random weights, each made on the device and quantised before the next."""
    model = empty_model(config, Path("."))
    settings = bitsandbytes_config(model, precision)
    if settings is not None:
        replace_with_bnb_linear(model, kept_layers(model), settings)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            values = torch.randn(parameter.shape, dtype=precision.torch_dtype, device=device)
            setattr(module, name, as_kind(parameter, values.mul_(SPREAD)))
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = torch.empty_like(buffer, device=device)
    model.tie_weights()
    model.initialize_weights()  # the buffers: the parameters are marked as done
    return model.eval()


def as_kind(parameter: nn.Parameter, values: torch.Tensor) -> nn.Parameter:
    """Random values as a parameter of the kind that stood there: plain, or quantised."""
    kind = type(parameter)
    if kind is nn.Parameter:
        made = nn.Parameter(values, requires_grad=False)
    else:
        details = {k: v for k, v in parameter.__dict__.items() if not k.startswith("_")}
        made = kind(values.cpu(), requires_grad=False, **details).to(values.device)
    made._is_hf_initialized = True
    return made


def report(size: Size, device: torch.device, measured: list[Measured]) -> str:
    """The table and what it depends on, in Markdown."""
    counted = "peak of the card" if device.type == "cuda" else "peak of the process"
    head = f"| language model | weights, GiB | {counted}, GiB | picture, s | answer, s | tokens/s |"
    rows = [
        f"| {each.precision} | {each.weights / 2**30:.2f} | {each.peak / 2**30:.2f} "
        f"| {each.picture:.3f} | {each.answer:.3f} | {ANSWER_TOKENS / each.answer:.1f} |"
        for each in measured
    ]
    command = " ".join(["python benchmarks/full_size.py", *sys.argv[1:]])
    about = (
        f"Shape {size}, random weights, {name_of(device)}; median of {RUNS} answers of "
        f"{ANSWER_TOKENS} tokens with one mask. Python {platform.python_version()}, "
        f"{', '.join(f'{name} {installed(name)}' for name in PACKAGES)}. Command: `{command}`"
    )
    return "\n".join([head, "| --- " + "| ---: " * 5 + "|", *rows, "", about, ""])


def name_of(device: torch.device) -> str:
    """As the maker calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()} (CPU)"


def installed(package: str) -> str:
    """Its version, or that it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    typer.run(main)
