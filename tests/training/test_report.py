"""The page at the end of a run."""

import numpy as np
import pytest

from helpers.lively_model import picture
from lisa.example import Example
from lisa.masks import Mask
from lisa.predict import Segmenter
from lisa.result import Result
from lisa.training.report import QUESTIONS, Answered, answer_some, iou, tune_page

LOG = [
    {"step": step, "loss": 4.0 / step, "loss_text": 3.0 / step, "learning_rate": 0.1}
    for step in (1, 2, 3)
]


def half(answer: str = "The cat.") -> Answered:
    """A target on the left, an answer that covers everything."""
    mask = np.zeros((40, 48), bool)
    mask[:, :24] = True
    example = Example(picture(), "Where is <the> cat?", None, mask[np.newaxis], phrase="cat")
    found = Mask(np.ones((40, 48), bool), "cat", 0.9)
    result = Result(example.image, example.question, answer, (found,), "", "tuned", {})
    return Answered(example, result, iou(result.mask, example))


def test_an_iou_counts_what_may_be_counted() -> None:
    answered = half()
    assert answered.iou == pytest.approx(0.5)
    ignore = np.zeros((40, 48), bool)
    ignore[:, 24:] = True
    example = answered.example
    known = Example(example.image, "Q?", None, example.masks, ignore=ignore)
    assert iou(np.ones((40, 48), bool), known) == pytest.approx(1.0)
    absent = Example(example.image, "Q?", None, example.masks[:0])
    assert iou(np.zeros((40, 48), bool), absent) == 1.0
    assert iou(np.ones((40, 48), bool), absent) == 0.0


def test_the_page_stands_alone_and_shows_curves_and_answers() -> None:
    page = tune_page(["own:<mine>/train"], LOG, "own/val", [half()], [half("No.")])
    assert page.count("<svg") == 3 and "loss_text: 3 to 1" in page
    assert "1 questions of own/val" in page and "before 0.500, after 0.500" in page
    assert "own:&lt;mine&gt;/train" in page and "http" not in page.replace("http://www.w3.org", "")
    assert 'src="data:image/png;base64,' in page


def test_a_page_without_answers_or_updates() -> None:
    page = tune_page([], [], "nothing", [])
    assert "<svg" not in page and "<img" not in page


@pytest.mark.parametrize("count", [1, 3, 50])
def test_questions_are_spread_over_the_data(segmenter: Segmenter, count: int) -> None:
    masks = np.ones((1, 40, 48), bool)
    examples = [Example(picture(), f"question {n}", None, masks) for n in range(count)]
    asked = [int(each.example.question.split()[1]) for each in answer_some(segmenter, examples)]
    assert len(asked) == min(QUESTIONS, count) == len(set(asked))
    assert asked[0] == 0 and asked[-1] == count - 1


def test_unknown_masks_are_not_asked_for(segmenter: Segmenter) -> None:
    examples = [Example(picture(), "What is it?")]
    assert answer_some(segmenter, examples) == []
