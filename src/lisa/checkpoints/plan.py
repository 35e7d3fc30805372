"""How much memory a model will take, by part and precision, told before anything is loaded.

Numbers come from configurations: the model is built on the meta device, where tensors have shapes
and no memory. What a question needs on top of the weights is an estimate; ``FORMULAS`` says which.
This file counts; it refuses to read a weight, and it prints nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from lisa.checkpoints.checkpoint import Checkpoint, read_json
from lisa.checkpoints.convert import lisa_config
from lisa.checkpoints.directory import empty_model, model_directory, read_config
from lisa.checkpoints.official_names import STANDARD_CLIP, Kind, kind_of, shape_of
from lisa.checkpoints.precision import part_of, quantised_layers
from lisa.checkpoints.transfer import as_stored, merged, shapes_of
from lisa.errors import ModelError
from lisa.model.config import LisaConfig
from lisa.model.lisa import LisaModel

PARTS = ("vision tower", "language model", "projector and head", "image encoder", "mask decoder")
PRECISIONS = ("float32", "bfloat16", "8bit", "4bit")  # float16 is as large as bfloat16
TOKENS = 1024  # of picture, question and answer together, unless the caller says otherwise
RESERVE = 0.1  # share of free memory that is left alone: fragments, the CUDA context
SCORES = 3  # maps of attention scores that exist at once: raw, with positions, normalised
FORMULAS = {
    "weights": "numbers x 4 (float32) or 2 (16 bits) bytes; where the language model's linear "
    "layers are quantised, theirs x 1 + 4 a row (8 bits) or x 0.516 (4 bits)",
    "cache": "2 x layers x key-value heads x head width x tokens x bytes of a number",
    "activations": "the larger of the image encoder's (3 attention maps, or 8 maps at a quarter of "
    "the side) and the language model's (tokens x (4 widths + 3 inner widths) + one row of logits)",
    "fits": "weights + cache + activations <= 90 % of what is free",
}


@dataclass(frozen=True)
class Part:
    """One part of a model, in numbers."""

    name: str  # one of PARTS
    numbers: int  # parameters and stored buffers
    quantised: int  # of these, in layers that 8 and 4 bits are for
    rows: int  # of these layers

    def bytes(self, precision: str) -> int:
        """What its weights take; a quantised model keeps 16 bits elsewhere."""
        kept = self.numbers - self.quantised
        if precision == "8bit":  # LLM.int8: a byte each, a float32 scale for each row
            return 2 * kept + self.quantised + 4 * self.rows
        if precision == "4bit":  # NF4: per 64 numbers a byte, per 256 of those a float32
            blocks = -(-self.quantised // 64)
            return 2 * kept + self.quantised // 2 + blocks + 4 * -(-blocks // 256)
        return self.numbers * number_bytes(precision)


@dataclass(frozen=True)
class Place:
    """Memory that a model could go to, in bytes."""

    name: str  # "memory", or the name of a GPU with its number
    total: int
    free: int


@dataclass(frozen=True)
class Need:
    """What a precision takes, in bytes."""

    precision: str
    parts: dict[str, int]  # weights of each part
    cache: int
    activations: int
    fits: dict[str, bool]  # by the name of the place

    @property
    def weights(self) -> int:
        return sum(self.parts.values())

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.activations


@dataclass(frozen=True)
class Plan:
    """The memory of a model at every precision, and of this machine."""

    model: str
    tokens: int
    parts: tuple[Part, ...]
    needs: tuple[Need, ...]
    places: tuple[Place, ...]

    @property
    def numbers(self) -> int:
        return sum(part.numbers for part in self.parts)

    def __str__(self) -> str:
        heading = f"{self.model}: {self.numbers / 1e6:,.1f} M numbers; GiB, by precision"
        rows = [
            ("", "M numbers", *(need.precision for need in self.needs)),
            *(
                (part.name, f"{part.numbers / 1e6:,.1f}", *self._cells(part.name))
                for part in self.parts
            ),
            ("weights", "", *(gibibytes(need.weights) for need in self.needs)),
            ("cache", "", *(gibibytes(need.cache) for need in self.needs)),
            ("activations", "", *(gibibytes(need.activations) for need in self.needs)),
            ("total", "", *(gibibytes(need.total) for need in self.needs)),
            *((f"fits {p.name}", gibibytes(p.free), *self._fits(p)) for p in self.places),
        ]
        width = max(len(row[0]) for row in rows)
        lines = [" ".join([row[0].ljust(width), *(c.rjust(10) for c in row[1:])]) for row in rows]
        notes = [f"{name}: {formula}" for name, formula in FORMULAS.items()]
        question = f"for one question of {self.tokens:,} tokens; see docs/full-size.md"
        return "\n".join([heading, "", *lines, "", *notes, question])

    def _cells(self, part: str) -> list[str]:
        return [gibibytes(need.parts[part]) for need in self.needs]

    def _fits(self, place: Place) -> list[str]:
        return ["yes" if need.fits[place.name] else "no" for need in self.needs]

    def to_dict(self) -> dict[str, Any]:
        """For JSON; bytes throughout."""
        needs = [
            asdict(need) | {"weights": need.weights, "total": need.total} for need in self.needs
        ]
        return asdict(self) | {"numbers": self.numbers, "needs": needs, "formulas": FORMULAS}


def gibibytes(number: int) -> str:
    """Bytes for a person: GiB with two decimals."""
    return f"{number / 2**30:.2f}"


def plan(
    model: str | None = None,
    *,
    vlm: str | None = None,
    decoder: str | None = None,
    tokens: int = TOKENS,
) -> Plan:
    """The plan of a model by name, or of two parts.

    Args:
        model: "nano" or a directory.
        vlm, decoder: directories of the parts, instead of a model.
        tokens: of picture, question and answer.

    Raises:
        ModelError: neither or both, not there, or nothing that a model can be built from.
    """
    if model is not None and vlm is None and decoder is None:
        directory = model_directory(model)
        return make_plan(empty_model(config_of(directory), directory), model, tokens)
    if model is None and vlm is not None and decoder is not None:
        config = LisaConfig.from_parts(vlm, decoder)
        return make_plan(empty_model(config, Path(vlm)), f"{vlm} + {decoder}", tokens)
    raise ModelError("expected a model, or --vlm and --decoder")


def config_of(directory: Path) -> LisaConfig:
    """The configuration of a model of ours, or the one that an official LISA would get.

    Raises:
        ModelError: it is neither.
    """
    fields = read_json(directory / "config.json")
    if fields.get("model_type") == LisaConfig.model_type:
        return read_config(directory)
    checkpoint = Checkpoint(directory)
    kind = kind_of(checkpoint.tensors)
    if kind not in (Kind.lisa, Kind.lora):
        raise ModelError(
            f"'{directory}' is {kind or 'unknown'}; expected a LISA, or the directory with --vlm"
        )
    shapes = shapes_of(merged(checkpoint) if kind is Kind.lora else as_stored(checkpoint))
    words, _ = shape_of(shapes, "model.embed_tokens.weight", 2)
    return lisa_config(fields, tower_fields(directory, fields), shapes, seg_token_id=words - 1)


def tower_fields(directory: Path, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of an official model's vision tower: the one beside it, or the paper's."""
    named = directory.parent / str(fields.get("mm_vision_tower", "")) / "config.json"
    return read_json(named) if named.is_file() else STANDARD_CLIP


