"""The page at the end of `lisa train`: answers, with and without those of the model before."""

from dataclasses import replace

import numpy as np
import PIL.Image
import pytest

from lisa.example import Example
from lisa.predict import Segmenter
from lisa.training.tune_report import Answered, answer_some, draw_answers, iou, tune_page


@pytest.fixture
def answers(segmenter: Segmenter) -> list[Answered]:
    mask = np.zeros((1, 20, 30), bool)
    mask[:, 5:10, 5:10] = True
    image = PIL.Image.new("RGB", (30, 20), "grey")
    example = Example(image, "where?", masks=mask, name="a")
    unknown = replace(example, masks=None)
    return answer_some(segmenter, [example, unknown, example])


def test_questions_without_known_masks_are_not_asked(answers: list[Answered]) -> None:
    assert [each.example.question for each in answers] == ["where?"] * 2


def test_the_page_compares_before_and_after(answers: list[Answered]) -> None:
    before = [replace(each, iou=0.25) for each in answers]
    after = [replace(each, iou=0.75) for each in answers]
    page = tune_page(["own:mine/train"], [], "own/val", after, before)
    assert "before 0.250, after 0.750" in page and "own/val" in page
    alone = tune_page(["own:mine/train"], [], "own/val", after)
    assert "before" not in alone and "0.750" in alone


def test_a_page_without_answers_is_a_page() -> None:
    assert "Mean IoU unknown" in tune_page([], [], "own/val", [])


def test_the_sheet_has_a_column_for_each_model(answers: list[Answered]) -> None:
    alone, both = draw_answers(answers), draw_answers(answers, answers)
    assert alone.height == both.height and both.width * 2 == alone.width * 3


def test_what_is_ignored_counts_for_nothing() -> None:
    target = np.zeros((1, 4, 4), bool)
    target[0, 0] = True
    ignore = np.zeros((4, 4), bool)
    ignore[0, :2] = True
    image = PIL.Image.new("RGB", (4, 4))
    example = Example(image, "where?", masks=target, ignore=ignore)
    assert iou(target[0] & ~ignore, example) == 1.0
    assert iou(np.zeros((4, 4), bool), replace(example, masks=target[:0])) == 1.0
