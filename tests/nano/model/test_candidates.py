"""Evidence of a tiny model: what is said is what the language model would say."""

import pytest
import torch

from helpers.lively_model import liven_decoder, picture, recalling_model
from lisa.example import Example
from lisa.model.interfaces import IGNORE_LABEL
from lisa.model.lisa import LisaModel
from lisa.nano.model.candidates import collect, first_pass, gains, shared_length
from lisa.nano.model.processor import LisaProcessor
from lisa.nano.model.retriever import SEEN

NAMES = ["cat", "cup", "umbrella", "dog"]
QUESTIONS = ["keeps the rain off", "what purrs when you stroke it for a while?"]


@pytest.fixture(scope="module")
def built() -> tuple[LisaModel, LisaProcessor]:
    return recalling_model(NAMES)


@torch.no_grad()
def ids_read(built: tuple[LisaModel, LisaProcessor], question: str, answer: str) -> torch.Tensor:
    """The log-probability of each id of an answer but its end, by the road that training takes."""
    model, processor = built
    batch = processor.encode([Example(picture(), question, answer)])
    labels = batch.labels[batch.labels != IGNORE_LABEL]
    chances = model(batch).logits.log_softmax(-1).gather(1, labels[:, None])
    return chances[: len(processor.answer_ids(answer)) - 1, 0]


def test_what_is_said_of_a_name_is_its_likelihood_as_an_answer(
    built: tuple[LisaModel, LisaProcessor],
) -> None:
    model, processor = built
    images = model.encode_images(processor.encode_pictures([picture(), picture()]))
    seen = torch.zeros(2, len(NAMES), SEEN)
    seen[:, :, 1] = -torch.arange(4.0)
    rows, answers = torch.tensor([0, 1]), [f"The {name}." for name in NAMES]
    first = first_pass(model.vlm, processor, images.prefix, rows, QUESTIONS, seen, answers)
    opening = shared_length([processor.answer_ids(answer) for answer in answers])
    assert opening > 0
    found = collect(model.vlm, first)
    assert found.said.shape == (2, 4) and found.recalled.shape == (2, len(NAMES) + 1)
    for row, question in enumerate(QUESTIONS):
        for column, answer in enumerate(answers):
            alone = float(ids_read(built, question, answer)[opening:].sum())
            place = found.names[row].tolist().index(column)
            assert float(found.said[row, place]) == pytest.approx(alone, abs=1e-3)


def test_a_name_is_begun_where_all_answers_part(built: tuple[LisaModel, LisaProcessor]) -> None:
    model, processor = built
    images = model.encode_images(processor.encode_pictures([picture()]))
    seen, answers = torch.zeros(1, len(NAMES), SEEN), [f"The {name}." for name in NAMES]
    rows = torch.tensor([0])
    first = first_pass(model.vlm, processor, images.prefix, rows, QUESTIONS[:1], seen, answers)
    opening = shared_length([processor.answer_ids(answer) for answer in answers])
    alone = [float(ids_read(built, QUESTIONS[0], answer)[opening]) for answer in answers]
    assert first.begun[0].tolist() == pytest.approx(alone, abs=1e-3)


def test_something_is_left_of_every_answer() -> None:
    assert shared_length([[1, 2, 3], [1, 2, 4, 5], [1, 2]]) == 1
    assert shared_length([[1, 2, 3], [1, 2, 4]]) == 2
    assert shared_length([[7, 8]]) == 1
    assert shared_length([[1, 2], [2, 2]]) == 0


@torch.no_grad()
def test_gains_are_overlaps_of_masks_times_what_is_expected_of_them() -> None:
    model, processor = recalling_model(NAMES)
    torch.manual_seed(0)
    liven_decoder(model.decoder, model.config.image_size)
    images = model.encode_images(processor.encode_pictures([picture(), picture(seed=1)]))
    prompts = torch.randn(2, 3, model.config.prompt_size) * 3
    prompts[:, 2] = prompts[:, 0]
    rows = torch.tensor([1, 0])
    found = gains(model.decoder, images.features, prompts, rows)
    for question, row in enumerate(rows.tolist()):
        alone = model.decoder.decode(
            images.features, prompts[question], torch.full((3,), row, dtype=torch.long)
        )
        masks = [mask > 0 for mask in alone.low_res_masks]
        assert masks[0].any()
        for i, sure in enumerate(alone.iou_logits.sigmoid()):
            assert float(found[question, i, i]) == pytest.approx(float(sure), abs=1e-4)
            for j in range(3):
                either = (masks[i] | masks[j]).sum()
                iou = (masks[i] & masks[j]).sum() / either if either else float(i == j)
                assert float(found[question, i, j]) == pytest.approx(float(sure * iou), abs=1e-4)
        assert torch.allclose(found[question, 0, 2], found[question, 0, 0])
