"""LisaConfig: written and read back the same, and bad fields are named."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.parts import DECODERS, VLMS, decoder_fields, vlm_fields
from lisa.errors import ModelError
from lisa.example import SEG_TOKEN, TEACHER_FORCED_ANSWER
from lisa.model.config import DECODER_SIZES, LisaConfig

FIELDS = (
    "language",
    "decoder",
    "prompt_size",
    "image_size",
    "grid",
    "found_tokens",
    "found_concepts",
    "found_classes",
    "concepts",
    "seg_token_id",
    "mask_threshold",
    "score_scale",
    "score_bias",
    "trained_on",
)


def fields_of(config: LisaConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in FIELDS}


def test_the_answer_of_the_paper_is_spelled_with_the_token() -> None:
    assert (SEG_TOKEN, TEACHER_FORCED_ANSWER) == ("[SEG]", "[SEG].")


def test_defaults_build_without_arguments() -> None:
    config = LisaConfig()
    assert config.decoder == DECODER_SIZES
    assert (config.image_size, config.prompt_size, config.mask_threshold) == (384, 512, 0.5)
    assert (config.concepts, config.trained_on) == ([], [])


@settings(deadline=None)
@given(
    image_size=st.integers(1, 40).map(lambda n: 32 * n),
    grid=st.integers(1, 12),
    found_tokens=st.integers(1, 64),
    concepts=st.lists(st.text(max_size=8), max_size=5),
    threshold=st.floats(0.01, 0.99),
    trained_on=st.lists(st.text(max_size=8), max_size=3),
)
def test_json_there_and_back(
    image_size: int,
    grid: int,
    found_tokens: int,
    concepts: list[str],
    threshold: float,
    trained_on: list[str],
) -> None:
    config = LisaConfig.tiny(
        50,
        50,
        image_size=image_size,
        grid=grid,
        found_tokens=found_tokens,
        concepts=concepts,
        mask_threshold=threshold,
        trained_on=trained_on,
    )
    text = config.to_json_string(use_diff=False)
    assert fields_of(LisaConfig(**json.loads(text))) == fields_of(config)


def test_saved_as_transformers_does_and_read_back(tmp_path: Path) -> None:
    config = LisaConfig.tiny(50, 50, trained_on=["photos", "questions"])
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "lisa"
    assert fields_of(LisaConfig.from_pretrained(tmp_path)) == fields_of(config)


def test_decoder_sizes_not_given_are_the_usual_ones() -> None:
    assert LisaConfig(decoder={"layers": 1}).decoder == DECODER_SIZES | {"layers": 1}


def test_two_configurations_share_nothing() -> None:
    one, two = LisaConfig(), LisaConfig()
    one.decoder["width"] = 64
    one.concepts.append("cat")
    assert (two.decoder, two.concepts) == (DECODER_SIZES, [])
    assert LisaConfig.tiny(5, 5).decoder is not LisaConfig.tiny(5, 5).decoder


@pytest.mark.parametrize("concepts", [[], ["cat"], ["cat"] * 9])
def test_a_picture_takes_as_much_room_whatever_can_be_found_in_it(concepts: list[str]) -> None:
    config = LisaConfig.tiny(5, 5, grid=3, found_tokens=7, concepts=concepts)
    assert config.visual_tokens == 9 + 7


def test_language_fields_reach_the_language_model() -> None:
    language = LisaConfig.tiny(77, 77).language_config()
    assert (language.vocab_size, language.hidden_size, language.num_hidden_layers) == (77, 32, 2)


@pytest.mark.parametrize("tied", [True, False])
def test_whether_tables_are_tied_is_the_language_models_business(tied: bool) -> None:
    assert LisaConfig(language={"tie_word_embeddings": tied}).tie_word_embeddings is tied


BAD_FIELDS: list[tuple[dict[str, Any], str, str]] = [
    ({"image_size": 100}, "image_size is 100", "multiple of 32"),
    ({"image_size": 0}, "image_size is 0", "at least 32"),
    ({"image_size": "384"}, "image_size is '384'", "whole number"),
    ({"image_size": True}, "image_size is True", "whole number"),
    ({"prompt_size": 0}, "prompt_size is 0", "at least 2, a multiple of 2"),
    ({"grid": 1.5}, "grid is 1.5", "whole number"),
    ({"found_tokens": 0}, "found_tokens is 0", "at least 1"),
    ({"found_concepts": -1}, "found_concepts is -1", "at least 0"),
    ({"found_classes": None}, "found_classes is None", "whole number"),
    ({"seg_token_id": -5}, "seg_token_id is -5", "at least 0"),
    ({"mask_threshold": 0.0}, "mask_threshold is 0.0", "between 0 and 1"),
    ({"mask_threshold": 1}, "mask_threshold is 1", "between 0 and 1"),
    ({"mask_threshold": float("nan")}, "mask_threshold is nan", "between 0 and 1"),
    ({"mask_threshold": "half"}, "mask_threshold is 'half'", "float"),
    ({"score_scale": 0}, "score_scale is 0", "above 0"),
    ({"score_scale": float("nan")}, "score_scale is nan", "above 0"),
    ({"score_bias": float("inf")}, "score_bias is inf", "finite"),
    ({"score_bias": "low"}, "score_bias is 'low'", "float"),
    ({"concepts": "cat"}, "concepts is 'cat'", "list"),
    ({"concepts": [1]}, "concepts is 1", "str"),
    ({"trained_on": {"a": 1}}, "trained_on is {'a': 1}", "list"),
    ({"language": 3}, "language is 3", "dict"),
    ({"decoder": [1]}, "decoder is [1]", "dict"),
    ({"decoder": {"depth": 3}}, "decoder is 'depth'", "width"),
    ({"decoder": {"width": 18}}, "decoder.width is 18", "multiple of 4"),
    ({"decoder": {"width": 32, "heads": 3}}, "decoder.heads is 3", "divisor of 16"),
    ({"decoder": {"layers": 0}}, "decoder.layers is 0", "at least 1"),
]


@pytest.mark.parametrize(("fields", "named", "expected"), BAD_FIELDS)
def test_a_bad_field_is_named_with_what_was_expected(
    fields: dict[str, Any], named: str, expected: str
) -> None:
    with pytest.raises(ModelError) as caught:
        LisaConfig(**fields)
    message = str(caught.value)
    assert named in message
    assert expected in message.split("; expected ")[1]
    assert "\n" not in message


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(ModelError) as caught:
        LisaConfig(language=["x" * 1000])  # type: ignore[arg-type]
    assert len(str(caught.value)) < 120


# ------------------------------------------------------------------ full size


def parts(**changes: Any) -> LisaConfig:
    return LisaConfig.from_parts(vlm_fields("llava"), decoder_fields("sam"), **changes)


def test_parts_tell_the_sizes() -> None:
    config = parts()
    assert config.full_size and not LisaConfig().full_size
    assert (config.prompt_size, config.image_size, config.seg_token_id) == (32, 64, 64)
    assert config.conversation == "chat"
    assert config.language_config().vocab_size == 65  # [SEG] is the token after the model's own
    assert parts(seg_token_id=20).language_config().vocab_size == 64


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("vlm", VLMS)
def test_parts_survive_being_written_down(vlm: str, decoder: str) -> None:
    config = LisaConfig.from_parts(vlm_fields(vlm), decoder_fields(decoder))
    again = LisaConfig(**json.loads(config.to_json_string(use_diff=False)))
    assert again.vlm_config().to_dict() == config.vlm_config().to_dict()
    assert again.mask_decoder_config().to_dict() == config.mask_decoder_config().to_dict()
    assert again.image_size == (56 if decoder == "sam3_tracker" else 64)


def test_parts_are_given_in_any_form(tmp_path: Path) -> None:
    expected = parts()
    vlm, decoder = expected.vlm_config(), expected.mask_decoder_config()
    for name, part in (("vlm", vlm), ("decoder", decoder)):
        part.save_pretrained(tmp_path / name)
    for forms in ((vlm, decoder), (str(tmp_path / "vlm"), tmp_path / "decoder")):
        config = LisaConfig.from_parts(*forms, seg_token_id=64)
        assert config.vlm_config().to_dict() == vlm.to_dict()
        assert config.mask_decoder_config().to_dict() == decoder.to_dict()
        assert str(tmp_path) not in config.to_json_string()


def test_giving_parts_leaves_them_as_they_were() -> None:
    vlm = parts(seg_token_id=3).vlm_config()
    LisaConfig.from_parts(vlm, decoder_fields("sam"))
    assert vlm.get_text_config().vocab_size == 64


def test_a_decoder_published_for_videos_is_used_for_pictures() -> None:
    fields = decoder_fields("sam2") | {"model_type": "sam2_video"}
    config = LisaConfig.from_parts(vlm_fields("llava"), fields)
    assert config.mask_decoder_config().model_type == "sam2"
    assert config.mask_decoder_config().vision_config.backbone_channel_list == [128, 64, 32, 16]


BAD_PARTS: list[tuple[dict[str, Any], str]] = [
    ({"vlm": {"model_type": "llava"}}, "mask_decoder is None; expected it to be given if"),
    ({"mask_decoder": {"model_type": "sam"}}, "expected it to be given if and only if vlm is"),
    ({"vlm": "llava"}, "vlm is 'llava'; expected dict"),
    ({"projector": "mlp"}, "projector is 'mlp'; expected 'own', 'linear'"),
    ({"conversation": "v0"}, "conversation is 'v0'; expected 'nano', 'llava_v1'"),
    ({"compat": "buggy"}, "compat is 'buggy'; expected '', 'official'"),
]


@pytest.mark.parametrize(("fields", "message"), BAD_PARTS)
def test_a_bad_field_of_full_size_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=re.escape(message)):
        LisaConfig(**fields)


@pytest.mark.parametrize("source", [{"model_type": "no such"}, {}, Path("no such directory")])
def test_a_part_that_cannot_be_read_is_named(source: Any) -> None:
    with pytest.raises(ModelError, match=r"vlm is .*; expected a configuration of transformers"):
        LisaConfig.from_parts(source, decoder_fields("sam"))


def test_parts_in_the_wrong_place_are_named() -> None:
    with pytest.raises(ModelError, match=r"vlm\.model_type is 'sam'; expected a vision-language"):
        LisaConfig.from_parts(decoder_fields("sam"), decoder_fields("sam"))
    with pytest.raises(ModelError, match=r"mask_decoder\.model_type is 'llava'; expected"):
        LisaConfig.from_parts(vlm_fields("llava"), vlm_fields("llava"))


def test_sam_3_is_published_with_its_detector() -> None:
    config = LisaConfig.from_parts(vlm_fields("llava"), {"model_type": "sam3_video"})
    assert config.mask_decoder_config().model_type == "sam3_tracker"
    assert (config.image_size, config.prompt_size) == (1008, 256)
