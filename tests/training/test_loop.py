"""The training loop: what is trained, logged and kept, and that a stopped run goes on as if not."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from helpers.tiny_model import tiny_model
from helpers.training_data import SIDE, write_training_data
from lisa.data.stream import Stream
from lisa.errors import ModelError
from lisa.nano.data.sources import Photos
from lisa.nano.training.grounding import EyesTask, eyes_stream
from lisa.nano.training.joint import MindTask, mind_stream
from lisa.nano.training.stage import Schedule, has_checkpoint, run_stage, warm_up
from lisa.nano.training.symbolic import WordsTask, encode_scenes, words_stream
from lisa.training.loop import Losses, Task, last_checkpoint

CPU = torch.device("cpu")
SCHEDULE = Schedule(steps=4, pictures=2, learning_rate=1e-3, warmup=1, save_every=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_data(tmp_path_factory.mktemp("data"))


def eyes(data: Path) -> Stream:
    return Stream(eyes_stream(data, Photos(data), SIDE, 3, 2), 100, 0)


def words(data: Path) -> Stream:
    return Stream(words_stream(tiny_model()[1].config, 2, True), 100, 0)


def mind(data: Path) -> Stream:
    return Stream(mind_stream(data, Photos(data), SIDE, 2, True), 100, 0)


STAGES = {"eyes": (EyesTask, eyes), "words": (WordsTask, words), "mind": (MindTask, mind)}
all_stages = pytest.mark.parametrize("stage", STAGES)


class Killed(Exception):
    """Stands for a run that is stopped from outside."""


class Recorded(Task):
    """Another task, with every loss written down, that is killed before one of its steps."""

    def __init__(self, task: Task, killed_at: int | None = None) -> None:
        nn.Module.__init__(self)
        self.model, self.killed_at = task.model, killed_at
        self.losses: list[float] = []
        object.__setattr__(self, "task", task)  # not a second owner of the model

    def forward(self, batch: Any) -> Losses:
        if len(self.losses) == self.killed_at:
            raise Killed
        losses = self.task(batch)
        self.losses.append(float(sum(value.detach() for value in losses.values())))
        return losses

    def parameter_groups(self, learning_rate: float) -> list[dict[str, object]]:
        return self.task.parameter_groups(learning_rate)


def prepare(
    stage: str, killed_at: int | None = None, seed: int = 0
) -> tuple[Recorded, Callable[[list[Any]], Any]]:
    """A stage's task, and what makes its samples a batch."""
    model, processor = tiny_model()
    torch.manual_seed(seed)
    encode = partial(encode_scenes, processor=processor) if stage == "words" else processor.encode
    return Recorded(STAGES[stage][0](model), killed_at), encode


def run(
    task: Task, encode: Callable[[list[Any]], Any], stream: Stream, out: Path
) -> list[dict[str, float]]:
    return run_stage(task, stream, encode, SCHEDULE, out, device=CPU)


# Stopped and resumed


@all_stages
def test_a_run_killed_after_a_checkpoint_goes_on_as_if_never_stopped(
    stage: str, data: Path, tmp_path: Path
) -> None:
    stream = STAGES[stage][1](data)
    whole, encode = prepare(stage)
    run(whole, encode, stream, tmp_path / "whole")
    assert len(whole.losses) == SCHEDULE.steps

    killed, encode = prepare(stage, killed_at=3)
    with pytest.raises(Killed):
        run(killed, encode, stream, tmp_path / "stopped")
    resumed, encode = prepare(stage, seed=9)  # what is new in it comes from the checkpoint
    run(resumed, encode, stream, tmp_path / "stopped")

    assert killed.losses == pytest.approx(whole.losses[:3], abs=1e-6)
    assert resumed.losses == pytest.approx(whole.losses[2:], abs=1e-6)
    expected = whole.model.state_dict()
    for name, value in resumed.model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-6, msg=name)


def test_a_finished_stage_is_left_as_it_is(data: Path, tmp_path: Path) -> None:
    first, encode = prepare("eyes")
    run(first, encode, eyes(data), tmp_path)
    again, encode = prepare("eyes", killed_at=0)
    run(again, encode, eyes(data), tmp_path)
    assert again.losses == []
    assert again.state_dict().keys() == first.state_dict().keys()
    assert all(value.equal(first.state_dict()[name]) for name, value in again.state_dict().items())


