"""The loop of fine-tuning: what stops it, what it logs, in which order it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from helpers.lively_model import picture
from lisa.data.mixture import Mixture, Share
from lisa.errors import LisaError, QuestionError
from lisa.example import Example
from lisa.model.interfaces import Batch
from lisa.training import tune
from lisa.training.loop import Losses, Task, last_checkpoint
from lisa.training.optim import Recipe
from lisa.training.presets import PRESETS, Preset
from lisa.training.tune import arguments, encode_what_fits, fine_tune, is_out_of_memory, schedule

CPU = torch.device("cpu")
PRESET = replace(
    PRESETS["nano"],
    recipe=Recipe(steps=6, learning_rate=0.5, warmup=2),
    pictures=2,
    micro=1,
    schedule="warmup_decay",
    save_every=2,
)


class Line(Task):
    """One number that is moved towards those that it reads."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.place = nn.Parameter(torch.zeros(1))
        self.read: list[float] = []

    def forward(self, batch: Batch) -> Losses:
        wanted = batch.pixel_values
        self.read += wanted.tolist()
        if wanted.max() > 90:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        far = (self.place - wanted).square().mean()
        if 70 < wanted.max() < 80:
            far = far + (self.place * 0).sqrt().sum()  # a number whose slope is none
        return {"near": 0.25 * far, "far": 0.75 * far / (0.0 if wanted.max() > 80 else 1.0)}


def numbers(values: Sequence[float]) -> list[list[Example]]:
    return [[Example(picture(8, 8), str(value))] for value in values]


def encode(examples: Sequence[Example]) -> Batch:
    values = torch.tensor([float(example.question) for example in examples])
    return Batch(values, values.long()[None], values.long()[None], values.long()[None])


def run(
    values: Sequence[float], out: Path, preset: Preset = PRESET
) -> tuple[Line, list[dict[str, float]]]:
    task = Line()
    log = fine_tune(task, numbers(values), encode, preset, out, device=CPU)  # type: ignore[arg-type]
    return task, log


def test_samples_are_read_in_their_own_order(tmp_path: Path) -> None:
    task, _ = run(range(12), tmp_path)
    assert task.read == list(range(12))


def test_an_update_is_the_mean_of_its_micro_batches(tmp_path: Path) -> None:
    _, log = run([1, 3] * 6, tmp_path)
    assert log[0]["loss"] == pytest.approx((1**2 + 3**2) / 2)
    assert log[0]["loss_near"] == pytest.approx(0.25 * 5)
    assert log[0]["loss_far"] == pytest.approx(0.75 * 5)
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2, 3, 4, 5, 6]


def test_micro_batches_do_not_change_the_losses(tmp_path: Path) -> None:
    _, log = run(range(12), tmp_path / "a")
    _, same = run(range(12), tmp_path / "b", replace(PRESET, micro=2))
    assert [e["loss"] for e in same if "loss" in e] == pytest.approx(
        [e["loss"] for e in log if "loss" in e], rel=1e-5
    )


def test_the_rates_are_those_of_the_recipe(tmp_path: Path) -> None:
    _, log = run(range(12), tmp_path)
    rates = [entry["learning_rate"] for entry in log if "loss" in entry]
    assert rates == pytest.approx([0.25, 0.5, 0.5, 0.375, 0.25, 0.125])


def test_a_cosine_ends_at_zero() -> None:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=1.0)
    planned = schedule(optimizer, replace(PRESET, schedule="cosine"))
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        planned.step()
    assert rates[0] == 0 and max(rates) == rates[2] == 1
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0)


# What goes wrong


def test_a_loss_that_is_no_number_ends_in_advice(tmp_path: Path) -> None:
    values = [*range(7), 85, *range(8, 12)]
    with pytest.raises(
        LisaError, match=r"'far' became inf at step 4;.* lower learning rate"
    ) as got:
        run(values, tmp_path)
    assert "\n" not in str(got.value)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"


def test_a_gradient_that_is_no_number_ends_in_advice(tmp_path: Path) -> None:
    with pytest.raises(LisaError, match=r"'gradient' became nan at step 4; .* float32"):
        run([*range(7), 75, *range(8, 12)], tmp_path, replace(PRESET, save_every=1))
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-3"


def test_the_run_goes_on_after_it(tmp_path: Path) -> None:
    whole, _ = run(range(12), tmp_path / "whole")
    with pytest.raises(LisaError):
        run([*range(7), 85, *range(8, 12)], tmp_path / "stopped")
    task, log = run(range(12), tmp_path / "stopped")
    assert task.read == list(range(4, 12))
    assert len([entry for entry in log if "loss" in entry]) == 6
    assert torch.equal(task.place, whole.place)


def test_no_memory_ends_in_advice(tmp_path: Path) -> None:
    with pytest.raises(
        LisaError, match=r"out of memory with 1 pictures at once; .*lora-16gb"
    ) as got:
        run([*range(7), 95, *range(8, 12)], tmp_path)
    assert "\n" not in str(got.value)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_no_memory_is_told_from_other_errors(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


def test_checkpoints_of_processes_that_share_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(range(12), tmp_path, replace(PRESET, save_every=2))
    (tmp_path / "checkpoint-6" / "trainer_state.json").unlink()
    (tmp_path / "checkpoint-4" / "optimizer.bin").touch()
    with pytest.raises(
        LisaError, match=r"checkpoint-4' was written with FSDP, this run is without"
    ):
        run(range(12), tmp_path)


def test_pictures_are_shared_out_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "number_of_processes", lambda: 2)
    made = arguments(replace(PRESET, pictures=12, micro=3), tmp_path, CPU, 0)
    assert (made.per_device_train_batch_size, made.gradient_accumulation_steps) == (3, 2)
    with pytest.raises(LisaError, match="an update has 8 pictures, 3 at once in each of 2"):
        arguments(replace(PRESET, pictures=8, micro=3), tmp_path, CPU, 0)


def test_an_example_that_is_too_long_is_left_out() -> None:
    def picky(examples: Sequence[Example]) -> Batch:
        if any(len(example.question) > 3 for example in examples):
            raise QuestionError("too long")
        return encode(examples)

    examples = [one for draw in numbers([1, 2000.5, 3]) for one in draw]
    assert encode_what_fits(examples, picky).pixel_values.tolist() == [1, 3]
    with pytest.raises(QuestionError):
        encode_what_fits(examples[1:2], picky)


def test_a_mixture_is_what_is_trained_on(tmp_path: Path) -> None:
    examples = [Example(picture(8, 8), str(number)) for number in range(5)]
    mixture = Mixture({"a": Share(examples, 1)}, 12, 3)
    task = Line()
    fine_tune(task, mixture, encode, PRESET, tmp_path, device=CPU)
    assert task.read == [float(mixture[number][0].question) for number in range(12)]
