"""Official LISA, LLaVA and segment-anything checkpoints -> model directories of ours.

Four things are recognised by their keys: a LISA directory (v1 layout), the output of the official
training before its low-rank factors are merged, a LLaVA base, and a segment-anything state dict.
Everything is checked before anything is written: a tensor that is missing, left over or of another
shape is an error that names it. Tensors are copied one at a time, in the type they were stored in.
This file knows how the parts are put together; names are those of ``official``, bytes are read and
written by ``checkpoint``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from lisa.checkpoints.checkpoint import Checkpoint, Planned, read_json, write_shards
from lisa.checkpoints.directory import empty_model
from lisa.checkpoints.official_names import (
    CLIP_NAMES,
    DECODER,
    HEAD,
    LISA_NAMES,
    LLAVA_AND_CLIP_NAMES,
    LLAVA_NAMES,
    SAM_NAMES,
    VLM,
    Kind,
    kind_of,
    llava_fields,
    projector_kind,
    sam_fields,
)
from lisa.checkpoints.precision import part_of
from lisa.checkpoints.transfer import (
    ALPHA,
    Shape,
    Tensors,
    as_stored,
    check,
    merged,
    shapes_of,
    with_rows,
)
from lisa.errors import ModelError
from lisa.example import SEG_TOKEN
from lisa.files import check_absent, new_directory
from lisa.model.config import LisaConfig, as_config
from lisa.model.lisa import EmbeddingAsMask
from lisa.model.llama_tokenizer import ADDED_FILE, PIECES_FILE, LegacyTokenizer

PROMPT_SIZE = 256
SAM_PREFIX = "model.visual_model."  # of SAM's names within an official LISA
MARKS = ("<im_start>", "<im_end>")
TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json")
TRAINED_ON = (
    "ade20k/train",
    "coco-stuff/train",
    "pascal-part/train",
    "paco-lvis/train",
    "mapillary/train",
    "refclef/train",
    "refcoco/train",
    "refcoco+/train",
    "refcocog-umd/train",
    "llava-instruct",
    "reasonseg/train",
)


@dataclass(frozen=True)
class Part:
    """One part of a conversion: how much of it went where."""

    name: str
    source: str  # the file or directory it came from
    destination: str  # what its keys begin with now
    tensors: int
    bytes: int


@dataclass(frozen=True)
class Conversion:
    """What ``convert`` did."""

    kind: str
    result: str  # what was written, in words
    parts: tuple[Part, ...]
    left_out: tuple[str, ...]  # keys that today's code computes or does not need


def convert(
    source: Path,
    destination: Path,
    *,
    kind: Kind | None = None,
    vision_tower: Path | None = None,
    base: Path | None = None,
    decoder: Path | None = None,
    alpha: float = ALPHA,
    conversation: str = "llava_v1",
) -> Conversion:
    """Make a directory of ours from a checkpoint of another project.

    Args:
        source: a directory, or a weight file.
        destination: a directory that does not exist; it appears when it is complete.
        kind: what ``source`` is; None: recognised by its keys.
        vision_tower: the directory of the CLIP tower, which LISA and LLaVA leave out (where they do
            not, their copy is); None: the one that ``config.json`` names, beside ``source``.
        base: for unmerged training output: the LLaVA directory that training started from, for its
            configuration and tokenizer; None: ``source`` has them itself.
        decoder: for a LLaVA base: a segment-anything file, to make an untrained LISA of both.
        alpha: of the low-rank factors; they count ``alpha / rank`` times.
        conversation: the template that the model was trained with.

    Raises:
        ModelError: a checkpoint cannot be read, is not what it should be, or does not fit.
        OutputError: ``destination`` exists or cannot be written.
    """
    check_absent(destination)
    checkpoint = Checkpoint(source)
    kind = kind or kind_of(checkpoint.tensors)
    if kind is None:
        raise ModelError(
            f"'{source}' holds names such as '{next(iter(checkpoint.tensors), '')}'; expected "
            f"those of one of: {', '.join(Kind)}"
        )
    if kind is Kind.sam:
        return convert_sam(checkpoint, destination)
    if decoder is not None and kind is not Kind.llava:
        raise ModelError(f"'{source}' is {kind} and has a decoder; expected no --decoder")
    stored = merged(checkpoint, alpha) if kind is Kind.lora else as_stored(checkpoint)
    configured = configured_by(base or (source if source.is_dir() else source.parent))
    language = Language.read(stored, configured, find_tower(vision_tower, configured))
    if kind is Kind.llava and decoder is None:
        return convert_llava(language, checkpoint, destination)
    return convert_lisa(language, checkpoint, destination, kind, conversation, decoder)


# ------------------------------------------------------------------- what is there


def configured_by(directory: Path) -> Path:
    """The same directory, if it has LLaVA's configuration.

    Raises:
        ModelError: it has not.
    """
    if not (directory / "config.json").is_file():
        raise ModelError(
            f"no config.json in '{directory}'; expected LLaVA's beside the weights, or --base with "
            "the directory that training started from"
        )
    return directory


def find_tower(given: Path | None, configured: Path) -> Path:
    """The CLIP directory: the one given, or the one that the configuration names and is here.

    Raises:
        ModelError: there is none.
    """
    named = given or configured.parent / str(
        read_json(configured / "config.json").get("mm_vision_tower", "")
    )
    if not (named / "config.json").is_file():
        raise ModelError(
            f"no vision tower in '{named}'; expected --vision-tower with the directory of the CLIP "
            "model that the checkpoint was made with (openai/clip-vit-large-patch14)"
        )
    return named


@dataclass
class Language:
    """LLaVA's side of a checkpoint: tensors, configuration, tokenizer, and the CLIP tower."""

    stored: dict[str, Planned]
    directory: Path
    config: dict[str, Any]
    tokenizer: LegacyTokenizer
    tower: Path
    tower_config: dict[str, Any]

    @classmethod
    def read(cls, stored: dict[str, Planned], directory: Path, tower: Path) -> Language:
        """What stands beside the tensors.

        Raises:
            ModelError: a file is missing or damaged.
        """
        return cls(
            stored,
            directory,
            read_json(directory / "config.json"),
            LegacyTokenizer.read(directory),
            tower,
            read_json(tower / "config.json"),
        )

    def fields(self) -> dict[str, Any]:
        """The fields of a ``LlavaConfig``."""
        return llava_fields(self.config, self.tower_config, shapes_of(self.stored))

    def tower_tensors(self) -> Iterable[Planned]:
        """The tensors of the CLIP tower."""
        return as_stored(Checkpoint(self.tower)).values()


