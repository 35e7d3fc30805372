"""`lisa train`: what a run leaves, what it refuses, and that a killed one goes on unharmed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lisa
from helpers import parts
from helpers.lively_model import picture
from helpers.tuning import command, few, losses, write_full_size, write_samples
from lisa.checkpoints.directory import build
from lisa.errors import DataError, LisaError, OutputError
from lisa.example import Example
from lisa.training import finetune, tune
from lisa.training.finetune import (
    CHECKPOINTS,
    Wanted,
    chosen_preset,
    data_sets,
    named_answer,
    open_shares,
    pointed,
    tell,
    train,
    wanted,
)

SECONDS = 600  # after which a run counts as hanging, on a slow machine


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_samples(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_full_size(tmp_path_factory.mktemp("models") / "llava")


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return dict(build(directory, "cpu")[0].state_dict())


def moved(before: Path, after: Path) -> set[str]:
    """Names of the weights that two models do not share."""
    old, new = weights(before), weights(after)
    assert old.keys() == new.keys()
    return {name for name in old if not torch.equal(old[name], new[name])}


# What a run leaves


@pytest.fixture(scope="module")
def tuned_nano(tiny_directory: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "nano"
    train(few(tiny_directory, data, steps=3, learning_rate=0.01), out)
    return out


def test_nano_is_tuned_and_loads(tuned_nano: Path, tiny_directory: Path) -> None:
    changed = moved(tiny_directory, tuned_nano / "model")
    assert any("q_proj" in name for name in changed) and any("head" in name for name in changed)
    assert not any("tower" in name or "embed_tokens" in name for name in changed)
    segmenter = lisa.load(tuned_nano / "model", "cpu")
    assert segmenter.segment(picture(), "What is the cat?").image.size == (48, 40)


def test_the_weights_say_what_they_saw(tuned_nano: Path) -> None:
    config = json.loads((tuned_nano / "model" / "config.json").read_text())
    assert config["trained_on"] == ["noise", "reasonseg/train"]


def test_the_report_shows_losses_and_answers(tuned_nano: Path) -> None:
    page = (tuned_nano / "report.html").read_text()
    assert "reasonseg/val" in page and page.count("<svg") >= 2 and "data:image/png" in page


def test_a_finished_run_is_not_run_again(
    tuned_nano: Path, tiny_directory: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = weights(tuned_nano / "model")
    again = few(tiny_directory, data, steps=3, learning_rate=0.01)
    monkeypatch.setattr(tune, "TuneTrainer", lambda *_, **__: pytest.fail("it trains"))
    assert train(again, tuned_nano) == tuned_nano / "model"
    after = weights(tuned_nano / "model")
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_folder_holds_one_run(tuned_nano: Path, tiny_directory: Path, data: Path) -> None:
    with pytest.raises(OutputError, match="holds a run with other settings"):
        train(few(tiny_directory, data, steps=3, learning_rate=0.02), tuned_nano)


def test_factors_are_merged_into_a_model_of_full_size(
    full_size: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    original = finetune.make_task
    monkeypatch.setattr(finetune, "make_task", lambda *a: made.append(original(*a)) or made[-1])
    train(few(full_size, data, preset="paper", steps=2, learning_rate=0.01), tmp_path / "run")
    changed = moved(full_size, tmp_path / "run" / "model")
    trained = ("q_proj", "v_proj", "embed_tokens", "lm_head", "mask_decoder", "head.")
    assert all(any(part in name for name in changed) for part in trained)
    assert all(any(part in name for part in trained) for name in changed)
    loaded, processor = build(tmp_path / "run" / "model", "cpu")
    batch = processor.encode(
        [
            Example(
                picture(),
                "What is the cat?",
                "It is left.",
                phrase="cat",
                masks=np.ones((1, 40, 48), bool),
            )
        ]
    )
    with torch.no_grad():
        ours, theirs = loaded(batch).logits, made[0].eval().model(batch).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_language_model_in_four_bits_is_tuned(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the arithmetic of 16 bits; what is written is the source in its own format."""
    pytest.importorskip("bitsandbytes")
    wide = parts.TEXT | {"hidden_size": 64, "head_dim": 32}  # on CPUs rows of 64 are packed
    monkeypatch.setitem(parts.VLMS, "llava", parts.VLMS["llava"] | {"text_config": wide})
    source = write_full_size(tmp_path / "wide")
    settings = few(source, data, preset="lora-16gb", steps=2, learning_rate=0.05, dtype=None)
    train(settings, tmp_path / "run")
    changed = moved(source, tmp_path / "run" / "model")
    assert any("q_proj" in name for name in changed)
    assert not any("k_proj" in name and "language_model" in name for name in changed)


# Killed


