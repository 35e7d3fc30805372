"""Several processes: the shipped configurations, and that two processes train as one does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DeepSpeedPlugin, DistributedType

from helpers.tuning import command, few, losses, write_full_size, write_samples
from lisa.errors import LisaError
from lisa.training.finetune import CHECKPOINTS, train
from lisa.training.launch import (
    FOLDER,
    config_path,
    is_first_process,
    is_sharded,
    number_of_processes,
    own_device,
)

SECONDS = 600  # after which a run counts as hanging, on a slow machine
KINDS = {
    "one-gpu": DistributedType.NO,
    "ddp": DistributedType.MULTI_GPU,
    "fsdp2": DistributedType.FSDP,
    "zero2": DistributedType.DEEPSPEED,
    "zero3": DistributedType.DEEPSPEED,
}


def test_every_shipped_configuration_is_listed() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_accelerate_reads_it(name: str) -> None:
    config = load_config_from_file(str(config_path(name)))
    assert config.distributed_type == KINDS[name]
    assert config.mixed_precision == "bf16"


@pytest.mark.parametrize(("name", "stage"), [("zero2", 2), ("zero3", 3)])
def test_zero_shares_out_what_its_number_says(name: str, stage: int) -> None:
    config = load_config_from_file(str(config_path(name)))
    assert config.deepspeed_config["zero_stage"] == stage
    assert config.deepspeed_config["gradient_accumulation_steps"] == "auto"


@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_deepspeed_takes_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own reading of what `accelerate launch` would hand on; DeepSpeed is no dependency."""
    deepspeed = pytest.importorskip("deepspeed")
    plugin = DeepSpeedPlugin(**read_plugin(name))
    fields = plugin.deepspeed_config | {
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 10,
        "gradient_clipping": 1.0,
        "bf16": {"enabled": True},
    }
    fields.pop("train_batch_size")
    config = deepspeed.runtime.config.DeepSpeedConfig(without_auto(fields))
    assert config.zero_optimization_stage == int(name[-1])
    assert config.train_batch_size == 20


def read_plugin(name: str) -> dict[str, Any]:
    """The fields that `accelerate` has for its plugin."""
    fields = load_config_from_file(str(config_path(name))).deepspeed_config
    return {key: None if value == "auto" else value for key, value in fields.items()}


def without_auto(fields: dict[str, Any]) -> dict[str, Any]:
    """A configuration without what the loop fills in."""
    return {
        key: without_auto(value) if isinstance(value, dict) else value
        for key, value in fields.items()
        if value != "auto"
    }


def test_fsdp_is_the_second_one_and_writes_whole_checkpoints() -> None:
    config = load_config_from_file(str(config_path("fsdp2")))
    assert config.fsdp_config["fsdp_version"] == 2
    assert config.fsdp_config["fsdp_state_dict_type"] == "FULL_STATE_DICT"


def test_an_unknown_configuration_is_answered_with_the_known_ones() -> None:
    with pytest.raises(
        LisaError, match="'zero9'; expected one of ddp, fsdp2, one-gpu, zero2, zero3"
    ):
        config_path("zero9")


def test_the_environment_says_who_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "ACCELERATE_USE_FSDP"):
        monkeypatch.delenv(name, raising=False)
    assert (number_of_processes(), is_first_process(), is_sharded()) == (1, True, False)
    for name, value in {"WORLD_SIZE": "4", "RANK": "2", "ACCELERATE_USE_FSDP": "true"}.items():
        monkeypatch.setenv(name, value)
    assert (number_of_processes(), is_first_process(), is_sharded()) == (4, False, True)


@pytest.mark.parametrize(
    ("environment", "device", "expected"),
    [
        ({}, "cpu", "cpu"),
        ({}, "cuda", "cuda"),
        ({"WORLD_SIZE": "4", "LOCAL_RANK": "2"}, "cuda", "cuda:2"),
        ({"WORLD_SIZE": "4", "LOCAL_RANK": "2"}, "cpu", "cpu"),
        ({"WORLD_SIZE": "4", "ACCELERATE_USE_FSDP": "true"}, "cuda", "cpu"),
    ],
)
def test_every_process_has_a_gpu_of_its_own(
    environment: dict[str, str], device: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "ACCELERATE_USE_FSDP"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert own_device(torch.device(device)) == torch.device(expected)


def test_another_gpu_is_chosen_by_the_environment() -> None:
    with pytest.raises(LisaError, match="CUDA_VISIBLE_DEVICES=1"):
        own_device(torch.device("cuda:1"))


def launch(arguments: list[str]) -> None:
    """Two processes that share the model out, on CPUs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--config_file", config_path("fsdp2"), "--num_processes", 2]
    options += ["--mixed_precision", "no", "--main_process_port", port]
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *map(str, options), *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.skipif(sys.platform == "win32", reason="gloo between local processes")
def test_two_processes_have_the_losses_of_one_also_when_stopped(tmp_path: Path) -> None:
    """FSDP2 over gloo against one process, to 1e-4; then from the second checkpoint once more."""
    data, model = write_samples(tmp_path), write_full_size(tmp_path / "llava")
    settings = few(model, data, preset="full", learning_rate=0.01, steps=4)
    train(settings, tmp_path / "one")
    launch(command(settings, tmp_path / "two"))
    expected = losses(tmp_path / "one")
    assert len({round(entry["loss"], 3) for entry in expected}) == 4  # it learns something
    check_close(losses(tmp_path / "two"), expected)

    checkpoints = tmp_path / "two" / CHECKPOINTS
    assert (checkpoints / "checkpoint-4" / "optimizer.bin").is_file()  # FSDP's, not DDP's
    (checkpoints / "checkpoint-4" / "trainer_state.json").unlink()  # as if killed while writing
    launch(command(settings, tmp_path / "two"))
    check_close(losses(tmp_path / "two"), expected)


def check_close(found: list[dict[str, float]], expected: list[dict[str, float]]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