def make_plan(
    model: LisaModel, name: str, tokens: int = TOKENS, places: tuple[Place, ...] | None = None
) -> Plan:
    """The plan of a model, which may have no memory (meta device).

    Args:
        model: built from the configuration.
        name: what the plan calls it.
        tokens: of picture, question and answer, for the cache and the activations.
        places: None: the memory of this machine.
    """
    parts = count_parts(model)
    here = this_machine() if places is None else places
    known = PRECISIONS if model.config.full_size else PRECISIONS[:1]  # nano has float32 only
    needs = tuple(need(model, parts, precision, tokens, here) for precision in known)
    return Plan(name, tokens, parts, needs, here)


def need(
    model: LisaModel,
    parts: tuple[Part, ...],
    precision: str,
    tokens: int,
    places: tuple[Place, ...],
) -> Need:
    """What one precision takes, and where it fits."""
    weights = {part.name: part.bytes(precision) for part in parts}
    size = number_bytes(precision)
    language = model.config.language_config()
    cache = cache_bytes(language, tokens, size)
    activations = max(image_bytes(model, size), language_bytes(language, tokens, size))
    total = sum(weights.values()) + cache + activations
    fits = {place.name: total <= place.free * (1 - RESERVE) for place in places}
    return Need(precision, weights, cache, activations, fits)


def count_parts(model: LisaModel) -> tuple[Part, ...]:
    """The parts that the model has, in the order of ``PARTS``."""
    numbers, quantised, rows = ({name: 0 for name in PARTS} for _ in range(3))
    for name, tensor in stored_tensors(model):
        numbers[part_of(name)] += tensor.numel()
    for name in quantised_layers(model):
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        quantised[part_of(name)] += layer.weight.numel()
        rows[part_of(name)] += layer.out_features
    return tuple(
        Part(name, numbers[name], quantised[name], rows[name]) for name in PARTS if numbers[name]
    )


def stored_tensors(model: LisaModel) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers as a checkpoint holds them: what has two names counts once."""
    tied = set(model.all_tied_weights_keys)
    return ((name, tensor) for name, tensor in model.state_dict().items() if name not in tied)


def number_bytes(precision: str) -> int:
    """Bytes of a number that is not quantised."""
    return 4 if precision == "float32" else 2


def cache_bytes(language: Any, tokens: int, size: int) -> int:
    """Keys and values of every layer (``FORMULAS``)."""
    heads = getattr(language, "num_key_value_heads", None) or language.num_attention_heads
    width = getattr(language, "head_dim", None) or (
        language.hidden_size // language.num_attention_heads
    )
    return 2 * language.num_hidden_layers * heads * width * tokens * size


def language_bytes(language: Any, tokens: int, size: int) -> int:
    """A layer's intermediate values for a whole question, and the logits of one token."""
    widths = 4 * language.hidden_size + 3 * language.intermediate_size
    return tokens * widths * size + 4 * language.vocab_size


def image_bytes(model: LisaModel, size: int) -> int:
    """The largest that the image encoder needs at once: attention over all of it, or its maps."""
    config = model.config
    maps = 8 * (config.image_size // 4) ** 2 * config.prompt_size * size
    vision: Any = config.mask_decoder_config().vision_config if config.full_size else None
    if not getattr(vision, "global_attn_indexes", None):
        return maps
    tokens = (vision.image_size // vision.patch_size) ** 2
    return max(maps, SCORES * vision.num_attention_heads * tokens**2 * size)


def this_machine() -> tuple[Place, ...]:
    """The memory and the GPUs here."""
    memory = psutil.virtual_memory()
    places = [Place("memory", memory.total, memory.available)]
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        places.append(Place(f"cuda:{index} {torch.cuda.get_device_name(index)}", total, free))
    return tuple(places)
