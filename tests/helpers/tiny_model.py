"""A tiny model before training, and the files that training starts from."""

from pathlib import Path

import torch

from helpers.lively_model import chat_tokenizer, tiny_config
from lisa.checkpoints.checkpoint import write_file
from lisa.checkpoints.directory import write_config
from lisa.model.lisa import LisaModel
from lisa.nano.model.directory import write_names
from lisa.nano.model.lisa import NanoModel
from lisa.nano.model.processor import LisaProcessor
from lisa.nano.model.starting_weights import write_language


def tiny_model(seed: int = 0) -> tuple[LisaModel, LisaProcessor]:
    """The same weights for the same seed."""
    tokenizer = chat_tokenizer()
    config = tiny_config(tokenizer)
    torch.manual_seed(seed)
    model, processor = NanoModel(config).eval(), LisaProcessor(tokenizer, config)
    write_names(model, processor, [f"class {n}" for n in range(1000)])
    return model, processor


def write_starting_model(directory: Path) -> Path:
    """Published parts in their four files, configuration and tokenizer; nothing else."""
    model, processor = tiny_model()
    directory.mkdir(parents=True)
    language = model.vlm.language.state_dict()
    del language["lm_head.weight"]  # the embeddings, once more
    write_language(language, directory)
    tower = {f"decoder.tower.{k}": v for k, v in model.decoder.tower.state_dict().items()}
    write_file(tower, directory / "tower.safetensors")
    processor.tokenizer.save(str(directory / "tokenizer.json"))
    write_config(processor.config, directory)
    return directory
