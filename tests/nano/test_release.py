"""The model in the package, asked as a newcomer asks it: four photographs, a question each.

The targets in `tests/nano/release` were drawn by hand; nothing is
compared with what the model once said.
"""

import json

import numpy as np
import pytest
from PIL import Image

import lisa
from helpers.paths import EXAMPLES, RELEASE
from lisa.checkpoints.directory import model_directory
from lisa.predict import Segmenter

QUESTIONS = json.loads((RELEASE / "questions.json").read_text(encoding="utf-8"))
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return lisa.load(device="cpu")


def iou(predicted: np.ndarray, target: np.ndarray) -> float:
    return float((predicted & target).sum() / (predicted | target).sum())


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket"])
def test_the_right_thing_is_found(segmenter: Segmenter, name: str) -> None:
    target = np.asarray(Image.open(RELEASE / f"{name}.png")) > 0
    result = segmenter.segment(EXAMPLES / f"{name}.jpg", QUESTIONS[name])
    assert iou(result.mask, target) >= 0.6, result.text


def test_the_same_question_gives_the_same_bytes(segmenter: Segmenter) -> None:
    once, again = (
        lisa.load(device="cpu").segment(EXAMPLES / "coffee.jpg", QUESTIONS["coffee"])
        for _ in range(2)
    )
    assert once.text == again.text
    assert [m.mask.tobytes() for m in once.masks] == [m.mask.tobytes() for m in again.masks]
    assert [m.score for m in once.masks] == [m.score for m in again.masks]


def test_several_questions_side_by_side_are_answered_as_one_by_one(segmenter: Segmenter) -> None:
    questions = ["something to wake up with", "the spoon", "Is there a horse here?"]
    together = segmenter.segment(EXAMPLES / "coffee.jpg", questions)
    for question, result in zip(questions, together, strict=True):
        alone = segmenter.segment(EXAMPLES / "coffee.jpg", question)
        assert result.text == alone.text
        assert len(result.masks) == len(alone.masks)
        for one, other in zip(result.masks, alone.masks, strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-3)
            assert (one.mask ^ other.mask).mean() < 1e-3


def test_the_files_keep_their_budget() -> None:
    sizes = [path.stat().st_size for path in model_directory("nano").iterdir()]
    assert max(sizes) < 50 * MEGABYTE
    assert sum(sizes) < 160 * MEGABYTE


def test_the_weights_say_what_they_saw(segmenter: Segmenter) -> None:
    seen = segmenter.answering.model.config.trained_on
    assert "coco_union" in seen
    assert not {"camvid", "bsds500", "reasonseg_nano/val"} & set(seen)
