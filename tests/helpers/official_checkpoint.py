"""Tiny checkpoints with random weights, in the layouts that other projects publish."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    SamConfig,
    SamModel,
)

from helpers.llama_tokenizer import llama_tokenizer
from lisa.checkpoints.official_names import LLAVA_NAMES, SAM_NAMES, renamed

WIDTH, VISION_WIDTH, PROMPT = 16, 8, 256
CLIP = {
    "hidden_size": VISION_WIDTH,
    "intermediate_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "model_type": "clip_vision_model",
}
TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
}
SAM = {
    "vision_config": {
        "hidden_size": 16,
        "output_channels": PROMPT,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 16,
        "window_size": 2,
        "global_attn_indexes": [1],
        "mlp_dim": 32,
    },
    "prompt_encoder_config": {"hidden_size": PROMPT, "image_size": 64},
    "mask_decoder_config": {"hidden_size": PROMPT, "mlp_dim": 32, "iou_head_hidden_dim": 32},
}


def sam_state(seed: int = 0) -> dict[str, Tensor]:
    """A segment-anything state dict."""
    torch.manual_seed(seed)
    state = SamModel(SamConfig(**SAM)).state_dict()
    del state["prompt_encoder.shared_embedding.positional_embedding"]
    return {official(key, SAM_NAMES): value for key, value in state.items()}


def llava_state(rows: int, seed: int = 0, *, layers: int = 1) -> dict[str, Tensor]:
    """A LLaVA state dict without its tower; its projector has one layer or two."""
    torch.manual_seed(seed)
    config = LlavaConfig(vision_config=CLIP, text_config=TEXT | {"vocab_size": rows})
    state = LlavaForConditionalGeneration(config).state_dict()
    state = {key: value for key, value in state.items() if "vision_tower" not in key}
    named = {official(key, LLAVA_NAMES): value for key, value in state.items()}
    if layers == 1:
        named = {key: value for key, value in named.items() if "mm_projector" not in key}
        named["model.mm_projector.weight"] = torch.randn(WIDTH, VISION_WIDTH)
        named["model.mm_projector.bias"] = torch.randn(WIDTH)
    named["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    return named


def lisa_state(rows: int, seed: int = 0) -> dict[str, Tensor]:
    """The state dict of an official LISA."""
    state = llava_state(rows, seed)
    state |= {f"model.visual_model.{key}": value for key, value in sam_state(seed).items()}
    for place, size in (("0", WIDTH), ("2", PROMPT)):
        state[f"model.text_hidden_fcs.0.{place}.weight"] = torch.randn(size, WIDTH)
        state[f"model.text_hidden_fcs.0.{place}.bias"] = torch.randn(size)
    return state


def official(key: str, names: tuple[tuple[str, str], ...]) -> str:
    """Our spelling -> theirs."""
    name = renamed(key, names, back=True)
    assert name is not None, key
    return name


def with_lora(state: dict[str, Tensor], rank: int = 2) -> dict[str, Tensor]:
    """``state`` as the official training leaves it, before low-rank factors are merged."""
    torch.manual_seed(1)
    wrapped = {f"base_model.model.{key}": value for key, value in state.items()}
    for key, value in state.items():
        if key.startswith("model.layers") and key.endswith(("q_proj.weight", "v_proj.weight")):
            stem = f"base_model.model.{key.removesuffix('.weight')}"
            wrapped[f"{stem}.lora_A.default.weight"] = torch.randn(rank, value.shape[1])
            wrapped[f"{stem}.lora_B.default.weight"] = torch.randn(value.shape[0], rank)
    return wrapped


def write_shards(directory: Path, state: dict[str, Tensor], count: int = 3) -> None:
    """``pytorch_model-….bin`` and their index."""
    table, keys = {}, list(state)
    for number in range(count):
        name = f"pytorch_model-{number + 1:05d}-of-{count:05d}.bin"
        part = keys[number::count]
        torch.save({key: state[key].clone() for key in part}, directory / name)
        table |= dict.fromkeys(part, name)
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": table}))


def write_tower(directory: Path) -> Path:
    """A CLIP tower under the names that CLIP's own checkpoint uses."""
    torch.manual_seed(2)
    state = CLIPVisionModel(CLIPVisionConfig(**CLIP)).state_dict()
    directory.mkdir()
    named = {f"vision_model.{key}": value for key, value in state.items()}
    named["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    torch.save(named | {"logit_scale": torch.tensor(1.0)}, directory / "pytorch_model.bin")
    (directory / "config.json").write_text(json.dumps(CLIP))
    return directory


def write_language_files(directory: Path, *added: str) -> int:
    """Configuration and tokenizer of a LLaVA; how many tokens it has."""
    tokenizer = llama_tokenizer(*added) if added else llama_tokenizer()
    if added == ("",):
        tokenizer.added.clear()
    tokenizer.save(directory)
    fields = TEXT | {"model_type": "llava", "mm_vision_tower": "tower", "mm_hidden_size": 8}
    (directory / "config.json").write_text(json.dumps(fields))
    return len(tokenizer)


def write_lisa(directory: Path) -> dict[str, Tensor]:
    """An official LISA directory, its tower beside it; its state dict."""
    directory.mkdir()
    state = lisa_state(write_language_files(directory))
    write_shards(directory, state)
    write_tower(directory.parent / "tower")
    return state


def write_llava(directory: Path, *, layers: int = 1) -> dict[str, Tensor]:
    """A LLaVA base directory, without ``[SEG]``, its tower beside it; its state dict."""
    directory.mkdir()
    state = llava_state(write_language_files(directory, ""), layers=layers)
    write_shards(directory, state)
    write_tower(directory.parent / "tower")
    return state
