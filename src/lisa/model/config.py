"""``LisaConfig``: a vision-language part, a mask decoder, and the head between them.

Two kinds of model have this configuration: nano, whose parts are this project's own, and models of
full size, whose parts are two models of ``transformers``. Sizes live here and nowhere else; the
``[SEG]`` token is spelled in ``lisa.example``, and nowhere else. This file knows numbers and names,
and which of them go together; it builds nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig, LlamaConfig, PretrainedConfig

from lisa.errors import ModelError

IMAGE_STRIDE = 32  # pixels between two locations of the coarsest map

DECODER_SIZES: dict[str, int] = {
    "width": 192,
    "heads": 6,
    "layers": 2,
    "context_blocks": 4,
    "fused_blocks": 3,
}
PROJECTORS = ("own", "linear")
CONVERSATIONS = ("nano", "llava_v1", "llava_llama_2", "chat")
OFFICIAL = "official"
COMPATIBILITIES = ("", OFFICIAL)
VIDEO_DECODERS = {  # published as these, used as those
    "sam2_video": "sam2",
    "sam3_tracker_video": "sam3_tracker",
    "edgetam_video": "edgetam",
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
        decoder: sizes of ``NanoDecoder``; those not given are taken from ``DECODER_SIZES``.
        prompt_size: width of the prompt that the head hands to the mask decoder (256 in the paper;
            here twice that, for the decoder knows things in two ways).
        image_size: side in pixels of the square that pictures are stretched to, a multiple of 32.
        grid: the projector turns a picture into ``grid * grid`` visual tokens ...
        found_tokens: ... followed by so many for the names of what is found in it:
        found_concepts: at most so many of ``concepts`` ...
        found_classes: ... and so many ImageNet classes.
        concepts: the names that the eyes were trained to find.
        recall_names: the names that a question is compared with; none: it is only generated from.
        recall_layers: of the language model, from below, read a question for that.
        recall_texts: so many texts are remembered, each about one of these names.
        seg_token_id: id of ``[SEG]`` in the tokenizer that travels with the weights; the one after
            the language model's own.
        mask_threshold: probability above which a pixel belongs to the mask.
        score_scale: the logit of a mask's estimated IoU is multiplied by this, more than 0 ...
        score_bias: ... and this is added, so that scores mean what they say (training/calibrate).
        trained_on: what the weights have seen; written by training, printed by the model card.
        vlm: a model of full size has its language side here: the fields of a ``transformers``
            configuration, its ``model_type`` among them. The nano fields then have no meaning.
        mask_decoder: the same of a model of the SAM family; given if and only if ``vlm`` is.
        projector: "own", or "linear" for a single layer from vision tower to language model, as
            official LISA has it.
        conversation: how questions are written: "nano", the templates "llava_v1" and
            "llava_llama_2", or "chat", the tokenizer's own.
        compat: "official" reproduces defects of the official code; "" does not.

    Raises:
        ModelError: a field has the wrong type or a value that nothing can be built from.
    """

    model_type = "lisa"

    def __init__(
        self,
        language: dict[str, Any] | None = None,
        decoder: dict[str, int] | None = None,
        prompt_size: int = 512,
        image_size: int = 384,
        grid: int = 4,
        found_tokens: int = 32,
        found_concepts: int = 8,
        found_classes: int = 4,
        concepts: list[str] | None = None,
        recall_names: list[str] | None = None,
        recall_layers: int = 8,
        recall_texts: int = 0,
        seg_token_id: int = 49152,
        mask_threshold: float = 0.5,
        score_scale: float = 1.0,
        score_bias: float = 0.0,
        trained_on: list[str] | None = None,
        vlm: dict[str, Any] | None = None,
        mask_decoder: dict[str, Any] | None = None,
        projector: str = "own",
        conversation: str = "nano",
        compat: str = "",
        **kwargs: Any,
    ) -> None:
        check_type("language", language, dict | None)
        check_type("decoder", decoder, dict | None)
        self.language = language or {}
        self.decoder = DECODER_SIZES | (decoder or {})
        self.prompt_size = prompt_size
        self.image_size = image_size
        self.grid = grid
        self.found_tokens = found_tokens
        self.found_concepts = found_concepts
        self.found_classes = found_classes
        self.concepts = concepts or []
        self.recall_names = recall_names or []
        self.recall_layers = recall_layers
        self.recall_texts = recall_texts
        self.seg_token_id = seg_token_id
        self.mask_threshold = mask_threshold
        self.score_scale = score_scale
        self.score_bias = score_bias
        self.trained_on = trained_on or []
        self.vlm = vlm
        self.mask_decoder = mask_decoder
        self.projector = projector
        self.conversation = conversation
        self.compat = compat
        self._check()
        super().__init__(**kwargs)

    @property
    def full_size(self) -> bool:
        """Whether the parts are two models of ``transformers`` rather than nano's own."""
        return self.vlm is not None

    def vlm_config(self) -> PretrainedConfig:
        """The vision-language model of full size, as ``transformers`` wants it."""
        assert self.vlm is not None
        return as_config("vlm", self.vlm)

    def mask_decoder_config(self) -> PretrainedConfig:
        """The mask decoder of full size, as ``transformers`` wants it."""
        assert self.mask_decoder is not None
        return as_config("mask_decoder", self.mask_decoder)

    def language_config(self) -> PretrainedConfig:
        """The language model's part, as ``transformers`` wants it."""
        if self.full_size:
            return self.vlm_config().get_text_config()
        return LlamaConfig(**self.language)

    @property
    def tie_word_embeddings(self) -> bool:
        """Whether the language model's input table is its output table, too."""
        source = self.vlm_config() if self.full_size else self.language_config()
        return bool(source.tie_word_embeddings)

    @property
    def visual_tokens(self) -> int:
        """How many tokens a picture becomes in front of the language model."""
        return self.grid**2 + self.found_tokens

    @classmethod
    def tiny(cls, vocab_size: int, seg_token_id: int, **changes: Any) -> LisaConfig:
        """A model of the same make for tests: all small but the tower, which has one size only."""
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
            "found_tokens": 8,
            "found_concepts": 2,
            "found_classes": 1,
            "concepts": ["cat", "cup", "umbrella"],
            "recall_layers": 1,
            "seg_token_id": seg_token_id,
        }
        return cls(**(settings | changes))

    @classmethod
    def from_parts(
        cls,
        vlm: PretrainedConfig | Mapping[str, Any] | str | Path,
        decoder: PretrainedConfig | Mapping[str, Any] | str | Path,
        **changes: Any,
    ) -> LisaConfig:
        """A model of full size from a vision-language model and a mask decoder.

        ``[SEG]`` becomes the token after the vision-language model's own, unless ``seg_token_id``
        is among the changes.

        Args:
            vlm: a configuration of ``transformers``, its fields, a local directory with a
                ``config.json``, or the name of a model on the Hugging Face hub.
            decoder: the same of a model of the SAM family.
            changes: further fields.

        Raises:
            ModelError: one of the two cannot be read, or they do not go together.
        """
        language, masks = as_config("vlm", vlm), for_pictures(as_config("mask_decoder", decoder))
        text = language.get_text_config()
        if not hasattr(text, "vocab_size"):
            raise unfit("vlm.model_type", language.model_type, "a vision-language model")
        seg_token_id = changes.setdefault("seg_token_id", text.vocab_size)
        text.vocab_size = max(text.vocab_size, seg_token_id + 1)
        settings: dict[str, Any] = {
            "vlm": fields_of(language),
            "mask_decoder": fields_of(masks),
            "prompt_size": masks.mask_decoder_config.hidden_size,
            "image_size": picture_side(masks),
            "conversation": "chat",
        }
        return cls(**(settings | changes))

    def _check(self) -> None:
        halves, stride = (1, 1) if self.full_size else (2, IMAGE_STRIDE)
        check_count("prompt_size", self.prompt_size, halves, multiple_of=halves)
        check_count("image_size", self.image_size, stride, multiple_of=stride)
        self._check_parts()
        check_count("grid", self.grid, 1)
        check_count("found_tokens", self.found_tokens, 1)
        check_count("found_concepts", self.found_concepts, 0)
        check_count("found_classes", self.found_classes, 0)
        check_count("recall_layers", self.recall_layers, 1)
        check_count("recall_texts", self.recall_texts, 0)
        check_count("seg_token_id", self.seg_token_id, 0)
        check_decoder(self.decoder)
        check_type("mask_threshold", self.mask_threshold, int | float)
        if not 0 < self.mask_threshold < 1:
            raise unfit("mask_threshold", self.mask_threshold, "a number between 0 and 1")
        for name in ("score_scale", "score_bias"):
            check_type(name, getattr(self, name), int | float)
        if not 0 < self.score_scale < math.inf:
            raise unfit("score_scale", self.score_scale, "a number above 0")
        if not math.isfinite(self.score_bias):
            raise unfit("score_bias", self.score_bias, "a finite number")
        for name in ("concepts", "recall_names", "trained_on"):
            check_type(name, getattr(self, name), list)
            for text in getattr(self, name):
                check_type(f"each of {name}", text, str)

    def _check_parts(self) -> None:
        """The fields of models of full size."""
        check_type("vlm", self.vlm, dict | None)
        check_type("mask_decoder", self.mask_decoder, dict | None)
        if (self.vlm is None) != (self.mask_decoder is None):
            raise unfit("mask_decoder", self.mask_decoder, "it to be given if and only if vlm is")
        check_choice("projector", self.projector, PROJECTORS)
        check_choice("conversation", self.conversation, CONVERSATIONS)
        check_choice("compat", self.compat, COMPATIBILITIES)


