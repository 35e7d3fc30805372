"""Checkpoints of other projects -> ours: the two pretrained parts that ``lisa-nano`` starts from.

``starting_weights`` reads SmolLM2-135M-Instruct as GGUF (Q4_1 and Q8_0 blocks are kept byte for
byte) and EfficientNet-Lite0 as a PyTorch state dict, and writes a model directory whose other
parts are new. This file knows other people's key names; it is not needed to run a model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from lisa.checkpoints.checkpoint import check_complete, write_file
from lisa.checkpoints.packed import BLOCK_BYTES
from lisa.errors import ModelError
from lisa.files import write_atomically
from lisa.model.config import LisaConfig
from lisa.nano.model.lisa import NanoModel
from lisa.nano.model.processor import LisaProcessor, add_seg_token
from lisa.nano.model.tower import STAGES, VisionTower

if TYPE_CHECKING:
    from gguf import GGUFReader, ReaderTensor
from lisa.checkpoints.directory import write_config
from lisa.nano.model.directory import write_names

GGUF_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
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
LANGUAGE_FILES = ("language-embeddings", "language-layers-1", "language-layers-2")
TOWER_ENDS = {
    "_conv_stem": "stem.0",
    "_bn0": "stem.1",
    "_conv_head": "head.0",
    "_bn1": "head.1",
    "_fc": "classifier",
}
TOWER_PARTS = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2")


# ------------------------------------------------------------------ the language model


def llama_key(gguf_name: str) -> str:
    """``blk.3.attn_q.weight`` -> ``model.layers.3.self_attn.q_proj.weight``.

    Raises:
        ModelError: the tensor is not one of a Llama's.
    """
    layer = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", gguf_name)
    name = layer[2] if layer else gguf_name.removesuffix(".weight")
    if name not in GGUF_NAMES:
        raise ModelError(f"'{gguf_name}' is no tensor of a Llama; expected {', '.join(GGUF_NAMES)}")
    return f"{f'model.layers.{layer[1]}.' if layer else ''}{GGUF_NAMES[name]}.weight"


def unpermute(rows: Tensor, heads: int) -> Tensor:
    """Undo llama.cpp's row order of the query and key matrices (rotary pairs side by side)."""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def read_gguf(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Stored tensors under our spellings, and the fields of a ``LlamaConfig``.

    Raises:
        ModelError: the file is damaged, no Llama, or packed in a way that we do not read.
    """
    reader = open_gguf(path)
    config = language_fields(reader, path)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    stored = {}
    for tensor in reader.tensors:
        key, data = spell(tensor, path)
        kind = tensor.name.split(".")[-2]
        stored[key] = unpermute(data, heads[kind]) if kind in heads else data
    return stored, config


def open_gguf(path: Path) -> GGUFReader:
    """The file behind the reader of the ``gguf`` package, which nobody needs to run a model."""
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise ModelError(
            f"cannot read '{path}' without gguf; expected lisa-seg[starting-weights] installed"
        ) from error
    try:
        return GGUFReader(str(path))
    except Exception as error:  # the reader parses as it goes: what it raises depends on the damage
        reason = " ".join(str(error).split())
        raise ModelError(f"cannot read '{path}': {reason}; expected a GGUF file") from error


def language_fields(reader: GGUFReader, path: Path) -> dict[str, Any]:
    """The fields of a ``LlamaConfig`` as the file gives them; the token ids are SmolLM2's."""

    def field(name: str) -> Any:
        found = reader.get_field(f"llama.{name}")
        if found is None:
            raise ModelError(f"'{path}' has no field 'llama.{name}'; expected a Llama's")
        return found.contents()

    shapes = {tensor.name: tensor.shape for tensor in reader.tensors}
    if "token_embd.weight" not in shapes:
        raise ModelError(f"'{path}' has no tensor 'token_embd.weight'; expected a Llama's")
    return {
        "vocab_size": int(shapes["token_embd.weight"][1]),  # GGUF gives columns before rows
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
        "tie_word_embeddings": "output.weight" not in shapes,
    }


def spell(tensor: ReaderTensor, path: Path) -> tuple[str, Tensor]:
    """A tensor of the file under our key, its bytes as they are."""
    key, data = llama_key(tensor.name), torch.from_numpy(np.array(tensor.data))
    kind = tensor.tensor_type.name.lower()
    if kind in BLOCK_BYTES:
        return f"{key}.{kind}", data.unflatten(1, (-1, BLOCK_BYTES[kind]))
    if not data.is_floating_point():
        raise ModelError(
            f"'{tensor.name}' in '{path}' is packed as {kind}; "
            f"expected f32, f16, {' or '.join(BLOCK_BYTES)}"
        )
    return key, data


