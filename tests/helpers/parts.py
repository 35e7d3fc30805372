"""Tiny models of every family that a full-size LISA can be made of, and a tokenizer for them."""

import copy
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.modeling_outputs import BaseModelOutput

from lisa.model.config import LisaConfig
from lisa.model.processor import FullSizeProcessor, usual_image_processor
from lisa.model.text_processor import ChatText, add_seg_token

WIDTH, SIDE = 32, 64
CONTROL = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "<img>", "</img>", "<video>"]
CONTROL += ["<|vision_start|>", "<|vision_end|>", "<fake_token_around_image>", "<global-img>"]
WORDS = ["USER", "ASSISTANT", "user", "assistant", ":", ".", ",", "?", "What", "is", "the", "a"]
WORDS += ["cat", "left", "right", "It"]
TEMPLATE = (
    "<s> user : {% for part in messages[0].content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %} assistant :"
)

TEXT = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": WIDTH // 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "max_position_embeddings": 512,
}
EYES = {
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
CLIP = EYES | {"model_type": "clip_vision_model"}
QWEN_EYES = {
    "depth": 2,
    "hidden_size": WIDTH,
    "out_hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_heads": 2,
    "patch_size": 8,
    "spatial_merge_size": 2,
}
IMAGE_ID = CONTROL.index("<image>")
IDS = {
    "image_token_id": IMAGE_ID,
    "video_token_id": CONTROL.index("<video>"),
    "vision_start_token_id": CONTROL.index("<|vision_start|>"),
    "vision_end_token_id": CONTROL.index("<|vision_end|>"),
}


def qwen_text(kind: str, **others: Any) -> dict[str, Any]:
    """A language model that counts places in three dimensions."""
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3], **others}
    return TEXT | {"model_type": kind, "rope_parameters": rope}


VLMS: dict[str, dict[str, Any]] = {
    "llava": {"text_config": TEXT, "vision_config": CLIP, "image_token_index": IMAGE_ID},
    "llava_next": {
        "text_config": TEXT,
        "vision_config": CLIP,
        "image_token_index": IMAGE_ID,
        "image_grid_pinpoints": [[32, 64], [64, 32], [64, 64]],
    },
    "qwen2_5_vl": {
        "text_config": qwen_text("qwen2_5_vl_text"),
        "vision_config": QWEN_EYES | {"window_size": 32, "fullatt_block_indexes": [1]},
        **IDS,
    },
    "qwen3_vl": {
        "text_config": qwen_text("qwen3_vl_text", mrope_interleaved=True),
        "vision_config": QWEN_EYES
        | {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]},
        "tie_word_embeddings": True,
        **IDS,
    },
    "smolvlm": {
        "text_config": TEXT,
        "vision_config": EYES,
        "scale_factor": 2,
        "image_token_id": IMAGE_ID,
        "tie_word_embeddings": True,
    },
    "internvl": {
        "text_config": TEXT | {"model_type": "qwen2"},
        "vision_config": EYES | {"image_size": [32, 32], "patch_size": [8, 8]},
        "image_token_id": IMAGE_ID,
        "image_seq_length": 4,
        "downsample_ratio": 0.5,
    },
}

SAM_EYES = {
    "hidden_size": WIDTH,
    "output_channels": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 16,
    "global_attn_indexes": [1],
    "window_size": 2,
    "mlp_dim": 64,
    "num_pos_feats": WIDTH // 2,
}
HIERA = {
    "model_type": "sam2_hiera_det_model",
    "hidden_size": 16,
    "num_attention_heads": 1,
    "image_size": [SIDE, SIDE],
    "blocks_per_stage": [1, 1, 2, 1],
    "embed_dim_per_stage": [16, 32, 64, 128],
    "num_attention_heads_per_stage": [1, 1, 2, 2],
    "window_size_per_stage": [4, 4, 4, 2],
    "global_attention_blocks": [3],
    "window_positional_embedding_background_size": [4, 4],
}
SAM3_EYES = {
    "model_type": "sam3_vit_model",
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "pretrain_image_size": 56,
    "patch_size": 14,
    "window_size": 2,
    "global_attn_indexes": [1],
}
PYRAMID = {"fpn_hidden_size": WIDTH, "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]}
DECODERS: dict[str, dict[str, Any]] = {
    "sam": {"vision_config": SAM_EYES},
    "sam_hq": {"vision_config": SAM_EYES},
    "sam2": {
        "vision_config": PYRAMID
        | {"backbone_config": HIERA, "backbone_channel_list": [128, 64, 32, 16]}
    },
    "sam3_tracker": {
        "vision_config": PYRAMID | {"model_type": "sam3_vision_model", "backbone_config": SAM3_EYES}
    },
    "edgetam": {
        "vision_config": PYRAMID
        | {"backbone_config": {"model_type": "stages"}, "backbone_channel_list": [64, 32, 16, 8]}
    },
}


class StagesConfig(PretrainedConfig):
    """Of the stand-in for EdgeTAM's published backbone, which needs a package of its own."""

    model_type = "stages"


class Stages(PreTrainedModel):
    """Four maps, each at half the side of the one before."""

    config_class = StagesConfig

    def __init__(self, config: StagesConfig) -> None:
        super().__init__(config)
        channels, strides = pairwise([3, 8, 16, 32, 64]), (4, 2, 2, 2)
        self.stages = nn.ModuleList(
            nn.Conv2d(inputs, outputs, stride, stride)
            for (inputs, outputs), stride in zip(channels, strides, strict=True)
        )
        self.post_init()

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutput:
        maps = [pixel_values]
        for stage in self.stages:
            maps.append(stage(maps[-1]).relu())
        return BaseModelOutput(last_hidden_state=maps[1:])


AutoConfig.register("stages", StagesConfig, exist_ok=True)
AutoModel.register(StagesConfig, Stages, exist_ok=True)


def vlm_fields(family: str) -> dict[str, Any]:
    return {"model_type": family, **copy.deepcopy(VLMS[family])}


def decoder_fields(family: str) -> dict[str, Any]:
    side = 56 if family == "sam3_tracker" else SIDE
    prompt = {"hidden_size": WIDTH, "image_size": side, "patch_size": side // 4}
    masks = {
        "hidden_size": WIDTH,
        "mlp_dim": 64,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": WIDTH,
    }
    masks |= {"vit_dim": WIDTH} if family == "sam_hq" else {}
    prompt |= {"image_embedding_size": 4} if family.startswith("sam") and family < "sam2" else {}
    parts = {"prompt_encoder_config": prompt, "mask_decoder_config": masks}
    return {"model_type": family, **copy.deepcopy(DECODERS[family]), **parts}


def tokenizer(chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """Whole words."""
    vocabulary = {word: number for number, word in enumerate([*CONTROL, *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        additional_special_tokens=CONTROL[4:],
        clean_up_tokenization_spaces=False,
    )
    made.chat_template = chat_template
    return made


def tiny_processor(
    vlm: str, decoder: str, chat_template: str | None = None, **changes: Any
) -> FullSizeProcessor:
    """The processor of a pair; its ``config`` builds the model."""
    words = tokenizer(chat_template)
    config = LisaConfig.from_parts(
        vlm_fields(vlm), decoder_fields(decoder), seg_token_id=add_seg_token(words), **changes
    )
    return FullSizeProcessor(ChatText(words, config), usual_image_processor(config), config)
