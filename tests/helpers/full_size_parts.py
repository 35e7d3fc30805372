"""The parts of the full-size model in small, under the names that they have in a LISA model."""

import torch
from torch import nn
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedModel,
    SamConfig,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
    SamVisionConfig,
)

LAYERS, WIDTH = 2, 64  # bitsandbytes packs rows of 64 on CPUs


class FullSizeConfig(PreTrainedConfig):
    """Has nothing to say: the sizes stand below."""

    model_type = "full-size-parts"


class FullSize(PreTrainedModel):
    """LLaVA, SAM and the head."""

    config_class = FullSizeConfig

    def __init__(self, config: FullSizeConfig | None = None) -> None:
        super().__init__(config or FullSizeConfig())
        clip = CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
        )
        llama = LlamaConfig(
            vocab_size=40,
            hidden_size=WIDTH,
            intermediate_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=2,
        )
        llava = LlavaConfig(vision_config=clip, text_config=llama, image_token_index=39)
        self.vlm = LlavaForConditionalGeneration(llava)
        vision = SamVisionConfig(
            hidden_size=WIDTH,
            output_channels=WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=32,
            global_attn_indexes=[0],
        )
        prompt = SamPromptEncoderConfig(hidden_size=WIDTH, image_size=32)
        decoder = SamMaskDecoderConfig(hidden_size=WIDTH, mlp_dim=WIDTH, num_attention_heads=2)
        self.decoder = SamModel(
            SamConfig(
                vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder
            )
        )
        self.head = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
        self.post_init()

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.vlm(input_ids=ids).logits