def as_config(name: str, source: PretrainedConfig | Mapping[str, Any] | str | Path) -> Any:
    """A configuration of ``transformers`` from its fields, or from where ``config.json`` is.

    Raises:
        ModelError: ``transformers`` does not know it.
    """
    try:
        if isinstance(source, PretrainedConfig):
            return type(source).from_dict(source.to_dict())
        if isinstance(source, Mapping):
            fields = dict(source)
            return AutoConfig.for_model(fields.pop("model_type"), **fields)
        return AutoConfig.from_pretrained(str(source))
    except Exception as error:  # transformers raises many types, by field
        reason = " ".join(str(error).split())[:200]
        shown = str(source) if isinstance(source, str | Path) else "its fields"
        raise unfit(name, shown, f"a configuration of transformers ({reason})") from error


def for_pictures(decoder: PretrainedConfig) -> PretrainedConfig:
    """The part for single pictures of a model for videos; any other model as it is.

    Raises:
        ModelError: it is no model of the SAM family.
    """
    decoder = getattr(decoder, "tracker_config", decoder)  # SAM 3 is published with its detector
    parts = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
    if not all(hasattr(decoder, name) for name in parts):
        raise unfit("mask_decoder.model_type", decoder.model_type, "a model of the SAM family")
    if decoder.model_type not in VIDEO_DECODERS:
        return decoder
    fields = {name: fields_of(getattr(decoder, name)) for name in parts}
    return as_config("mask_decoder", {"model_type": VIDEO_DECODERS[decoder.model_type], **fields})