@pytest.mark.skipif(os.name != "posix", reason="kills as Unix does")
def test_a_run_that_is_killed_goes_on_with_the_same_losses(
    full_size: Path, data: Path, tmp_path: Path
) -> None:
    """With dropout, so that random numbers go on where they were, too."""
    settings = few(full_size, data, preset="paper", learning_rate=0.01)
    train(settings, tmp_path / "whole")
    run = subprocess.Popen([sys.executable, *command(settings, tmp_path / "killed")])
    try:
        wait_for(tmp_path / "killed" / CHECKPOINTS / "checkpoint-2" / "trainer_state.json", run)
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert not (tmp_path / "killed" / "model").exists()
    train(settings, tmp_path / "killed")
    whole, resumed = losses(tmp_path / "whole"), losses(tmp_path / "killed")
    assert len(whole) == len(resumed) == 6
    for expected, entry in zip(whole, resumed, strict=True):
        assert entry == pytest.approx(expected, abs=1e-5)


def wait_for(path: Path, run: subprocess.Popen[bytes]) -> None:
    """Until a file is there."""
    for _ in range(SECONDS * 10):
        if path.exists():
            return
        assert run.poll() is None, "the run ended before it was killed"
        time.sleep(0.1)
    pytest.fail(f"no {path} after {SECONDS} seconds")


# What is asked for


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("reasonseg", Wanted("reasonseg", "train", None)),
        ("reasonseg/val", Wanted("reasonseg", "val", None)),
        ("reasonseg=2.5", Wanted("reasonseg", "train", 2.5)),
        ("refcoco/testA=3", Wanted("refcoco", "testA", 3.0)),
        ("llava-instruct", Wanted("llava-instruct", None, None)),
    ],
)
def test_data_sets_are_named_with_split_and_weight(text: str, expected: Wanted) -> None:
    assert wanted(text) == expected


def test_the_data_sets_of_a_preset_are_those_that_are_there(full_size: Path, data: Path) -> None:
    preset = chosen_preset(few(full_size, data, preset="paper"))
    assert data_sets(few(full_size, data, datasets=()), preset) == ["reasonseg"]
    with pytest.raises(DataError, match=r"holds none of ade20k, coco-stuff, .* --dataset"):
        data_sets(few(full_size, full_size, datasets=()), preset)


def test_a_weight_is_a_number() -> None:
    with pytest.raises(DataError, match="weight in 'reasonseg=much'"):
        wanted("reasonseg=much")


def test_weights_of_a_person_go_before_those_of_the_paper(data: Path) -> None:
    shares, _ = open_shares(data, ["reasonseg/train=5", "reasonseg/val"])
    assert {name: share.weight for name, share in shares.items()} == {
        "reasonseg/train": 5.0,
        "reasonseg/val": 0.5,
    }


def test_what_cannot_be_read_is_left_out_where_told_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_samples(tmp_path) / "train"
    (sample, *_) = sorted(folder.glob("*.json"))
    sample.write_text("{")
    with pytest.raises(DataError, match=re.escape(sample.name)):
        open_shares(folder.parent, ["reasonseg"])
    shares, _ = open_shares(folder.parent, ["reasonseg"], skip_bad=True)
    assert len(shares["reasonseg/train"].dataset.photos) == len(list(folder.glob("*.jpg"))) - 1
    tell(shares)
    assert "skipped 1 of reasonseg/train in all" in capsys.readouterr().err


def test_presets_are_for_kinds_of_models(tiny_directory: Path, full_size: Path, data: Path) -> None:
    assert not chosen_preset(few(tiny_directory, data)).full_size
    assert chosen_preset(few(full_size, data, dtype=None)).quantize == "4bit"
    with pytest.raises(LisaError, match="'paper' is for models of full size"):
        chosen_preset(few(tiny_directory, data, preset="paper"))
    with pytest.raises(LisaError, match="'nano' is for lisa-nano"):
        chosen_preset(few(full_size, data, preset="nano"))


@pytest.mark.parametrize("change", [{"steps": 0}, {"micro": 0}, {"learning_rate": -1.0}])
def test_numbers_that_make_no_sense_are_refused(
    tiny_directory: Path, data: Path, change: dict[str, Any]
) -> None:
    with pytest.raises(LisaError, match="expected more than 0"):
        chosen_preset(few(tiny_directory, data, **change))


# Examples


def test_nano_answers_with_names() -> None:
    random = np.random.default_rng(1)
    masks = np.ones((1, 40, 48), bool)
    known = Example(picture(), "Where?", "Sure, it is [SEG].", masks, phrase="cat")
    assert named_answer(known, random).answer == "The cat."
    absent = Example(picture(), "Where?", None, masks[:0], phrase="cat")
    assert "no cat" in str(named_answer(absent, random).answer)
    written = Example(picture(), "Where?", "On the mat.", masks, phrase="cat")
    assert named_answer(written, random).answer == "On the mat."


def test_a_target_without_a_name_is_called_by_its_question() -> None:
    random = np.random.default_rng(0)
    masks = np.ones((1, 40, 48), bool)
    assert pointed(Example(picture(), "What is it?", "[SEG].", masks), random).phrase
    assert not pointed(Example(picture(), "What is it?", "No.", masks[:0]), random).phrase
    assert pointed(Example(picture(), "Q?", "[SEG].", masks, phrase="cat"), random).phrase == "cat"
