"""Evidence of a tiny model: what is said is what the language model would say."""

import pytest
import torch

from lisa.example import Example
from lisa.model.evidence import collect
from lisa.model.interfaces import IGNORE_LABEL
from lisa.model.lisa import LisaModel
from lisa.model.processor import LisaProcessor
from lisa.model.recall import SEEN
from lively_model import picture, recalling_model

NAMES = ["cat", "cup", "umbrella", "dog"]
QUESTIONS = ["keeps the rain off", "what purrs when you stroke it for a while?"]


@pytest.fixture(scope="module")
def built() -> tuple[LisaModel, LisaProcessor]:
    return recalling_model(NAMES)


@torch.no_grad()
def read_whole(built: tuple[LisaModel, LisaProcessor], question: str, answer: str) -> float:
    """The log-probability of an answer, by the road that training takes."""
    model, processor = built
    batch = processor.encode([Example(picture(), question, answer)])
    labels = batch.labels[batch.labels != IGNORE_LABEL]
    chances = model(batch).logits.log_softmax(-1)
    said = processor.answer_ids(answer)[:-1]
    return float(chances.gather(1, labels[:, None])[: len(said)].sum())


def test_what_is_said_of_a_name_is_its_likelihood_as_an_answer(
    built: tuple[LisaModel, LisaProcessor],
) -> None:
    model, processor = built
    images = model.encode_images(processor.encode_pictures([picture(), picture()]))
    seen = torch.zeros(2, len(NAMES), SEEN)
    seen[:, :, 1] = -torch.arange(4.0)
    rows, answers = torch.tensor([0, 1]), [f"The {name}." for name in NAMES]
    found = collect(model.vlm, processor, images.prefix, rows, QUESTIONS, seen, answers)
    assert found.said.shape == (2, 4) and found.recalled.shape == (2, len(NAMES) + 1)
    for row, question in enumerate(QUESTIONS):
        for column, answer in enumerate(answers):
            alone = read_whole(built, question, answer)
            assert float(found.said[row, column]) == pytest.approx(alone, abs=1e-3)
