"""A model of the embedded one's make with random weights, and its files as they ship."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from lisa.model.config import LisaConfig
from lisa.model.convert import write_config, write_language
from lisa.model.lisa import LisaModel
from lisa.model.processor import LisaProcessor, add_seg_token
from lisa.model.weights import write_file


def byte_tokenizer() -> Tokenizer:
    """One id a byte, the two marks of a turn, and ``[SEG]``."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: n for n, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    add_seg_token(tokenizer)
    return tokenizer


def tiny_model(seed: int = 0) -> tuple[LisaModel, LisaProcessor]:
    """The same weights for the same seed."""
    tokenizer = byte_tokenizer()
    seg_token_id = tokenizer.get_vocab_size() - 1
    config = LisaConfig.tiny(vocab_size=seg_token_id, seg_token_id=seg_token_id)
    torch.manual_seed(seed)
    return LisaModel(config).eval(), LisaProcessor(tokenizer, config)


def write_starting_model(directory: Path) -> Path:
    """What training starts from: published parts in their four files, configuration, tokenizer."""
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
