"""Calibration: scores come to mean IoU, keep their order, and cost no weight."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest

from helpers.training_data import write_training_data
from lisa.checkpoints.directory import build
from lisa.errors import DataError
from lisa.example import Example
from lisa.masks import Mask
from lisa.model.config import LisaConfig
from lisa.nano.data.knowledge import is_held_out, things
from lisa.nano.data.photo_questions import Asked
from lisa.nano.data.sources import Photos
from lisa.nano.model.segmenter import NanoAnswering
from lisa.nano.training import calibration as module
from lisa.nano.training import joint
from lisa.nano.training.calibration import (
    asked_answers,
    calibrate,
    calibrate_directory,
    calibrate_once,
    fit_logits,
    held_out_answers,
    rescaled,
    unseen_questions,
)
from lisa.result import Result

SIDE = 20


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_data(tmp_path_factory.mktemp("data"))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


# The fit


@pytest.mark.parametrize(("scale", "bias"), [(0.5, -1.0), (2.0, 0.3), (1.0, 0.0)])
def test_what_made_the_scores_is_found(scale: float, bias: float) -> None:
    logits = np.random.default_rng(0).normal(0, 1.5, 400)
    found = fit_logits(sigmoid(logits), sigmoid(scale * logits + bias))
    assert found == pytest.approx((scale, bias), abs=0.03)
    np.testing.assert_allclose(
        rescaled(sigmoid(logits), *found), sigmoid(scale * logits + bias), atol=0.02
    )


def test_the_order_of_scores_is_kept_even_where_they_are_wrong() -> None:
    scores = np.linspace(0.05, 0.95, 50)
    scale, bias = fit_logits(scores, 1 - scores)
    assert scale > 0
    assert (np.diff(rescaled(scores, scale, bias)) > 0).all()


@pytest.mark.parametrize("score", [0.0, 0.7, 1.0])
def test_scores_that_are_all_alike_become_the_mean_iou(score: float) -> None:
    scale, bias = fit_logits(np.full(30, score), np.linspace(0.1, 0.5, 30))
    assert np.isfinite([scale, bias]).all()
    assert rescaled(np.full(1, score), scale, bias) == pytest.approx([0.3], abs=0.01)


# A segmenter


class Boaster:
    """Finds the left half of every picture, and is too sure of it."""

    name = "boaster"

    def __init__(self, score: float = 0.95, silent: bool = False) -> None:
        self.processor = SimpleNamespace(config=LisaConfig.tiny(50, 50))
        self.answering = NanoAnswering(None, self.processor)  # type: ignore[arg-type]
        self.score, self.silent = score, silent

    def segment(self, image: PIL.Image.Image, question: str, answer: str | None = None) -> Result:
        mask = np.zeros((image.height, image.width), bool)
        mask[:, : image.width // 2] = True
        masks = () if self.silent else (Mask(mask, "", self.score),)
        return Result(image, question, "It is there.", masks)


def examples(count: int) -> list[Example]:
    """The target is the upper half: IoU 1/3."""
    mask = np.zeros((1, SIDE, SIDE), bool)
    mask[0, : SIDE // 2] = True
    return [Example(PIL.Image.new("RGB", (SIDE, SIDE)), "Where?", masks=mask)] * count


def test_a_boaster_becomes_modest() -> None:
    boaster = Boaster()
    found = calibrate(boaster, examples(20))  # type: ignore[arg-type]
    assert found["answers"] == 20
    assert found["error_before"] == pytest.approx(0.95 - 1 / 3, abs=1e-3)
    assert found["error_after"] < 0.02
    config = boaster.processor.config
    assert (config.score_scale, config.score_bias) == (found["score_scale"], found["score_bias"])


def test_calibrating_again_adds_to_what_is_there() -> None:
    boaster = Boaster()
    calibrate(boaster, examples(20))  # type: ignore[arg-type]
    config = boaster.processor.config
    scale, bias = config.score_scale, config.score_bias
    boaster.score = float(sigmoid(np.array(scale * np.log(0.95 / 0.05) + bias)))
    calibrate(boaster, examples(20))  # type: ignore[arg-type]
    score = sigmoid(np.array(config.score_scale * np.log(0.95 / 0.05) + config.score_bias))
    assert float(score) == pytest.approx(1 / 3, abs=0.02)


def test_too_few_masks_change_nothing() -> None:
    silent = Boaster(silent=True)
    found = calibrate(silent, examples(9))  # type: ignore[arg-type]
    assert (found["score_scale"], found["score_bias"], found["answers"]) == (1.0, 0.0, 0)


def test_a_directory_that_cannot_be_calibrated_is_named_and_left_alone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "load", lambda *parts: Boaster(silent=True))
    with pytest.raises(DataError, match=r"0 of the answers of '.*' have a mask; expected at least"):
        calibrate_directory(tmp_path, data)
    assert list(tmp_path.iterdir()) == []


def test_a_second_call_reads_what_the_first_one_found(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    first, second = Boaster(), Boaster(silent=True)
    calibrate_once(first, data, True, path)  # type: ignore[arg-type]
    calibrate_once(second, data, True, path)  # type: ignore[arg-type]
    assert first.processor.config.score_bias == second.processor.config.score_bias != 0


# Its questions


@pytest.mark.parametrize("reasoning", [True, False])
def test_photographs_and_questions_are_held_out(data: Path, reasoning: bool) -> None:
    trained = {
        np.asarray(scene.image).tobytes()
        for folder in Photos(data).folders.values()
        for scene in (folder[n] for n in range(len(folder)))
    }
    asked = held_out_answers(data, reasoning)
    implicit = {text for thing in things().values() for _, text in thing.questions}
    used = {example.question for example in asked} & implicit
    assert asked and not [e for e in asked if e.image.tobytes() in trained]
    assert all(example.masks is not None for example in asked)
    assert bool(used) == reasoning
    assert all(map(is_held_out, used))
    assert len(held_out_answers(data, reasoning, count=2)) == 2


def test_what_was_asked_about_a_photograph_counts_where_questions_may_be_read(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, folder = next(iter(Photos(data).folders.items()))
    scene, file = folder[0], folder.images[0]["file_name"]
    there = Asked(("what is meant?", "in other words"), scene.names[0], False)
    gone = Asked(("and what is not there?",), "zeppelin", True)
    wrong = Asked(("annotated otherwise",), scene.names[0], True)
    kept = {(source, True): {file: (there, gone, wrong)}}
    monkeypatch.setattr(joint, "asked_about", lambda *key: kept.get(key, {}))
    asked = asked_answers(data)
    assert [e.question for e in asked] == ["what is meant?", "and what is not there?"]
    masks = [example.masks for example in asked]
    assert masks[0] is not None and masks[1] is not None
    assert np.array_equal(masks[0][0], scene.union(scene.names[0])) and not masks[1].any()
    more = unseen_questions(data, reasoning=True)
    assert len(more) == len(held_out_answers(data, True)) + len(asked)
    assert len(unseen_questions(data, False)) == len(held_out_answers(data, False))


# A directory


def test_a_directory_gets_a_new_configuration_and_the_same_weights(
    data: Path, tiny_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FEWEST", 1)
    model = shutil.copytree(tiny_directory, tmp_path / "model")
    weights = (model / "model.safetensors").read_bytes()
    found = calibrate_directory(model, data, "cpu")
    assert (model / "model.safetensors").read_bytes() == weights
    fields = json.loads((model / "config.json").read_text())
    assert fields["score_scale"] == found["score_scale"] != 1
    assert build(model, "cpu")[1].config.score_bias == found["score_bias"]
