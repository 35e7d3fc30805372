"""What a directory or weight file is, and whether it is complete, without loading it.

Headers and configurations are read, and a model of the same sizes is built without memory, to know
which tensors there should be. This file refuses to change anything, and it prints nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lisa.checkpoints.checkpoint import Checkpoint, Stored, read_json
from lisa.checkpoints.convert import (
    SAM_PREFIX,
    lisa_config,
    llava_shapes,
    model_shapes,
    sam_shapes,
)
from lisa.checkpoints.directory import read_config
from lisa.checkpoints.official_names import (
    ANY_CLIP,
    LISA_NAMES,
    LLAVA_AND_CLIP_NAMES,
    PEFT_PREFIX,
    PROJECTOR,
    SAM_NAMES,
    VISION_TOWER,
    Kind,
    kind_of,
    llava_fields,
    projector_kind,
    sam_fields,
)
from lisa.checkpoints.packed import BLOCK_BYTES, LOW_RANK, split_key
from lisa.checkpoints.transfer import (
    Shape,
    Tensors,
    as_stored,
    differences,
    merged,
    problems,
    shapes_of,
)
from lisa.errors import LisaError, ModelError
from lisa.example import SEG_TOKEN
from lisa.model.config import LisaConfig
from lisa.model.llama_tokenizer import ADDED_FILE, LegacyTokenizer

OURS, UNKNOWN = "ours", "unknown"
PART = "a part of a LISA"
SHOWN_PROBLEMS = 10

# The parts that ``lisa convert`` makes: configuration, shapes -> the tensors there should be.
PART_SHAPES: dict[str, Callable[[Mapping[str, Any], Mapping[str, Shape]], dict[str, Shape]]] = {
    "sam": lambda config, _: sam_shapes(config),
    "llava": lambda config, shapes: llava_shapes(
        config, "linear" if f"{PROJECTOR}.weight" in shapes else "own"
    ),
}


@dataclass(frozen=True)
class Check:
    """What ``load_check`` found."""

    path: str
    kind: str  # "ours", a ``Kind``, or "unknown"
    complete: bool
    problems: tuple[str, ...]  # why it is not complete; one line each
    files: int
    tensors: int
    numbers: int  # as stored, packed ones unpacked
    bytes: int
    formats: tuple[str, ...]  # number formats, as "bfloat16"
    seg_token_id: int | None
    sizes: dict[str, int]
    licences: tuple[str, ...]  # as the directory states them
    trained_on: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON can hold it."""
        return asdict(self)

    def __str__(self) -> str:
        stored = f"{self.tensors:,} tensors in {self.files:,} files, {self.bytes / 2**20:,.1f} MiB"
        rows = {
            "kind": self.kind,
            "complete": "yes" if self.complete else f"no: {len(self.problems)} problems",
            "stored": f"{stored}, {self.numbers / 1e6:,.1f} M numbers ({', '.join(self.formats)})",
            SEG_TOKEN: "none" if self.seg_token_id is None else f"token {self.seg_token_id}",
            **{name: f"{size:,}" for name, size in self.sizes.items()},
            "licences": ", ".join(self.licences) or "not stated",
            "trained on": ", ".join(self.trained_on) or "not stated",
        }
        lines = [f"{name:<22}{value}" for name, value in rows.items()]
        return "\n".join([self.path, *lines, *self.problems[:SHOWN_PROBLEMS]])


def load_check(path: Path) -> Check:
    """Look at a model directory or a weight file.

    Raises:
        ModelError: there is nothing at ``path``.
    """
    if not path.exists():
        raise ModelError(f"'{path}' does not exist; expected a model directory or a weight file")
    config = read_json(path / "config.json") if (path / "config.json").is_file() else {}
    try:
        checkpoint = Checkpoint(path)
    except LisaError as error:
        return summary(path, kind_by_config(config), {}, config, [str(error)])
    if config.get("model_type") == LisaConfig.model_type:
        return check_ours(path, checkpoint, config)
    kind = kind_of(checkpoint.tensors)
    if kind is None and config.get("model_type") in PART_SHAPES:
        return check_part(path, checkpoint, config)
    if kind is None:
        return summary(path, UNKNOWN, checkpoint.tensors, config, ["no names that we know"])
    try:
        found = official_problems(kind, checkpoint, config)
    except LisaError as error:
        found = [str(error)]
    return summary(path, kind.value, checkpoint.tensors, config, found)


