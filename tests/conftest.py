"""A tiny model with random weights, as a directory that `lisa.load` takes."""

import random
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from lisa.model.build import build
from lisa.model.config import LisaConfig
from lisa.model.convert import write_config
from lisa.model.lisa import LisaModel
from lisa.model.nano import NanoDecoder, VisionTower
from lisa.model.processor import LisaProcessor, add_seg_token
from lisa.model.weights import write_file
from lisa.predict import Segmenter

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


def lively_model(config: LisaConfig, seed: int = 5) -> LisaModel:
    """Random weights that are large enough for answers and masks to depend on what is asked."""
    torch.manual_seed(seed)
    model = LisaModel(config)
    with torch.no_grad():
        for name, parameter in model.vlm.language.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=1.0 if "embed_tokens" in name else 0.3)
        model.vlm.vocabulary[CONTROL_TOKENS.index("<|im_end|>")] *= 1.7  # not all answers are long
        model.vlm.seg_input.normal_()
        model.vlm.seg_output.normal_(std=2.0)  # some answers hold [SEG]
        projector, decoder = model.vlm.projector, model.decoder
        for values in (projector.kind_embedding, projector.score_embedding):
            values.normal_(std=0.3)
        projector.class_embeddings.normal_(std=3)
        projector.concept_embeddings.normal_(std=3)
        settle(decoder.tower, config.image_size)
        decoder.tower.classifier.weight *= 40
        for values in (*model.head.parameters(), *own_parameters(decoder)):
            if values.ndim > 1:
                values.normal_(std=0.3)
    return model.eval()


def own_parameters(decoder: NanoDecoder) -> list[torch.nn.Parameter]:
    """Of the mask decoder without tower and neck."""
    others = (decoder.tower, decoder.neck)
    shared = {id(parameter) for other in others for parameter in other.parameters()}
    return [parameter for parameter in decoder.parameters() if id(parameter) not in shared]


def settle(tower: VisionTower, side: int) -> None:
    """Let the batch norms learn what the random filters give out."""
    for module in tower.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.9
    tower.train()
    tower(torch.stack([noise(side, seed) for seed in range(4)]))


def noise(side: int, seed: int) -> Tensor:
    """The tensor [3, side, side] of a `picture`."""
    pixels = torch.from_numpy(np.array(picture(side, side, seed)))
    return pixels.permute(2, 0, 1) / 127.5 - 1


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


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete model directory; tests that change it copy it first."""
    out = tmp_path_factory.mktemp("tiny")
    tokenizer = chat_tokenizer()
    seg_token_id = tokenizer.token_to_id("[SEG]")
    config = LisaConfig.tiny(seg_token_id, seg_token_id, trained_on=["nothing"])
    save_directory(lively_model(config), tokenizer, out)
    return out


@pytest.fixture(scope="session")
def tiny(tiny_directory: Path) -> tuple[LisaModel, LisaProcessor]:
    """The model in `tiny_directory`, loaded as users load it; tests leave it as it is."""
    return build(tiny_directory, "cpu")


@pytest.fixture
def segmenter(tiny: tuple[LisaModel, LisaProcessor]) -> Segmenter:
    """The same, behind the interface that people use."""
    return Segmenter(*tiny, name="tiny")
