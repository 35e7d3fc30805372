"""A tiny model whose answers and masks depend on the picture and the question, and its files."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn

from lisa.checkpoints.checkpoint import write_file
from lisa.checkpoints.directory import write_config
from lisa.model.config import LisaConfig
from lisa.model.lisa import LisaModel
from lisa.nano.model.decoder import NanoDecoder
from lisa.nano.model.lisa import NanoModel
from lisa.nano.model.processor import LisaProcessor, add_seg_token
from lisa.nano.model.tower import HEAD_CHANNELS, VisionTower
from lisa.nano.model.vlm import NanoVlm

CONTROL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SYLLABLES = ["ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "ri", "so"]
WORDS = ["user", "assistant", "what", "is", "the", "a", "cat", "cup", "umbrella", "no", "in", "and"]


def chat_tokenizer() -> Tokenizer:
    """Byte-level BPE over a few hundred made-up words, with the chat markers and [SEG]."""
    generator = random.Random(0)
    made_up = ["".join(generator.choices(SYLLABLES, k=3)) for _ in range(300)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=CONTROL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS + made_up), *(f" {w}" for w in WORDS)], trainer)
    add_seg_token(tokenizer)
    return tokenizer


def tiny_config(tokenizer: Tokenizer, **changes: Any) -> LisaConfig:
    """Of a model that reads what the tokenizer writes."""
    seg_token_id = tokenizer.token_to_id("[SEG]")
    return LisaConfig.tiny(seg_token_id, seg_token_id, **changes)


def recalling_model(names: list[str]) -> tuple[LisaModel, LisaProcessor]:
    """A tiny model with recall of these names, and its processor."""
    tokenizer = chat_tokenizer()
    config = tiny_config(tokenizer, recall_names=names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return NanoModel(config).eval(), LisaProcessor(tokenizer, config)


def lively_model(config: LisaConfig, seed: int = 22) -> LisaModel:
    """Random weights, large enough to matter; the same ones for the same seed."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = NanoModel(config)
        liven_language(model.vlm)
        liven_decoder(model.decoder, config.image_size)
        for matrix in matrices(model.head):
            matrix.normal_(std=0.2)
    return model.eval()


def liven_language(vlm: NanoVlm) -> None:
    """Answers of different lengths, some with [SEG] and some without."""
    for matrix in matrices(vlm.language):
        matrix.normal_(std=0.3)
    vlm.vocabulary.normal_()
    vlm.vocabulary[CONTROL_TOKENS.index("<|im_end|>")] *= 1.7
    vlm.seg_input.normal_()
    vlm.seg_output.normal_(std=2.0)
    vlm.projector.place_embedding.weight.normal_(std=0.3)
    vlm.projector.kind_embedding.normal_(std=0.3)
    vlm.projector.score_embedding.normal_(std=0.3)
    vlm.projector.comma_id.fill_(len(CONTROL_TOKENS))
    for ids in (vlm.projector.class_ids, vlm.projector.concept_ids):
        name_at_random(ids, len(vlm.vocabulary))


def name_at_random(ids: Tensor, vocabulary: int) -> None:
    """Names of one, two and three tokens."""
    ids.random_(len(CONTROL_TOKENS) + 1, vocabulary)
    lengths = 1 + torch.arange(len(ids)) % 3
    ids[torch.arange(ids.shape[1]) >= lengths[:, None]] = -1


def liven_decoder(decoder: NanoDecoder, side: int) -> None:
    """Masks with an inside and an outside, and a tower that is sure of what it sees."""
    settle(decoder.tower, side)
    tell_apart(decoder.tower, side)
    for name, part in decoder.named_children():
        if name not in ("tower", "neck"):
            for matrix in matrices(part):
                matrix.normal_(std=0.2)


def settle(tower: VisionTower, side: int) -> None:
    """Let the batch norms learn what the random filters give out."""
    for module in tower.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.9
    tower.train()
    tower(some_pictures(side))


def tell_apart(tower: VisionTower, side: int) -> None:
    """Let the classifier look at how pictures differ, not at what they have in common."""
    tower.eval()
    common = tower(some_pictures(side)).stride32[:, -HEAD_CHANNELS:].mean((0, 2, 3))
    tower.classifier.weight *= 100
    tower.classifier.bias.copy_(-(tower.classifier.weight @ common))


def some_pictures(side: int) -> Tensor:
    return torch.stack([pixel_values(side, seed) for seed in range(4)])


def matrices(part: nn.Module) -> list[Tensor]:
    """The part's weights without biases and norms."""
    return [parameter for parameter in part.parameters() if parameter.ndim > 1]


def save_directory(model: LisaModel, tokenizer: Tokenizer, out: Path) -> None:
    """Write a model as `build` reads it."""
    state = {k: v for k, v in model.state_dict().items() if k not in model.all_tied_weights_keys}
    write_file(state, out / "model.safetensors")
    write_config(model.config, out)
    tokenizer.save(str(out / "tokenizer.json"))


def picture(width: int = 48, height: int = 40, seed: int = 0) -> PIL.Image.Image:
    """Coloured noise, coarse enough to survive being resized."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return PIL.Image.fromarray(noise).resize((width, height), PIL.Image.Resampling.BICUBIC)


def pixel_values(side: int, seed: int) -> Tensor:
    """A picture as the model sees it: [3, side, side] in [-1, 1]."""
    pixels = torch.from_numpy(np.array(picture(side, side, seed)))
    return pixels.permute(2, 0, 1) / 127.5 - 1
