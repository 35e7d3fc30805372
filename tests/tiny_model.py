"""A tiny model before training, and the files that training starts from."""

from pathlib import Path

import torch

from lisa.model.convert import write_config, write_language, write_names
from lisa.model.lisa import LisaModel
from lisa.model.processor import LisaProcessor
from lisa.model.weights import write_file
from lively_model import chat_tokenizer, tiny_config


def tiny_model(seed: int = 0) -> tuple[LisaModel, LisaProcessor]:
    """The same weights for the same seed."""
    tokenizer = chat_tokenizer()
    config = tiny_config(tokenizer)
    torch.manual_seed(seed)
    model, processor = LisaModel(config).eval(), LisaProcessor(tokenizer, config)
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