# ------------------------------------------------------------------- what is made of it


def convert_sam(checkpoint: Checkpoint, destination: Path) -> Conversion:
    """A segment-anything state dict -> the directory of a ``SamModel``."""
    stored = as_stored(checkpoint)
    fields = sam_fields(shapes_of(stored))
    tensors = Tensors().add(stored.values(), SAM_NAMES, checkpoint.path)
    check(tensors, sam_shapes(fields), SAM_NAMES, checkpoint.path)
    with new_directory(destination) as directory:
        write_json(directory / "config.json", fields | {"architectures": ["SamModel"]})
        write_shards(list(tensors.planned.values()), directory)
    return report(Kind.sam, "a mask decoder (SAM)", tensors, DECODER)


def sam_shapes(fields: Mapping[str, Any]) -> dict[str, Shape]:
    """The tensors that a ``SamModel`` stores."""
    from transformers import SamModel  # slow to import

    with torch.device("meta"):
        return stored_by(SamModel(as_config("mask_decoder", fields)))


def stored_by(model: PreTrainedModel) -> dict[str, Shape]:
    """Keys and shapes of what a model stores: nothing twice."""
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    return {key: shapes[key] for key in shapes.keys() - model.all_tied_weights_keys.keys()}


def convert_llava(language: Language, checkpoint: Checkpoint, destination: Path) -> Conversion:
    """A LLaVA base -> a directory with the language side alone."""
    tensors = Tensors().add(language.stored.values(), LLAVA_NAMES, checkpoint.path)
    tensors.add(language.tower_tensors(), CLIP_NAMES, language.tower)
    fields = language.fields()
    expected = llava_shapes(fields, projector_kind(shapes_of(language.stored)))
    check(tensors, expected, LLAVA_AND_CLIP_NAMES, checkpoint.path)
    with new_directory(destination) as directory:
        write_json(directory / "config.json", fields)
        write_language_files(language, directory)
        write_shards(list(tensors.planned.values()), directory)
    result = "a vision-language model (no mask decoder, no [SEG] head: with --decoder it gets both)"
    return report(Kind.llava, result, tensors, VLM)


def llava_shapes(fields: Mapping[str, Any], projector: str) -> dict[str, Shape]:
    """The tensors of a LLaVA, with its own projector or with a single matrix."""
    from transformers import LlavaForConditionalGeneration  # slow to import

    with torch.device("meta"):
        model = LlavaForConditionalGeneration(as_config("vlm", fields))
        if projector == "linear":
            widths = fields["vision_config"]["hidden_size"], fields["text_config"]["hidden_size"]
            model.model.multi_modal_projector = torch.nn.Linear(*widths)
    return stored_by(model)


def convert_lisa(
    language: Language,
    checkpoint: Checkpoint,
    destination: Path,
    kind: Kind,
    conversation: str,
    decoder: Path | None = None,
) -> Conversion:
    """LLaVA's side, SAM and the head -> a LISA directory; what LLaVA lacks is new."""
    if kind is not Kind.lisa:
        add_tokens(language)
    seg_token_id = check_tokens(language)
    tensors = Tensors().add(language.stored.values(), LISA_NAMES, checkpoint.path)
    tensors.add(language.tower_tensors(), CLIP_NAMES, language.tower, VLM)
    shapes = shapes_of(language.stored)
    if decoder is not None:
        sam = as_stored(Checkpoint(decoder), SAM_PREFIX)
        shapes |= shapes_of(sam)
        tensors.add(sam.values(), LISA_NAMES, decoder)
        add_head(tensors, language)
    config = lisa_config(
        language.config,
        language.tower_config,
        shapes,
        conversation=conversation,
        seg_token_id=seg_token_id,
        trained_on=[] if kind is Kind.llava else list(TRAINED_ON),
    )
    check(tensors, model_shapes(config, destination), LISA_NAMES, checkpoint.path)
    with new_directory(destination) as directory:
        write_json(directory / "config.json", json.loads(config.to_json_string(use_diff=False)))
        write_language_files(language, directory)
        write_shards(list(tensors.planned.values()), directory)
    result = "a LISA with an untrained head" if kind is Kind.llava else "a LISA"
    return report(kind, result, tensors)


