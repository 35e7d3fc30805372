"""The stage "mind" on a tiny model: what it trains, what it is asked, what it never sees."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

from helpers.tiny_model import tiny_model
from helpers.training_data import COLOURS, IMPLICIT, SIDE, content, learn, write_training_data
from lisa.data.prompts import NAME_QUESTIONS
from lisa.data.reasonseg import ReasonSeg
from lisa.data.regions import Region, Scene
from lisa.data.stream import Stream
from lisa.errors import DataError
from lisa.example import Example
from lisa.model.answers import is_present
from lisa.model.interfaces import Batch
from lisa.model.lisa import LisaModel
from lisa.nano.data.knowledge import is_held_out, taught, things
from lisa.nano.data.photo_questions import Asked
from lisa.nano.data.photos import LabelledPhotos
from lisa.nano.data.sources import Photos
from lisa.nano.data.text_pairs import defined
from lisa.nano.model.processor import LisaProcessor
from lisa.nano.training import joint
from lisa.nano.training.joint import (
    OPENING,
    MindTask,
    all_names,
    asked_photos,
    asked_sample,
    everyday_names,
    held_out_questions,
    iou_by_question,
    labelled_sample,
    learn_to_name,
    mind_stream,
    named_states,
    reasoning_sample,
    tune_stream,
)
from lisa.nano.training.losses import mask_loss, prompt_loss
from lisa.training.paper import answer_loss

SAMPLES = 200  # to look through for questions that must, or must not, be there
QUESTIONS = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def built() -> tuple[LisaModel, LisaProcessor]:
    return tiny_model()


def stream(data: Path, reasoning: bool = True, seed: int = 0) -> Stream:
    make = mind_stream(data, Photos(data), SIDE, QUESTIONS, reasoning)
    return Stream(make, SAMPLES, seed)


def repeated_batch(data: Path, processor: LisaProcessor, pictures: int = 3) -> Batch:
    samples = stream(data)
    return processor.encode([example for i in range(pictures) for example in samples[i]])


def names_of(tensors: dict[str, Tensor], *marks: str) -> set[str]:
    return {name for name in tensors if any(mark in name for mark in marks)}


# The task


def test_ten_steps_on_one_batch_lower_the_loss(
    built: tuple[LisaModel, LisaProcessor], data: Path
) -> None:
    model, processor = built
    losses = learn(MindTask(model), repeated_batch(data, processor), 10, 3e-3)
    assert losses[-1] < 0.95 * losses[0]


def test_language_tower_and_name_prompts_stay_bitwise_what_they_were(
    built: tuple[LisaModel, LisaProcessor], data: Path
) -> None:
    model, processor = built
    task = MindTask(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    task.train()
    learn(task, repeated_batch(data, processor), 2, 3e-3)
    after = model.state_dict()
    moved = {name for name in after if not after[name].equal(before[name])}
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert moved <= trained
    frozen = names_of(after, "base_layer", "embed_tokens", "decoder.tower.", "name_prompt", "_keys")
    assert len(frozen) > 100 and not moved & frozen
    assert names_of(after, "lora_B", "seg_output", "head.layers", "hypernetwork") <= moved


def test_state_dict_holds_only_what_is_trained(built: tuple[LisaModel, LisaProcessor]) -> None:
    task = MindTask(built[0])
    state = task.state_dict()
    assert state.keys() == {name for name, value in task.named_parameters() if value.requires_grad}
    assert names_of(state, "lora_A") and names_of(state, "seg_input")
    assert not names_of(state, "base_layer", "tower", "name_prompt", "embed_tokens")


def test_the_decoder_learns_more_slowly(built: tuple[LisaModel, LisaProcessor]) -> None:
    task = MindTask(built[0], decoder_rate=0.25)
    rates = {
        id(parameter): group["lr"]
        for group in task.parameter_groups(4e-3)
        for parameter in group["params"]  # type: ignore[attr-defined]
    }
    trained = {name: p for name, p in task.named_parameters() if p.requires_grad}
    assert len(rates) == len(trained)
    for name, parameter in trained.items():
        assert rates[id(parameter)] == (1e-3 if "model.decoder." in name else 4e-3)


def test_losses_are_those_of_the_answer_the_prompts_and_the_known_masks(
    built: tuple[LisaModel, LisaProcessor],
) -> None:
    model, processor = built
    task = MindTask(model)
    batch = processor.encode(kinds_of_examples())
    with torch.no_grad():
        actual = task(batch)
        output = model(batch)
        taught = model.phrase_prompts(batch.phrase_ids)
    assert batch.labels is not None and batch.masks is not None
    assert len(output.seg_prompts) == 2  # the cat and the unseen dog; no cup
    expected = {"text": answer_loss(output.logits, batch.labels)}
    expected["prompt"] = prompt_loss(output.seg_prompts, taught[[0, 2]])
    expected |= mask_loss(output.masks.select(torch.tensor([0])), batch.masks[[0]], task.weights)
    assert {k: v.item() for k, v in actual.items()} == pytest.approx(
        {k: v.item() for k, v in expected.items()}, rel=1e-5
    )


def kinds_of_examples() -> list[Example]:
    """About one picture: a present target, an absent one, one of unknown place, and mere talk."""
    picture = PIL.Image.new("RGB", (SIDE, SIDE), "gray")
    mask = np.zeros((SIDE, SIDE), bool)
    mask[:30, :20] = True
    cat = Example(picture, "Where is the cat?", "The cat.", mask[None], phrase="cat")
    nothing = np.zeros((0, SIDE, SIDE), bool)
    cup = replace(cat, question="a cup", answer="There is no cup.", masks=nothing, phrase="cup")
    dog = replace(cat, question="Who barks?", answer="The dog.", masks=None, phrase="dog")
    talk = Example(picture, "What can you see?", "A cat.")
    return [cat, cup, dog, talk]


@pytest.mark.parametrize(
    ("kept", "parts"),
    [
        ([1], {"text", "prompt"}),
        ([2], {"text", "prompt"}),
        ([3], {"text"}),
        ([1, 3], {"text", "prompt"}),
    ],
    ids=["absent", "unknown place", "talk", "absent and talk"],
)
def test_a_batch_without_a_mask_has_finite_losses(
    built: tuple[LisaModel, LisaProcessor], kept: list[int], parts: set[str]
) -> None:
    model, processor = built
    examples = kinds_of_examples()
    losses = MindTask(model)(processor.encode([examples[n] for n in kept]))
    total = sum(losses.values(), torch.zeros(()))
    total.backward()
    assert losses.keys() == parts
    assert torch.isfinite(total)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


# Names without pictures


def test_the_head_learns_names_and_nothing_else_moves(
    built: tuple[LisaModel, LisaProcessor],
) -> None:
    model, processor = built
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = learn_to_name(model, processor, steps=1)
    assert learn_to_name(model, processor, steps=15) < 0.9 * first
    after = model.state_dict()
    moved = {name for name in after if not after[name].equal(before[name])}
    assert moved == {name for name in after if name.startswith("head.")}


def test_a_named_state_is_the_one_that_predicts_seg(
    built: tuple[LisaModel, LisaProcessor],
) -> None:
    model, processor = built
    phrases = ["cup", "three-legged stool"]  # of different lengths, so that one is padded
    states = named_states(model, processor, phrases)
    for phrase, state in zip(phrases, states, strict=True):
        opening = processor.question_ids(phrase)[-OPENING:]
        spoken = [*opening, *processor.answer_ids(f"The {phrase}. [SEG]")]
        where = spoken.index(model.config.seg_token_id)
        with torch.no_grad():
            hidden = model.vlm.language.model(
                inputs_embeds=model.vlm.embed(torch.tensor([spoken]))
            ).last_hidden_state[0]
        torch.testing.assert_close(state, hidden[where - 1], atol=1e-5, rtol=1e-4)


def test_names_to_learn_are_names_and_synonyms_but_no_question() -> None:
    names = all_names()
    assert {"cat", "feline", "cup"} <= names
    assert not names & implicit_questions()


# What it is asked


def test_the_same_seed_and_number_give_the_same_sample(data: Path) -> None:
    first, second, other = stream(data), stream(data), stream(data, seed=1)
    for index in (5, 0, 3):
        assert [*map(content, first[index])] == [*map(content, second[index])]
    assert [*map(content, first[5])] != [*map(content, other[5])]


def questions(data: Path, reasoning: bool) -> set[str]:
    samples = stream(data, reasoning)
    return {example.question for index in range(SAMPLES) for example in samples[index]}


def implicit_questions() -> set[str]:
    known = {text for thing in things().values() for _, text in thing.questions}
    return known | set(IMPLICIT["train239"])


def test_with_reasoning_questions_of_each_origin_are_asked(data: Path) -> None:
    asked = questions(data, reasoning=True)
    assert set(IMPLICIT["train239"]) <= asked
    assert len(asked & implicit_questions()) > 10
    assert asked & {text.format("banana") for text in NAME_QUESTIONS}  # a labelled photo


def test_no_held_out_question_is_asked(data: Path) -> None:
    known = {text for thing in taught().values() for _, text in thing.questions}
    held_out = {text for thing in things().values() for _, text in thing.questions} - known
    of_names = [text for name in COLOURS for _, text in things()[name].questions]
    assert held_out & set(of_names)  # there are some that could be asked
    assert not questions(data, reasoning=True) & held_out


def test_without_reasoning_no_implicit_question_is_asked(data: Path) -> None:
    asked = questions(data, reasoning=False)
    assert len(asked) > 20
    assert not asked & implicit_questions()


def test_without_reasoning_its_samples_need_not_be_there(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "photos", tmp_path / "photos")
    assert stream(tmp_path, reasoning=False)[0]
    with pytest.raises(DataError, match="train239"):
        stream(tmp_path, reasoning=True)


def test_now_and_then_an_answer_only_points(data: Path) -> None:
    samples = stream(data)
    asked = [example for index in range(SAMPLES) for example in samples[index]]
    silent = [example for example in asked if example.answer == ""]
    assert 0.02 < len(silent) / len(asked) < 0.2
    assert all(is_present(example) for example in silent)
    spoken = [example for example in asked if example.answer]
    assert any(example.phrase and not is_present(example) for example in spoken)


def test_tuning_sees_the_samples_with_a_target_and_nothing_else(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = ReasonSeg.__getitem__

    def first_is_absent(samples: ReasonSeg, index: int) -> Example:
        sample = every(samples, index)
        return replace(sample, masks=np.zeros((0, SIDE, SIDE), bool)) if index == 0 else sample

    monkeypatch.setattr(ReasonSeg, "__getitem__", first_is_absent)
    made = Stream(tune_stream(data, SIDE), SAMPLES, 0)
    asked = [example for index in range(20) for example in made[index]]
    assert {example.question for example in asked} == {IMPLICIT["train239"][1]}
    assert all(is_present(example) for example in asked)


def test_tuning_without_a_target_is_an_error(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReasonSeg, "__len__", lambda self: 0)
    with pytest.raises(DataError, match=r"no sample of .*train239' has a target"):
        tune_stream(data, SIDE)


def test_a_reasoning_sample_asks_every_wording_and_the_name(data: Path) -> None:
    samples = ReasonSeg(data / "reasonseg_nano", "train239")
    examples = reasoning_sample(samples, 0, np.random.default_rng(0), SIDE)
    assert [e.question for e in examples[:-1]] == list(samples.questions(0))
    assert "dog" in examples[-1].question
    assert {e.answer for e in examples} == {"The dog."}
    assert all(e.image is examples[0].image for e in examples)


def is_mirrored(examples: list[Example]) -> bool:
    """The target of the tiny samples is on the right."""
    return bool(examples[0].mask[:, : SIDE // 2].any())


def with_question(question: str) -> Callable[[ReasonSeg, int], tuple[str, ...]]:
    return lambda self, index: (question,)


@pytest.mark.parametrize(
    ("question", "may_turn"),
    [("What is on the right?", False), ("Left of what?", False), ("What is upright?", True)],
)
def test_a_sample_whose_words_say_left_or_right_is_never_mirrored(
    data: Path, monkeypatch: pytest.MonkeyPatch, question: str, may_turn: bool
) -> None:
    monkeypatch.setattr(ReasonSeg, "questions", with_question(question))
    samples = ReasonSeg(data / "reasonseg_nano", "train239")
    made = [reasoning_sample(samples, 0, np.random.default_rng(n), SIDE) for n in range(12)]
    assert {is_mirrored(examples) for examples in made} == ({True, False} if may_turn else {False})


def asked_scene() -> Scene:
    """A cat on the left, a speck of a cup."""
    cat, cup = np.zeros((SIDE, SIDE), bool), np.zeros((SIDE, SIDE), bool)
    cat[10:40, 2:20], cup[0, 0] = True, True
    pixels = np.full((SIDE, SIDE, 3), 99, np.uint8)
    return Scene(pixels, (Region("cat", cat), Region("cup", cup)), (), False)


def test_what_was_asked_about_a_photograph_is_asked_in_one_of_its_wordings() -> None:
    asked = [
        Asked(("who purrs?", "the mouse's enemy"), "cat", absent=False),
        Asked(("what holds tea?",), "cup", absent=False),
        Asked(("what keeps the rain off?",), "umbrella", absent=True),
        Asked(("who purrs louder?",), "cat", absent=True),  # is there after all
    ]
    made = [
        asked_sample(asked_scene(), asked, np.random.default_rng(n), SIDE, 4) for n in range(12)
    ]
    assert {len(examples) for examples in made} == {2}  # the cup is too small to be seen
    spoken = {example.question: example.answer for examples in made for example in examples}
    assert spoken == {
        "who purrs?": "The cat.",
        "the mouse's enemy": "The cat.",
        "what keeps the rain off?": "There is no umbrella in this picture.",
    }
    sides = {
        bool(e.mask[:, : SIDE // 2].any()) for examples in made for e in examples if e.mask.any()
    }
    assert sides == {True, False}


def test_a_photograph_that_is_asked_for_a_side_is_never_mirrored() -> None:
    asked = [Asked(("who sits on the left?",), "cat", absent=False)]
    made = [
        asked_sample(asked_scene(), asked, np.random.default_rng(n), SIDE, 1) for n in range(12)
    ]
    assert all(examples[0].mask[:, : SIDE // 2].any() for examples in made)


def test_photographs_with_questions_are_found_by_their_names(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = (Asked(("who purrs?",), "cat", absent=False),)
    monkeypatch.setattr(
        joint,
        "asked_about",
        lambda source, held_out: {"2.png": one} if source == "coco_union" and not held_out else {},
    )
    ((folder, index, about),) = asked_photos(Photos(data))
    assert folder.images[index]["file_name"] == "2.png" and about == one


def test_a_target_too_small_to_be_seen_is_not_asked_for(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = ReasonSeg(data / "reasonseg_nano", "train239")
    whole = samples[0]
    speck = np.zeros_like(whole.masks)
    speck[0, 0, 0] = True
    monkeypatch.setattr(ReasonSeg, "__getitem__", lambda self, index: replace(whole, masks=speck))
    assert reasoning_sample(samples, 0, np.random.default_rng(0), SIDE) == []


def test_an_absent_target_is_answered_so(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = ReasonSeg(data / "reasonseg_nano", "train239")
    absent = replace(samples[0], masks=np.zeros((0, SIDE, SIDE), bool))
    monkeypatch.setattr(ReasonSeg, "__getitem__", lambda self, index: absent)
    examples = reasoning_sample(samples, 0, np.random.default_rng(0), SIDE)
    assert {e.answer for e in examples} == {"There is no dog in this picture."}
    assert not any(e.mask.any() for e in examples)


@pytest.mark.parametrize("reasoning", [True, False])
def test_a_labelled_photograph_is_asked_about_without_a_mask(data: Path, reasoning: bool) -> None:
    folder = LabelledPhotos(data / "photos" / "imagelevel_imagenet1000")
    known = things() if reasoning else defined()
    examples = labelled_sample(folder, known, np.random.default_rng(0), SIDE)
    assert {e.phrase for e in examples} <= {"cat", "banana"}
    assert all(e.masks is None and e.image.size == (SIDE, SIDE) for e in examples)
    implicit = {e.question for e in examples} & implicit_questions()
    assert len(implicit) == (2 if reasoning else 0)


def test_labels_are_put_into_everyday_words() -> None:
    known = {name: thing for name, thing in things().items() if name in ("cat", "banana")}
    assert everyday_names("banana", known) == ["banana"]
    assert everyday_names("tabby", known) == ["cat"]
    assert everyday_names("volcano", known) == []


# Its figures


def test_held_out_questions_are_about_photographs_that_training_leaves_out(data: Path) -> None:
    trained = {
        np.asarray(scene.image).tobytes()
        for folder in Photos(data).folders.values()
        for scene in (folder[n] for n in range(len(folder)))
    }
    for reasoning in (True, False):
        asked = held_out_questions(data, reasoning)
        assert asked
        assert not [e for e in asked if e.image.tobytes() in trained]
        implicit = {e.question for e in asked} & implicit_questions()
        assert bool(implicit) == reasoning
        assert all(map(is_held_out, implicit))
    assert len(held_out_questions(data, True, count=1)) <= 2


def test_figures_are_of_generated_answers(
    built: tuple[LisaModel, LisaProcessor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = built
    examples = kinds_of_examples()[:2]

    class OneAnswer:
        """Says the name of the cat, and finds the whole picture."""

        text = "The cat."
        mask = np.ones((SIDE, SIDE), bool)
        masks = (mask,)

        def __init__(self, *parts: Any) -> None:
            (answering,) = parts
            assert (answering.model, answering.processor) == (model, processor)

        def segment(self, image: PIL.Image.Image, question: str) -> "OneAnswer":
            assert question in {"Where is the cat?", "a cup"}
            return self

    monkeypatch.setattr(joint, "Segmenter", OneAnswer)
    share = 30 * 20 / SIDE**2
    expected = {"val_giou": (share + 0) / 2, "val_named": 0.5}
    assert iou_by_question(model, processor, examples) == pytest.approx(expected, abs=1e-4)


def test_figures_of_a_real_model_lie_between_0_and_1(
    built: tuple[LisaModel, LisaProcessor],
) -> None:
    model, processor = built
    figures = iou_by_question(model, processor, kinds_of_examples()[:1])
    assert all(0 <= value <= 1 for value in figures.values())