def gguf_tokenizer(gguf: Path) -> Tokenizer:
    """The tokenizer inside a GGUF file."""
    from transformers import AutoTokenizer  # slow to import, and only needed here

    return AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name).backend_tokenizer


# -------------------------------------------------------------------- the vision tower


def tower_key(key: str) -> str:
    """``_blocks.1._expand_conv.weight`` -> ``stages.1.0.layers.0.0.weight`` of ``VisionTower``.

    Raises:
        ModelError: the key is not one of an EfficientNet-Lite0's.
    """
    first, _, rest = key.partition(".")
    if first in TOWER_ENDS:
        return f"{TOWER_ENDS[first]}.{rest}"
    places = [
        (stage, block, expansion)
        for stage, (expansion, _, repeats, _, _) in enumerate(STAGES)
        for block in range(repeats)
    ]
    try:
        number, part, leaf = rest.split(".")
        stage, block, expansion = places[int(number)]
        layer, norm = divmod(TOWER_PARTS.index(part), 2)
    except (ValueError, IndexError) as error:
        raise ModelError(f"'{key}' is no tensor of an EfficientNet-Lite0") from error
    return f"stages.{stage}.{block}.layers.{layer - (expansion == 1)}.{norm}.{leaf}"


def read_tower(path: Path) -> dict[str, Tensor]:
    """EfficientNet-Lite0 state dict -> ``VisionTower`` state dict.

    Raises:
        ModelError: the file is damaged, or not the weights of an EfficientNet-Lite0.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises many types
        reason = (" ".join(str(error).split()) or type(error).__name__)[:200]
        raise ModelError(
            f"cannot read '{path}': {reason}; expected a PyTorch state dict"
        ) from error
    if not isinstance(state, dict):
        raise ModelError(f"'{path}' holds a {type(state).__name__}; expected a state dict")
    renamed = {tower_key(str(key)): value for key, value in state.items()}
    with torch.device("meta"):
        expected = VisionTower().state_dict()
    check_complete(renamed, expected, path)
    return renamed


# ------------------------------------------------------------------- the model directory


def starting_weights(
    gguf: Path, tower: Path, imagenet_names: Sequence[str], concepts: Sequence[str], out: Path
) -> None:
    """Write a model directory with pretrained language model and tower, and everything else new.

    Args:
        gguf: the language model.
        tower: state dict of EfficientNet-Lite0.
        imagenet_names: a name for each of the classifier's 1000 classes, in its order.
        concepts: what the eyes will be trained to find.
        out: the directory; made if it is missing.

    Raises:
        ModelError: a checkpoint cannot be used. OutputError: ``out`` cannot be written.
    """
    language, fields = read_gguf(gguf)
    tokenizer = gguf_tokenizer(gguf)
    seg_token_id = add_seg_token(tokenizer)
    config = LisaConfig(language=fields, seg_token_id=seg_token_id, concepts=list(concepts))
    model = new_model(config, read_tower(tower))
    write_names(model, LisaProcessor(tokenizer, config), imagenet_names)
    write_language(language, out)
    write_rest(model, out)
    write_config(config, out)
    write_atomically(out / "tokenizer.json", tokenizer.to_str(pretty=True).encode())


def new_model(config: LisaConfig, tower: dict[str, Tensor]) -> NanoModel:
    """A model with a pretrained tower and the same random weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = NanoModel(config)
    model.decoder.tower.load_state_dict(tower)
    return model


def write_language(language: dict[str, Tensor], out: Path) -> None:
    """The language model in three files under 50 MB: embeddings, first half, second half."""
    layers = max(int(key.split(".")[2]) for key in language if ".layers." in key) + 1

    def part(key: str) -> int:
        if ".layers." not in key:
            return 0
        return 1 if int(key.split(".")[2]) < layers // 2 else 2

    for number, name in enumerate(LANGUAGE_FILES):
        tensors = {f"vlm.language.{k}": v for k, v in language.items() if part(k) == number}
        write_file(tensors, out / f"{name}.safetensors")


def write_rest(model: NanoModel, out: Path) -> None:
    """The tower, and everything new beside it, in float16 (counters keep their type)."""
    rest = {
        key: value.half() if value.is_floating_point() else value
        for key, value in model.state_dict().items()
        if not key.startswith("vlm.language.")
    }
    tower = {key: value for key, value in rest.items() if key.startswith("decoder.tower.")}
    write_file(tower, out / "tower.safetensors")
    new = {key: value for key, value in rest.items() if key not in tower}
    write_file(new, out / "lisa.safetensors")
