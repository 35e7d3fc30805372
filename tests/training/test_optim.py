"""What is trained of a full-size model: which names, with which factors, and how fast."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from helpers.full_size_parts import LAYERS, WIDTH, FullSize
from lisa.training.optim import Recipe, make_optimizer, merge, warmup_decay
from lisa.training.paper import adapted_layers, is_adapted, is_trained, prepare


@pytest.fixture
def model() -> FullSize:
    torch.manual_seed(0)
    return FullSize()


def part_of(name: str) -> str:
    """The part of the model that a parameter belongs to, said in the test's own words."""
    words = {
        "head.": "head",
        "decoder.mask_decoder": "mask decoder",
        "decoder.": "eyes",
        "vlm.model.vision_tower": "eyes",
        "vlm.model.multi_modal_projector": "eyes",
        "vlm.lm_head": "words",
        "vlm.model.language_model.embed_tokens": "words",
        "vlm.model.language_model": "layers",
    }
    return next(part for start, part in words.items() if name.startswith(start))


def test_queries_and_values_of_the_language_model_alone_are_adapted(model: FullSize) -> None:
    assert adapted_layers(model.vlm) == [
        f"model.language_model.layers.{number}.self_attn.{kind}_proj"
        for number in range(LAYERS)
        for kind in "qv"
    ]


@pytest.mark.parametrize(
    ("name", "adapted"),
    [
        ("model.layers.0.self_attn.q_proj", True),
        ("model.layers.31.self_attn.v_proj", True),
        ("model.layers.0.self_attn.k_proj", False),
        ("model.layers.0.mlp.up_proj", False),
        ("model.visual_model.mask_decoder.transformer.layers.0.self_attn.q_proj", False),
        ("model.vision_tower.vision_tower.vision_model.encoder.layers.0.self_attn.v_proj", False),
        ("model.vision_model.encoder.layers.0.self_attn.q_proj", False),
        ("model.connector.modality_projection.q_proj", False),
    ],
)
def test_the_rule_reads_names_of_any_spelling(name: str, adapted: bool) -> None:
    assert is_adapted(name) == adapted


def test_what_the_paper_trains_is_trained_and_nothing_else(model: FullSize) -> None:
    prepare(model)
    trained = {True: set(), False: set()}
    for name, parameter in model.named_parameters():
        part = "factors" if "lora_" in name else part_of(name)
        trained[parameter.requires_grad].add(part)
    assert trained[True] == {"factors", "words", "mask decoder", "head"}
    assert trained[False] == {"layers", "eyes"}


def test_prepare_returns_what_is_trained(model: FullSize) -> None:
    trained = prepare(model)
    assert {id(p) for p in trained} == {id(p) for p in model.parameters() if p.requires_grad}
    factors = [p for name, p in model.named_parameters() if "lora_" in name]
    assert sum(p.numel() for p in factors) == LAYERS * 2 * 2 * WIDTH * Recipe.lora_rank


def test_without_factors_the_whole_language_model_is_trained(model: FullSize) -> None:
    prepare(model, Recipe(lora_rank=0))
    frozen = {part_of(name) for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"eyes"}


def test_factors_are_put_in_once(model: FullSize) -> None:
    prepare(model)
    before = [id(p) for p in model.parameters()]
    prepare(model)
    assert [id(p) for p in model.parameters()] == before


def test_merged_factors_say_the_same_and_leave_no_trace(model: FullSize) -> None:
    ids = torch.arange(8)[None]
    names = list(model.state_dict())
    untouched = copy.deepcopy(model)(ids)
    prepare(model, Recipe(lora_dropout=0.0))
    with torch.no_grad():
        assert torch.equal(model(ids), untouched)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_()
        adapted = model(ids)
        assert not torch.allclose(adapted, untouched, atol=1e-2)
        merge(model)
        assert list(model.state_dict()) == names
        torch.testing.assert_close(model(ids), adapted, atol=1e-4, rtol=1e-4)


def test_one_update_moves_what_is_trained_only(model: FullSize) -> None:
    trained = {id(p) for p in prepare(model)}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer, schedule = make_optimizer(p for p in model.parameters() if id(p) in trained)
    model(torch.arange(8)[None]).square().mean().backward()
    optimizer.step()
    schedule.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved and all(is_trained(name) for name in moved)
    assert "vlm.lm_head.weight" in moved


def test_the_optimizer_is_the_papers() -> None:
    recipe = Recipe(steps=4, warmup=2, learning_rate=0.5)
    optimizer, schedule = make_optimizer([nn.Parameter(torch.zeros(1))], recipe)
    assert isinstance(optimizer, torch.optim.AdamW)
    (group,) = optimizer.param_groups
    assert (group["betas"], group["weight_decay"], group["eps"]) == ((0.9, 0.95), 0.0, 1e-8)
    assert list(rates(optimizer, schedule, 5)) == [0.25, 0.5, 0.5, 0.25, 0.0]


def rates(optimizer: torch.optim.Optimizer, schedule: object, updates: int) -> Iterator[float]:
    for _ in range(updates):
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        schedule.step()


def test_no_update_is_wasted_and_the_rate_ends_at_zero() -> None:
    shares = [warmup_decay(update, 50, 10) for update in range(51)]
    assert all(share > 0 for share in shares[:50]) and shares[50] == 0
    assert max(shares) == shares[9] == shares[10] == 1
    assert shares[:10] == sorted(shares[:10])
    assert shares[10:] == sorted(shares[10:], reverse=True)


@pytest.mark.parametrize(
    ("update", "share"),
    [(0, 1.0), (1, 0.0), (2, 0.01), (101, 1.0), (102, 4899 / 4900), (5001, 0.0), (6000, 0.0)],
)
def test_the_official_schedule_starts_at_the_full_rate_and_lags(update: int, share: float) -> None:
    assert warmup_decay(update, 5000, 100, compat="official") == pytest.approx(share)


def test_a_run_shorter_than_its_warm_up_ends_at_zero() -> None:
    assert [warmup_decay(u, 60, 100, compat="official") for u in (101, 102)] == [0.0, 0.0]
