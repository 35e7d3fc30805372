"""``LisaConfig``: a vision-language part, a mask decoder, and the head between them.

Sizes live here and nowhere else, and the ``[SEG]`` token is spelled here and nowhere else. This file
knows numbers and names; it builds nothing.
"""

from __future__ import annotations

from typing import Any

from transformers import LlamaConfig, PretrainedConfig

SEG_TOKEN = "[SEG]"
TEACHER_FORCED_ANSWER = f"{SEG_TOKEN}."  # the answer that the paper's evaluation supplies

DECODER_SIZES: dict[str, int] = {
    "width": 192,
    "heads": 6,
    "layers": 2,
    "context_blocks": 4,
    "fused_blocks": 3,
}
TINY_DECODER_SIZES: dict[str, int] = {
    "width": 32,
    "heads": 2,
    "layers": 1,
    "context_blocks": 1,
    "fused_blocks": 1,
}


class LisaConfig(PretrainedConfig):
    """Everything needed to build a ``LisaModel`` with random weights.

    Args:
        language: fields of a ``transformers.LlamaConfig``.
        decoder: sizes of ``NanoDecoder`` (``DECODER_SIZES`` when not given).
        prompt_size: width of the prompt that the head hands to the mask decoder (256 in the paper).
        image_size: side in pixels of the square that pictures are stretched to, a multiple of 32.
        grid: the projector turns a picture into ``grid * grid`` visual tokens ...
        found_concepts: ... followed by the names of this many concepts found in it ...
        found_classes: ... and of this many ImageNet classes.
        concepts: the names that the eyes were trained to find.
        seg_token_id: id of ``[SEG]`` in the tokenizer that travels with the weights.
        mask_threshold: probability above which a pixel belongs to the mask.
        trained_on: what the weights have seen; written by training, printed by the model card.
    """

    model_type = "lisa"

    def __init__(
        self,
        language: dict[str, Any] | None = None,
        decoder: dict[str, int] | None = None,
        prompt_size: int = 256,
        image_size: int = 384,
        grid: int = 6,
        found_concepts: int = 8,
        found_classes: int = 4,
        concepts: list[str] | None = None,
        seg_token_id: int = 49152,
        mask_threshold: float = 0.5,
        trained_on: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.language = language or {}
        self.decoder = decoder or dict(DECODER_SIZES)
        self.prompt_size = prompt_size
        self.image_size = image_size
        self.grid = grid
        self.found_concepts = found_concepts
        self.found_classes = found_classes
        self.concepts = concepts or []
        self.seg_token_id = seg_token_id
        self.mask_threshold = mask_threshold
        self.trained_on = trained_on or []
        super().__init__(**kwargs)

    def language_config(self) -> LlamaConfig:
        """The language model's part, as ``transformers`` wants it."""
        return LlamaConfig(**self.language)

    @property
    def visual_tokens(self) -> int:
        """How many tokens a picture becomes in front of the language model."""
        return self.grid**2 + self.found_concepts + self.found_classes

    @classmethod
    def tiny(cls, vocab_size: int, seg_token_id: int, **changes: Any) -> LisaConfig:
        """A two-layer model of the same make for tests: random weights, about 4 M numbers."""
        language = {
            "vocab_size": vocab_size,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "tie_word_embeddings": True,
        }
        settings: dict[str, Any] = {
            "language": language,
            "decoder": dict(TINY_DECODER_SIZES),
            "prompt_size": 32,
            "image_size": 64,
            "grid": 2,
            "found_concepts": 2,
            "found_classes": 1,
            "concepts": ["cat", "cup", "umbrella"],
            "seg_token_id": seg_token_id,
        }
        return cls(**(settings | changes))
