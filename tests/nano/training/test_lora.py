"""Low-rank adaptation: which matrices have factors, that they are put in once and start at zero."""

import pytest
import torch

from helpers.lively_model import picture
from helpers.tiny_model import tiny_model
from lisa.example import Example
from lisa.model.lisa import LisaModel
from lisa.nano.model.processor import LisaProcessor
from lisa.nano.training.joint import MindTask
from lisa.nano.training.lora import LORA, adapt_language, adapted
from lisa.nano.training.symbolic import WordsTask

MATRICES = 7  # of a Llama layer: queries, keys, values, output, gate, up, down


@pytest.fixture
def built() -> tuple[LisaModel, LisaProcessor]:
    return tiny_model()


def test_a_model_that_is_not_adapted_has_no_factors(built: tuple[LisaModel, LisaProcessor]) -> None:
    assert adapted(built[0]) == []


def test_every_linear_map_of_the_upper_layers_gets_two_factors(
    built: tuple[LisaModel, LisaProcessor],
) -> None:
    model = built[0]
    upper = model.vlm.language.model.layers[model.config.recall_layers :]
    linear = [m for m in upper.modules() if isinstance(m, torch.nn.Linear)]
    assert len(linear) == MATRICES * len(upper) > 0
    sizes = [(LORA.r, m.in_features) for m in linear] + [(m.out_features, LORA.r) for m in linear]
    adapt_language(model)
    assert sorted(tuple(factor.shape) for factor in adapted(model)) == sorted(sizes)


def test_only_the_language_models_layers_are_adapted(
    built: tuple[LisaModel, LisaProcessor],
) -> None:
    model = built[0]
    adapt_language(model)
    factors = {name for name, _ in model.named_parameters() if "lora" in name}
    assert len(factors) == len(adapted(model))
    assert all(name.startswith("vlm.language.model.layers.") for name in factors)


def test_fresh_factors_change_no_answer(built: tuple[LisaModel, LisaProcessor]) -> None:
    model, processor = built
    batch = processor.encode([Example(picture(), "what is the cat?", "The cat.")])
    with torch.no_grad():
        before = model(batch).logits
        adapt_language(model)
        assert torch.equal(model(batch).logits, before)
        for factor in adapted(model):
            factor.normal_()
        assert not torch.allclose(model(batch).logits, before, atol=1e-3)


@pytest.mark.parametrize("tasks", [(WordsTask, MindTask), (MindTask, MindTask)])
def test_a_later_stage_goes_on_with_the_factors_of_the_one_before(
    built: tuple[LisaModel, LisaProcessor], tasks: tuple[type, type]
) -> None:
    model = built[0]
    tasks[0](model)
    factors = adapted(model)
    with torch.no_grad():
        for factor in factors:
            factor.fill_(0.25)
    tasks[1](model)
    again = adapted(model)
    upper = len(model.vlm.language.model.layers) - model.config.recall_layers
    assert len(again) == len(factors) == 2 * MATRICES * upper
    assert all(one is other for one, other in zip(again, factors, strict=True))
    assert all(factor.requires_grad and factor.eq(0.25).all() for factor in again)
