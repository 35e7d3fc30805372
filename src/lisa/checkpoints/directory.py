"""A name or a path -> (model, processor), on a device; says loudly what it loaded.

``"nano"`` is the embedded model; anything else is a directory. Loading is strict: a missing,
left-over or mis-shaped weight is an error that names the key. This file refuses to know what the
model is used for, and never opens a network connection.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedModel,
)

from lisa.checkpoints.checkpoint import Planned, check_complete, write_shards
from lisa.checkpoints.packed import read_weights
from lisa.checkpoints.precision import DEFAULT, Precision, load_model
from lisa.errors import ModelError
from lisa.files import new_directory, write_atomically
from lisa.model.config import LisaConfig
from lisa.model.lisa import LisaModel
from lisa.model.mask_decoder import SamDecoder
from lisa.model.processor import FullSizeProcessor
from lisa.model.text_processor import ChatText, add_seg_token
from lisa.model.vlm import HfVlm
from lisa.nano.model.lisa import NanoModel
from lisa.nano.model.processor import LisaProcessor

Processor = LisaProcessor | FullSizeProcessor
EMBEDDED = "nano"
logger = logging.getLogger("lisa")


def model_directory(model: str | Path) -> Path:
    """The directory behind a model's name.

    Raises:
        ModelError: neither the name of an embedded model nor a directory with a ``config.json``.
    """
    if str(model) == EMBEDDED:
        return Path(str(resources.files("lisa"))) / "assets" / EMBEDDED
    directory = Path(model)
    if not (directory / "config.json").is_file():
        raise ModelError(
            f"model '{model}' {what_is_wrong(directory)}; "
            f"expected '{EMBEDDED}' or a LISA model directory"
        )
    return directory


def what_is_wrong(directory: Path) -> str:
    """Why a path is no model directory."""
    if directory.is_dir():
        return "holds no config.json"
    return "is not a directory" if directory.exists() else "does not exist"


def pick_device(device: str | None = None) -> torch.device:
    """The device asked for, or with None or "auto" the best one here.

    Raises:
        ModelError: torch does not know the device, or it is not on this machine.
    """
    if device in (None, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(str(device))
        torch.zeros(1, device=chosen).item()  # fails where nothing can be computed, as on "meta"
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(
            f"device '{device}' cannot be used; expected auto, cpu, cuda or cuda:N"
        ) from error
    return chosen


def read_config(directory: Path) -> LisaConfig:
    """``config.json`` of a model directory.

    Raises:
        ModelError: it is not there, not JSON, or not the configuration of a LISA model.
    """
    path = directory / "config.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # ValueError: neither JSON nor UTF-8
        raise ModelError(
            f"cannot read '{path}': {error}; expected the configuration of a LISA model"
        ) from error
    kind = fields.get("model_type") if isinstance(fields, dict) else None
    if kind != LisaConfig.model_type:
        raise ModelError(f"'{path}' has model_type {kind!r}; expected '{LisaConfig.model_type}'")
    with naming_file(path):
        return LisaConfig(**fields)


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """What fails inside is the fault of a configuration file: say so in one line."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"cannot use '{path}': {error}") from error
    except Exception as error:  # transformers raises many types, by field
        reason = " ".join(str(error).split())
        raise ModelError(
            f"cannot use '{path}': {reason}; expected fields that a model can be built from"
        ) from error


def build(
    model: str | Path = EMBEDDED, device: str | None = None, precision: Precision = DEFAULT
) -> tuple[LisaModel, Processor]:
    """Load a model and its processor, ready to answer.

    Args:
        model: "nano" or a directory.
        device: "cpu", "cuda", "cuda:1" ...; None or "auto" takes a GPU if there is one.
        precision: number format, quantisation and spreading over devices; full size only.

    Raises:
        ModelError: the model is unknown, incomplete or damaged, the device is not there, or the
            model cannot have the precision.
    """
    directory = model_directory(model)
    chosen = pick_device(device)
    config = read_config(directory)
    if config.full_size:
        read = FullSizeProcessor.from_directory(directory, config)
        return load_model(empty_model(config, directory), directory, chosen, precision), read
    if not precision.plain:
        raise ModelError(f"model '{model}' runs in float32 on one device; expected no {precision}")
    processor = LisaProcessor.from_directory(directory, config)
    loaded = assemble_model(config, directory)
    torch.nn.Module.to(loaded, chosen)  # without the checks of PreTrainedModel for packed weights
    return loaded.eval(), processor


