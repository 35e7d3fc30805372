"""The presets: the paper's numbers, and that each can be run."""

import pytest

from lisa.data.datasets import DATASETS
from lisa.errors import LisaError
from lisa.training.optim import PAPER
from lisa.training.presets import PRESETS, LossWeights, preset_of


def test_the_papers_numbers() -> None:
    paper = preset_of("paper")
    assert paper.recipe == PAPER
    recipe = paper.recipe
    assert (recipe.lora_rank, recipe.lora_alpha, recipe.lora_targets) == (
        8,
        16,
        ("q_proj", "v_proj"),
    )
    assert (recipe.learning_rate, recipe.warmup, recipe.steps) == (3e-4, 100, 5000)
    assert paper.losses == LossWeights(text=1.0, bce=2.0, dice=0.5)
    assert (paper.micro, paper.pictures, paper.schedule) == (2, 160, "warmup_decay")


def test_the_papers_data() -> None:
    families = [DATASETS[name].family for name in preset_of("paper").datasets]
    assert {name: families.count(name) for name in dict.fromkeys(families)} == {
        "semantic": 5,
        "refer": 4,
        "vqa": 1,
        "reason": 1,
    }
    assert preset_of("paper-239").datasets == ("reasonseg",)


@pytest.mark.parametrize("name", PRESETS)
def test_an_update_can_be_shared_out(name: str) -> None:
    preset = preset_of(name)
    for processes in (1, 2, 4):
        assert preset.pictures % (preset.micro * (processes if preset.full_size else 1)) == 0
    assert preset.recipe.warmup < preset.recipe.steps
    assert preset.save_every <= preset.recipe.steps


def test_16_gb_are_saved_everywhere() -> None:
    preset = preset_of("lora-16gb")
    assert (preset.quantize, preset.checkpointing, preset.micro) == ("4bit", True, 1)
    assert preset.recipe.lora_rank == PAPER.lora_rank


def test_full_trains_the_language_model_itself() -> None:
    assert preset_of("full").recipe.lora_rank == 0


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(
        LisaError, match="no preset 'papre'; expected one of nano, paper, paper-239"
    ):
        preset_of("papre")