def test_a_checkpoint_that_was_not_written_to_its_end_is_passed_over(tmp_path: Path) -> None:
    assert not has_checkpoint(tmp_path / "nowhere")
    assert last_checkpoint(tmp_path) is None
    for number in (5, 20, 100):
        (tmp_path / f"checkpoint-{number}").mkdir()
        (tmp_path / f"checkpoint-{number}" / "model.safetensors").touch()
    assert not has_checkpoint(tmp_path)
    for number, state in ((5, "{}"), (20, "{}"), (100, '{"global_step": 1')):
        (tmp_path / f"checkpoint-{number}" / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-20"


# What a stage trains and keeps


@all_stages
def test_a_stage_trains_only_what_its_task_names(stage: str, data: Path, tmp_path: Path) -> None:
    task, encode = prepare(stage)
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    schedule = dataclasses.replace(SCHEDULE, steps=2)
    run_stage(task, STAGES[stage][1](data), encode, schedule, tmp_path, device=CPU)
    after = task.model.state_dict()
    moved = {f"model.{name}" for name in after if not after[name].equal(before[name])}
    trained = task.trained_names()
    assert moved and moved <= trained
    assert len(trained) < len(after)
    checkpoint = tmp_path / "checkpoint-2" / "model.safetensors"
    assert keys_of(checkpoint) == trained


def keys_of(path: Path) -> set[str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return set(file.keys())


def test_only_the_last_two_checkpoints_are_kept(data: Path, tmp_path: Path) -> None:
    task, encode = prepare("eyes")
    schedule = dataclasses.replace(SCHEDULE, save_every=1)
    run_stage(task, eyes(data), encode, schedule, tmp_path, device=CPU)
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-3", "checkpoint-4"}


def test_a_task_has_one_mode() -> None:
    task = EyesTask(tiny_model()[0])
    assert not task.train().training
    assert not any(part.training for part in task.modules())


def test_weights_of_another_task_do_not_fit() -> None:
    task = EyesTask(tiny_model()[0])
    state = task.state_dict()
    name = sorted(state)[0]
    with pytest.raises(ModelError, match=r"'unknown' differs"):
        task.load_state_dict({**state, "unknown": torch.zeros(1)})
    value = state.pop(name)
    with pytest.raises(ModelError, match=name):
        task.load_state_dict(state)
    task.load_state_dict({**state, name: torch.full_like(value, 0.5)})
    assert task.state_dict()[name].eq(0.5).all()


# What is logged


def test_losses_by_name_and_validation_scores_are_logged(data: Path, tmp_path: Path) -> None:
    task, encode = prepare("eyes")
    measured = iter([0.25, 0.75])
    log = run_stage(
        task,
        eyes(data),
        encode,
        SCHEDULE,
        tmp_path,
        device=CPU,
        measure=lambda: {"val_iou": next(measured)},
    )
    scores = {entry["step"]: entry["val_iou"] for entry in log if "val_iou" in entry}
    assert scores == {2: 0.25, 4: 0.75}
    (entry,) = (entry for entry in log if "loss" in entry)
    parts = [
        entry[f"loss_{name}"] for name in ("bce", "dice", "quality", "here", "denied", "somewhere")
    ]
    assert sum(parts) == pytest.approx(np.mean(task.losses), rel=1e-4)
    assert entry["loss"] == pytest.approx(np.mean(task.losses), rel=1e-4)
    tags = scalar_tags(tmp_path)
    assert {"train/loss", "train/loss_bce", "train/loss_here", "train/val_iou"} <= tags


def scalar_tags(folder: Path) -> set[str]:
    """What the TensorBoard files under a folder plot."""
    files = [path for path in folder.rglob("events.out.tfevents.*")]
    accumulators = [EventAccumulator(str(path)).Reload() for path in files]
    return {tag for accumulator in accumulators for tag in accumulator.Tags()["scalars"]}


# Warming up


def test_warm_up_goes_downhill_and_returns_the_last_loss() -> None:
    weight = nn.Parameter(torch.tensor([3.0]))
    seen: list[float] = []

    def loss() -> Tensor:
        value = (weight**2).sum()
        seen.append(value.item())
        return value

    last = warm_up([weight], loss, steps=5, learning_rate=0.5)
    assert len(seen) == 5
    assert last == seen[-1] < seen[0] == 9
    assert warm_up([weight], loss, steps=0, learning_rate=0.5) == 0
    assert math.isclose(weight.item(), 3 - 5 * 0.5, abs_tol=0.3)