def assemble_model(config: LisaConfig, directory: Path) -> LisaModel:
    """The model of ``config`` with exactly the weights in ``directory``.

    Raises:
        ModelError: the configuration or the weights do not fit; names the field or the key.
    """
    model = empty_model(config, directory)
    state = read_weights(directory)
    expected = {
        key: value for key, value in model.state_dict().items() if key not in tied_keys(model)
    }
    check_complete(state, expected, directory)
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    materialise(model)
    numbers = sum(tensor.numel() for tensor in state.values())
    logger.info(
        "loaded %d tensors, %.1f M numbers from %s; none missing, none left over",
        len(state),
        numbers / 1e6,
        directory,
    )
    return model


def empty_model(config: LisaConfig, directory: Path) -> LisaModel:
    """The model of ``config`` without memory for its weights."""
    with naming_file(directory / "config.json"), torch.device("meta"):
        return FullSizeModel(config) if config.full_size else NanoModel(config)


def tied_keys(model: LisaModel) -> set[str]:
    """Parameters that are another parameter's second name and are therefore not stored."""
    return set(model.all_tied_weights_keys)


def materialise(model: LisaModel) -> None:
    """Recompute what is derived rather than stored: the rotary frequencies."""
    language = model.vlm.language.model
    language.rotary_emb = type(language.rotary_emb)(language.config)


# ------------------------------------------------------------------------ full size


def from_parts(
    vlm: str | Path, decoder: str | Path, **changes: Any
) -> tuple[LisaModel, FullSizeProcessor]:
    """A model to be trained, from two pretrained models of ``transformers``; its head is new.

    Args:
        vlm: local directory, or name on the Hugging Face hub, of a vision-language model.
        decoder: the same of a model of the SAM family.
        changes: further fields of the ``LisaConfig``.

    Raises:
        ModelError: a part cannot be read, is not complete, or they do not go together.
    """
    with naming_part(vlm):
        tokenizer: Any = AutoTokenizer.from_pretrained(vlm)
        image_processor = AutoImageProcessor.from_pretrained(vlm, backend="pil")
        language: Any = whole(AutoModelForImageTextToText, vlm)
    changes.setdefault("seg_token_id", add_seg_token(tokenizer))
    config = LisaConfig.from_parts(vlm, decoder, **changes)
    rows = config.language_config().vocab_size
    if rows > language.get_input_embeddings().num_embeddings:
        language.resize_token_embeddings(rows)
    with naming_part(decoder):
        masks = whole(AutoModel, decoder, config=config.mask_decoder_config())
    processor = FullSizeProcessor(ChatText(tokenizer, config), image_processor, config)
    return FullSizeModel(config, language, masks).eval(), processor


class FullSizeModel(LisaModel):
    """A model of two models of ``transformers``.

    Args:
        config: names and sizes of both.
        language, masks: the two, pretrained; None: new ones of ``config``.

    Raises:
        ModelError: the parts of ``config`` do not go together.
    """

    def __init__(
        self,
        config: LisaConfig,
        language: PreTrainedModel | None = None,
        masks: PreTrainedModel | None = None,
    ) -> None:
        decoder = SamDecoder(config, masks)
        super().__init__(config, HfVlm(config, language), decoder)


def whole(kind: Any, source: str | Path, **settings: Any) -> PreTrainedModel:
    """A pretrained model that lacks no weight.

    Raises:
        ModelError: names the first one that it lacks.
    """
    model, report = kind.from_pretrained(source, output_loading_info=True, **settings)
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(f"'{source}' has no weight '{missing[0]}'; expected a complete model")
    return model


@contextmanager
def naming_part(source: str | Path) -> Iterator[None]:
    """What fails inside is the fault of a pretrained part: say so in one line."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # transformers raises many types
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"cannot use '{source}': {reason}; expected a model of transformers"
        ) from error


def save(model: LisaModel, processor: FullSizeProcessor, directory: Path) -> None:
    """Write a model of full size as ``build`` reads it; the directory appears when complete.

    Raises:
        OutputError: ``directory`` exists or cannot be written.
    """
    tied = tied_keys(model)
    planned = [
        Planned(key, tuple(value.shape), value.dtype, value.detach().cpu)
        for key, value in model.state_dict().items()
        if key not in tied
    ]
    with new_directory(directory) as temporary:
        model.config.to_json_file(temporary / "config.json", use_diff=False)
        processor.save(temporary)
        write_shards(planned, temporary)


def write_config(config: LisaConfig, out: Path) -> None:
    """``config.json``, sorted and readable."""
    fields = json.loads(config.to_json_string(use_diff=False))
    text = json.dumps(fields, indent=1, sort_keys=True)
    write_atomically(out / "config.json", f"{text}\n".encode())
