"""A name or a path -> (model, processor), on a device; says loudly what it loaded.

``"nano"`` is the embedded model; anything else is a directory. Loading is strict: a missing,
left-over or mis-shaped weight is an error that names the key. This file refuses to know what the
model is used for, and never opens a network connection.
"""

from __future__ import annotations

import json
import logging
from importlib import resources
from pathlib import Path

import torch

from lisa.errors import ModelError
from lisa.model.config import LisaConfig
from lisa.model.lisa import LisaModel
from lisa.model.processor import LisaProcessor
from lisa.model.weights import check_complete, read_weights

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
        what = "holds no config.json" if directory.is_dir() else "is not a directory"
        raise ModelError(f"model '{model}' {what}; expected '{EMBEDDED}' or a LISA model directory")
    return directory


def pick_device(device: str | None = None) -> torch.device:
    """The device asked for, or with None or "auto" the best one here.

    Raises:
        ModelError: torch does not know the device, or it is not on this machine.
    """
    if device in (None, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(str(device))
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(
            f"device '{device}' cannot be used; expected auto, cpu, cuda or cuda:N"
        ) from error
    return chosen


def read_config(directory: Path) -> LisaConfig:
    """``config.json`` of a model directory."""
    path = directory / "config.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return LisaConfig(**fields)
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(
            f"cannot read '{path}': {error}; expected the configuration of a LISA model"
        ) from error


def build(
    model: str | Path = EMBEDDED, device: str | None = None
) -> tuple[LisaModel, LisaProcessor]:
    """Load a model and its processor, ready to answer.

    Raises:
        ModelError: the model is unknown, incomplete or damaged, or the device is not there.
    """
    directory = model_directory(model)
    chosen = pick_device(device)
    config = read_config(directory)
    processor = LisaProcessor.from_directory(directory, config)
    loaded = assemble_model(config, directory)
    return loaded.to(chosen).eval(), processor


def assemble_model(config: LisaConfig, directory: Path) -> LisaModel:
    """The model of ``config`` with exactly the weights in ``directory``."""
    with torch.device("meta"):
        model = LisaModel(config)
    state = read_weights(directory)
    expected = {
        key: value for key, value in model.state_dict().items() if key not in tied_keys(model)
    }
    check_complete(state, expected, directory)
    model.load_state_dict(state, strict=False, assign=True)
    model.vlm.language.tie_weights()
    materialise(model)
    numbers = sum(tensor.numel() for tensor in state.values())
    logger.info(
        "loaded %d tensors, %.1f M numbers from %s; none missing, none left over",
        len(state),
        numbers / 1e6,
        directory,
    )
    return model


def tied_keys(model: LisaModel) -> set[str]:
    """Parameters that are another parameter's second name and are therefore not stored."""
    tied = model.vlm.language.config.tie_word_embeddings
    return {"vlm.language.lm_head.weight"} if tied else set()


def materialise(model: LisaModel) -> None:
    """Recompute what is derived rather than stored: the rotary frequencies."""
    rotary = model.vlm.language.model.rotary_emb
    fresh = type(rotary)(model.vlm.language.config)
    model.vlm.language.model.rotary_emb = fresh