def lisa_config(
    config: Mapping[str, Any], clip: Mapping[str, Any], shapes: Mapping[str, Shape], **rest: Any
) -> LisaConfig:
    """The configuration of an official LISA: from its ``config.json``, its tower's, and shapes.

    Raises:
        ModelError: something that tells a size is missing.
    """
    sam = {
        key.removeprefix(SAM_PREFIX): shape
        for key, shape in shapes.items()
        if key.startswith(SAM_PREFIX)
    }
    return LisaConfig.from_parts(
        llava_fields(config, clip, shapes),
        sam_fields(sam),
        projector=projector_kind(shapes),
        **rest,
    )


def model_shapes(config: LisaConfig, directory: Path) -> dict[str, Shape]:
    """The tensors that a model of ``config`` stores."""
    return stored_by(empty_model(config, directory))


def add_tokens(language: Language) -> None:
    """``[SEG]`` and the marks of a picture, in the official order, and rows for them.

    Training output has the rows already.
    """
    for token in (SEG_TOKEN, *MARKS):
        language.tokenizer.add(token)
    for key in ("model.embed_tokens.weight", "lm_head.weight"):
        if key in language.stored:
            language.stored[key] = with_rows(language.stored[key], len(language.tokenizer))


def add_head(tensors: Tensors, language: Language) -> None:
    """A head that has learnt nothing, the same one each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = EmbeddingAsMask(int(language.config["hidden_size"]), PROMPT_SIZE)
    for key, value in head.layers.state_dict().items():
        tensors.new(f"{HEAD}{key}", value)


def check_tokens(language: Language) -> int:
    """The id of ``[SEG]``; the word embeddings have a row for it and every other token.

    Raises:
        ModelError: there is no such token, or not a row for each.
    """
    number = language.tokenizer.token_id(SEG_TOKEN)
    if number is None:
        raise ModelError(
            f"the tokenizer in '{language.directory}' has no {SEG_TOKEN}; "
            f"expected it among {ADDED_FILE}"
        )
    table = language.stored.get("model.embed_tokens.weight")
    if table is not None and table.shape[0] < len(language.tokenizer):
        raise ModelError(
            f"'{table.key}' has {table.shape[0]} rows; expected {len(language.tokenizer)}, "
            f"one for each token of '{language.directory}' ({SEG_TOKEN} is {number})"
        )
    return number


# ------------------------------------------------------------------- what is written


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Sorted and readable."""
    path.write_text(f"{json.dumps(content, indent=1, sort_keys=True)}\n", encoding="utf-8")


def write_language_files(language: Language, directory: Path) -> None:
    """The tokenizer, and how answers are generated."""
    shutil.copyfile(language.directory / PIECES_FILE, directory / PIECES_FILE)
    write_json(directory / ADDED_FILE, language.tokenizer.added)
    for name in TOKENIZER_FILES:
        if (language.directory / name).is_file():
            shutil.copyfile(language.directory / name, directory / name)
    tokens = {
        "bos_token_id": language.tokenizer.bos_token_id,
        "eos_token_id": language.tokenizer.eos_token_id,
        "pad_token_id": language.tokenizer.pad_token_id,
    }
    write_json(directory / "generation_config.json", tokens)


def report(kind: Kind, result: str, tensors: Tensors, prefix: str = "") -> Conversion:
    """What went where, by part of the model; ``prefix`` would stand before the keys of a LISA."""
    groups: dict[tuple[str, str], list[Planned]] = {}
    for key, tensor in tensors.planned.items():
        group = (part_of(f"{prefix}{key}"), str(tensors.origins[key][1]))
        groups.setdefault(group, []).append(tensor)
    parts = tuple(
        Part(
            name,
            source,
            common_beginning([tensor.key for tensor in group]),
            len(group),
            sum(tensor.nbytes for tensor in group),
        )
        for (name, source), group in groups.items()
    )
    return Conversion(kind.value, result, parts, tuple(tensors.left_out))


def common_beginning(keys: list[str]) -> str:
    """The parts of their names that all keys begin with; without any, what they begin with."""
    columns = zip(*(key.split(".") for key in keys), strict=False)
    common = [parts[0] for parts in takewhile(lambda parts: len({*parts}) == 1, columns)]
    return ".".join(common) or ", ".join(sorted({key.split(".")[0] for key in keys}))
