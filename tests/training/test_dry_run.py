"""What a run would do, told before it is run."""

from dataclasses import replace
from pathlib import Path

import pytest

from helpers.parts import decoder_fields, vlm_fields
from helpers.tuning import few, write_full_size, write_samples
from lisa.checkpoints.directory import build, empty_model
from lisa.errors import LisaError
from lisa.model.config import LisaConfig
from lisa.nano.training.tuning import make_task
from lisa.training.dry_run import activations, count_trained, estimate
from lisa.training.presets import PRESETS


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_samples(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_full_size(tmp_path_factory.mktemp("models") / "llava")


@pytest.mark.parametrize("name", ["paper", "full", "lora-16gb"])
def test_what_is_trained_is_counted_as_it_will_be(full_size: Path, data: Path, name: str) -> None:
    foreseen = estimate(few(full_size, data, preset=name))
    model, processor = build(full_size, "cpu")
    task = make_task(model, processor, PRESETS[name])
    assert foreseen.trained == count_trained(task.model)
    assert sum(foreseen.trained.values()) == sum(
        parameter.numel() for parameter in task.parameters() if parameter.requires_grad
    )
    assert "image encoder" not in foreseen.trained and "image encoder" in foreseen.numbers


def test_questions_and_masks_of_an_update(tiny_directory: Path, data: Path) -> None:
    foreseen = estimate(few(tiny_directory, data, pictures=8))
    assert (foreseen.questions, foreseen.masks) == (8, 8)  # each picture has one
    assert foreseen.tokens == 2 * estimate(few(tiny_directory, data, pictures=4)).tokens > 100


def test_nothing_is_written(tiny_directory: Path, data: Path, tmp_path: Path) -> None:
    before = sorted(data.rglob("*"))
    text = str(estimate(few(tiny_directory, data)))
    assert "M trained" in text and "GiB in one process" in text
    assert sorted(data.rglob("*")) == before and not list(tmp_path.iterdir())


def test_what_training_would_refuse_is_refused(tiny_directory: Path, data: Path) -> None:
    with pytest.raises(LisaError, match="no preset"):
        estimate(few(tiny_directory, data, preset="large"))
    with pytest.raises(LisaError, match="unknown data set 'cats'"):
        estimate(few(tiny_directory, data, datasets=("cats",)))


def test_memory_follows_from_what_is_kept() -> None:
    model = empty_model(LisaConfig.from_parts(vlm_fields("llava"), decoder_fields("sam")), Path())
    preset = replace(PRESETS["paper"], dtype="float32")
    kept = activations(model, 100, replace(preset, checkpointing=False))
    assert activations(model, 100, preset) < kept
    assert activations(model, 200, preset) > activations(model, 100, preset)
    assert activations(model, 100, replace(preset, dtype="bfloat16")) < activations(
        model, 100, preset
    )