def kind_by_config(config: Mapping[str, Any]) -> str:
    """What a directory is whose weights cannot be read."""
    if config.get("model_type") == LisaConfig.model_type:
        return OURS
    if "mm_vision_tower" in config:
        return (Kind.lisa if "train_mask_decoder" in config else Kind.llava).value
    return UNKNOWN


# ------------------------------------------------------------------- is it complete?


def check_ours(path: Path, checkpoint: Checkpoint, config: Mapping[str, Any]) -> Check:
    """A directory that ``lisa.load`` takes."""
    try:
        expected = model_shapes(read_config(path), path)
        found = differences(stored_shapes(checkpoint.tensors), expected)
    except LisaError as error:
        found = [str(error)]
    stated, known = config.get("seg_token_id"), tokenizer_seg_id(path)
    if stated != known:
        found.append(
            f"{SEG_TOKEN} is {stated} in config.json and {known} in the tokenizer; expected one id"
        )
    return summary(path, OURS, checkpoint.tensors, config, found)


def check_part(path: Path, checkpoint: Checkpoint, config: Mapping[str, Any]) -> Check:
    """A mask decoder or language side as ``lisa convert`` writes them."""
    shapes = {key: tensor.shape for key, tensor in checkpoint.tensors.items()}
    try:
        found = differences(shapes, PART_SHAPES[config["model_type"]](config, shapes))
    except LisaError as error:
        found = [str(error)]
    return summary(path, f"{PART} ({config['model_type']})", checkpoint.tensors, config, found)


def stored_shapes(tensors: Mapping[str, Stored]) -> dict[str, Shape]:
    """Parameters and their shapes, whatever the spelling on disk."""
    shapes = {}
    for key, tensor in tensors.items():
        name, spelling = split_key(key)
        if spelling not in LOW_RANK:
            shapes[name] = unpacked(tensor.shape) if spelling in BLOCK_BYTES else tensor.shape
    return shapes


def unpacked(shape: Shape) -> Shape:
    """[rows, blocks, bytes] of a packed matrix -> [rows, columns]."""
    return (shape[0], 32 * shape[1]) if len(shape) == 3 else shape


def official_problems(kind: Kind, checkpoint: Checkpoint, config: Mapping[str, Any]) -> list[str]:
    """What is wrong with a checkpoint of another project; its CLIP tower may be elsewhere."""
    stored = merged(checkpoint) if kind is Kind.lora else as_stored(checkpoint)
    names = {Kind.sam: SAM_NAMES, Kind.llava: LLAVA_AND_CLIP_NAMES}.get(kind, LISA_NAMES)
    tensors = Tensors().add(stored.values(), names, checkpoint.path)
    expected = official_shapes(kind, shapes_of(stored), config, checkpoint.path)
    return [
        *problems(tensors, expected, names),
        *tokenizer_problems(kind, checkpoint.path),
    ]


def official_shapes(
    kind: Kind, shapes: Mapping[str, Shape], config: Mapping[str, Any], path: Path
) -> dict[str, Shape]:
    """The tensors that there should be, but those of the CLIP tower."""
    if kind is Kind.sam:
        return sam_shapes(sam_fields(shapes))
    if not config:
        raise ModelError(f"no config.json in '{path}'; expected LLaVA's beside the weights")
    clip = ANY_CLIP | {"hidden_size": config.get("mm_hidden_size", 1024)}
    if kind is Kind.llava:
        expected = llava_shapes(llava_fields(config, clip, shapes), projector_kind(shapes))
    else:
        seg_token_id = shapes["model.embed_tokens.weight"][0] - 1
        expected = model_shapes(lisa_config(config, clip, shapes, seg_token_id=seg_token_id), path)
    return {key: shape for key, shape in expected.items() if VISION_TOWER not in key}


