"""A wrapped model still knows which of its weights are one."""

import torch

from helpers.parts import tiny_processor
from lisa.checkpoints.directory import FullSizeModel
from lisa.model.config import LisaConfig
from lisa.model.pretrained import KNOWN, Part
from lisa.nano.model.lisa import NanoModel


def test_a_part_answers_for_the_model_in_it() -> None:
    with torch.device("meta"):
        model = FullSizeModel(tiny_processor("smolvlm", "sam").config)
    for part, name in ((model.vlm, "vlm"), (model.decoder, "decoder")):
        assert isinstance(part, Part)
        assert part.model.all_tied_weights_keys
        for copy, source in part.model.all_tied_weights_keys.items():
            assert model.all_tied_weights_keys[f"{name}.model.{copy}"] == f"{name}.model.{source}"
        for known in KNOWN:
            assert getattr(part, known) == getattr(part.model, known, None)
    assert set(model._no_split_modules) >= set(model.vlm.model._no_split_modules)


def test_nano_is_tied_as_before() -> None:
    with torch.device("meta"):
        tied = NanoModel(LisaConfig.tiny(60, 60)).all_tied_weights_keys
    assert tied == {"vlm.language.lm_head.weight": "vlm.language.model.embed_tokens.weight"}
