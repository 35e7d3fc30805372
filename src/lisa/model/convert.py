"""Checkpoints of other projects -> ours: the two pretrained parts that ``lisa-nano`` starts from.

``starting_weights`` reads SmolLM2-135M-Instruct as GGUF (Q4_1 and Q8_0 blocks are kept byte for
byte) and EfficientNet-Lite0 as a PyTorch state dict, and writes a model directory whose other
parts are new. This file knows other people's key names; it is not needed to run a model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lisa.errors import ModelError
from lisa.model.config import LisaConfig
from lisa.model.lisa import LisaModel
from lisa.model.nano import STAGES
from lisa.model.processor import LisaProcessor, add_seg_token
from lisa.model.weights import assemble, write_file

GGUF_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
BLOCK_BYTES = {"Q4_1": ("q4_1", 20), "Q8_0": ("q8_0", 34)}


def llama_key(gguf_name: str) -> str:
    """``blk.3.attn_q.weight`` -> ``model.layers.3.self_attn.q_proj.weight``."""
    layer = re.match(r"blk\.(\d+)\.(\w+)\.weight", gguf_name)
    if layer:
        return f"model.layers.{layer[1]}.{GGUF_NAMES[layer[2]]}.weight"
    return f"{GGUF_NAMES[gguf_name.removesuffix('.weight')]}.weight"


def unpermute(rows: Tensor, heads: int) -> Tensor:
    """Undo llama.cpp's row order of the query and key matrices (rotary pairs side by side)."""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def read_gguf(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Stored tensors under our spellings, and the fields of a ``LlamaConfig``."""
    from gguf import GGUFReader  # extra "starting-weights": nobody needs it to run a model

    reader = GGUFReader(str(path))

    def field(name: str) -> Any:
        return reader.get_field(f"llama.{name}").contents()  # type: ignore[union-attr]

    config = {
        "vocab_size": int(reader.tensors[0].shape[1]),
        "hidden_size": field("embedding_length"),
        "intermediate_size": field("feed_forward_length"),
        "num_hidden_layers": field("block_count"),
        "num_attention_heads": field("attention.head_count"),
        "num_key_value_heads": field("attention.head_count_kv"),
        "rms_norm_eps": round(field("attention.layer_norm_rms_epsilon"), 9),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(field("rope.freq_base"))},
        "max_position_embeddings": field("context_length"),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "tie_word_embeddings": True,
    }
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    stored = {}
    for tensor in reader.tensors:
        key, data = llama_key(tensor.name), torch.from_numpy(np.array(tensor.data))
        if tensor.tensor_type.name in BLOCK_BYTES:
            spelling, size = BLOCK_BYTES[tensor.tensor_type.name]
            key, data = f"{key}.{spelling}", data.unflatten(1, (-1, size))
        kind = tensor.name.split(".")[-2]
        stored[key] = unpermute(data, heads[kind]) if kind in heads else data
    return stored, config


def tower_key(key: str) -> str:
    """``_blocks.1._expand_conv.weight`` -> ``stages.1.0.layers.0.0.weight`` (a ``VisionTower`` key)."""
    first, _, rest = key.partition(".")
    direct = {
        "_conv_stem": "stem.0",
        "_bn0": "stem.1",
        "_conv_head": "head.0",
        "_bn1": "head.1",
        "_fc": "classifier",
    }
    if first in direct:
        return f"{direct[first]}.{rest}"
    number, part, leaf = rest.split(".")
    places = [(stage, block, row[0]) for stage, row in enumerate(STAGES) for block in range(row[2])]
    stage, block, expansion = places[int(number)]
    order = ["_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
    layer = order.index(part) // 2 - (expansion == 1)
    return f"stages.{stage}.{block}.layers.{layer}.{order.index(part) % 2}.{leaf}"


def read_tower(path: Path) -> dict[str, Tensor]:
    """EfficientNet-Lite0 state dict -> ``VisionTower`` state dict."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(f"cannot read '{path}': {error}; expected a PyTorch state dict") from error
    return {tower_key(key): value for key, value in state.items()}


def mean_name_embeddings(names: Sequence[str], processor: LisaProcessor, table: Tensor) -> Tensor:
    """Mean input embedding [len(names), H] of each name's tokens."""
    return torch.stack([table[processor.phrase_ids(name)].mean(0) for name in names])


def starting_weights(
    gguf: Path, tower: Path, imagenet_names: Sequence[str], concepts: Sequence[str], out: Path
) -> None:
    """Write a model directory with pretrained language model and tower, and everything else new."""
    language, language_config = read_gguf(gguf)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = gguf_tokenizer(gguf)
    seg_token_id = add_seg_token(tokenizer)
    tokenizer.save(str(out / "tokenizer.json"))
    config = LisaConfig(
        language=language_config, seg_token_id=seg_token_id, concepts=list(concepts)
    )
    processor = LisaProcessor(tokenizer, config)
    torch.manual_seed(0)
    model = LisaModel(config)
    model.decoder.tower.load_state_dict(read_tower(tower))
    table = assemble({k: v for k, v in language.items() if "embed_tokens" in k})[
        "model.embed_tokens.weight"
    ]
    projector = model.vlm.projector
    projector.class_embeddings.copy_(mean_name_embeddings(imagenet_names, processor, table))
    projector.concept_embeddings.copy_(mean_name_embeddings(concepts, processor, table))
    write_language(language, out)
    write_rest(model, out)
    write_config(config, out)


def gguf_tokenizer(gguf: Path) -> Any:
    """The tokenizer inside a GGUF file."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name).backend_tokenizer


def write_language(language: dict[str, Tensor], out: Path) -> None:
    """The language model in three files under 50 MB: embeddings, first half, second half."""
    layers = max(int(k.split(".")[2]) for k in language if ".layers." in k) + 1

    def part(key: str) -> str:
        if ".layers." not in key:
            return "language-embeddings"
        return "language-layers-1" if int(key.split(".")[2]) < layers // 2 else "language-layers-2"

    for name in ("language-embeddings", "language-layers-1", "language-layers-2"):
        tensors = {f"vlm.language.{k}": v for k, v in language.items() if part(k) == name}
        write_file(tensors, out / f"{name}.safetensors")


def write_rest(model: LisaModel, out: Path) -> None:
    """Everything but the language model, in float16 (counters keep their type)."""
    rest = {k: v for k, v in model.state_dict().items() if not k.startswith("vlm.language.")}
    halved = {k: v.half() if v.is_floating_point() else v for k, v in rest.items()}
    write_file(halved, out / "lisa.safetensors")


def write_config(config: LisaConfig, out: Path) -> None:
    """``config.json``, sorted and readable."""
    text = json.dumps(json.loads(config.to_json_string(use_diff=False)), indent=1, sort_keys=True)
    (out / "config.json").write_text(text + "\n", encoding="utf-8")