def tokenizer_problems(kind: Kind, path: Path) -> list[str]:
    """Why the tokenizer cannot be used, if so."""
    if kind not in (Kind.lisa, Kind.llava) or not path.is_dir():
        return []
    try:
        tokenizer = LegacyTokenizer.read(path)
    except LisaError as error:
        return [str(error)]
    if kind is Kind.lisa and tokenizer.token_id(SEG_TOKEN) is None:
        return [f"the tokenizer in '{path}' has no {SEG_TOKEN}; expected it among {ADDED_FILE}"]
    return []


# ------------------------------------------------------------------- what is it like?


def summary(
    path: Path,
    kind: str,
    tensors: Mapping[str, Stored],
    config: Mapping[str, Any],
    found: list[str],
) -> Check:
    """Everything that can be told of a checkpoint, and the problems found."""
    shapes = stored_shapes(tensors)
    return Check(
        path=str(path),
        kind=kind,
        complete=not found,
        problems=tuple(found),
        files=len({tensor.file for tensor in tensors.values()}),
        tensors=len(tensors),
        numbers=sum(math.prod(shape) for shape in shapes.values()),
        bytes=sum(tensor.nbytes for tensor in tensors.values()),
        formats=tuple(sorted({str(t.dtype).removeprefix("torch.") for t in tensors.values()})),
        seg_token_id=config.get("seg_token_id") or tokenizer_seg_id(path),
        sizes=sizes(shapes, config),
        licences=licences(path),
        trained_on=tuple(config.get("trained_on") or ()),
    )


def tokenizer_seg_id(path: Path) -> int | None:
    """The id of ``[SEG]`` in a directory's tokenizer; None: it has none, or cannot be read."""
    try:
        if (path / "tokenizer.json").is_file():
            number = Tokenizer.from_file(str(path / "tokenizer.json")).token_to_id(SEG_TOKEN)
            return None if number is None else int(number)
        return LegacyTokenizer.read(path).token_id(SEG_TOKEN)
    except Exception:  # tokenizers raises its own, on damaged files
        return None


def sizes(shapes: Mapping[str, Shape], config: Mapping[str, Any]) -> dict[str, int]:
    """The sizes that people ask for, as far as they are known."""
    vlm, decoder = config.get("vlm") or {}, config.get("mask_decoder") or {}
    language = config.get("language") or vlm.get("text_config") or vlm or config
    image = decoder.get("vision_config") or image_encoder(shapes)
    words = shapes.get("model.embed_tokens.weight", (language.get("vocab_size"),))
    found = {
        "vocabulary": words[0],
        "language width": language.get("hidden_size"),
        "language layers": language.get("num_hidden_layers"),
        "image encoder width": image.get("hidden_size"),
        "image encoder layers": image.get("num_hidden_layers"),
        "picture side": image.get("image_size") or config.get("image_size"),
    }
    return {name: size for name, size in found.items() if isinstance(size, int)}


def image_encoder(shapes: Mapping[str, Shape]) -> Mapping[str, Any]:
    """The fields of SAM's image encoder, where there is one."""
    named = {key.removeprefix(PEFT_PREFIX).removeprefix(SAM_PREFIX): shapes[key] for key in shapes}
    try:
        return dict(sam_fields(named)["vision_config"])
    except ModelError:
        return {}


def licences(path: Path) -> tuple[str, ...]:
    """What the directory says of its licence: in the head of its README, or in its licence file."""
    if not path.is_dir():
        return ()
    stated = []
    for readme in path.glob("README.md"):
        head = readme.read_text(encoding="utf-8", errors="replace").split("---")
        lines = head[1].splitlines() if not head[0].strip() and len(head) > 2 else []
        stated += [line.partition(":")[2].strip() for line in lines if line.startswith("license:")]
    for file in sorted(path.glob("LICEN[CS]E*")):
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
        stated += [line.strip() for line in lines if line.strip()][:1]
    return tuple(stated)