def fields_of(config: PretrainedConfig) -> dict[str, Any]:
    """A configuration as plain fields that ``as_config`` reads, without where it came from."""
    fields: dict[str, Any] = config.to_dict() | {"model_type": config.model_type}
    return {name: value for name, value in fields.items() if name != "_name_or_path"}


def picture_side(decoder: PretrainedConfig) -> int:
    """The side in pixels of the square that a model of the SAM family takes."""
    side = decoder.prompt_encoder_config.image_size
    return int(side if isinstance(side, int) else max(side))


def check_choice(name: str, value: object, known: tuple[str, ...]) -> None:
    """One of the known names."""
    if value not in known:
        raise unfit(name, value, ", ".join(repr(one) for one in known))


def check_decoder(sizes: Mapping[str, int]) -> None:
    """The decoder's sizes: known ones, and such that every attention head gets a whole width."""
    for name, size in sizes.items():
        if name not in DECODER_SIZES:
            raise unfit("decoder", name, f"only {', '.join(DECODER_SIZES)}")
        check_count(f"decoder.{name}", size, 1)
    check_count("decoder.width", sizes["width"], 4, multiple_of=4)  # quartered on the way to a mask
    if sizes["width"] // 2 % sizes["heads"]:
        raise unfit("decoder.heads", sizes["heads"], f"a divisor of {sizes['width'] // 2}")


def check_count(name: str, value: object, least: int, multiple_of: int = 1) -> None:
    """A whole number that is large enough."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or value < least
        or value % multiple_of
    ):
        multiple = f", a multiple of {multiple_of}" if multiple_of > 1 else ""
        raise unfit(name, value, f"a whole number of at least {least}{multiple}")


def check_type(name: str, value: object, kind: Any) -> None:
    """A value of the type that the field wants."""
    if not isinstance(value, kind):
        raise unfit(name, value, getattr(kind, "__name__", str(kind)))


def unfit(name: str, value: object, expected: str) -> ModelError:
    """The error for a field that nothing can be built from."""
    shown = repr(value)
    return ModelError(
        f"{name} is {shown if len(shown) <= 60 else shown[:57] + '...'}; expected {expected}"
    )
