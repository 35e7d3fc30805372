"""The stage "words" on a tiny model: scenes as tensors, what it trains, what it never sees."""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from helpers.lively_model import chat_tokenizer, lively_model, picture, tiny_config
from helpers.tiny_model import tiny_model
from helpers.training_data import learn
from lisa.data.stream import Stream
from lisa.example import Example
from lisa.model.lisa import LisaModel
from lisa.nano.data.knowledge import is_held_out, taught, things
from lisa.nano.data.prompts import NAMING_QUESTIONS
from lisa.nano.data.symbolic import Asked, ImaginedScene, Seen
from lisa.nano.model.processor import LisaProcessor
from lisa.nano.model.projector import CLASS, CONCEPT, PLACE
from lisa.nano.training import symbolic
from lisa.nano.training.symbolic import (
    CELLS,
    ImaginedBatch,
    WordsTask,
    answers,
    cell,
    choices,
    encode_scenes,
    held_out_scenes,
    share,
    visual_tokens,
    words_stream,
)

SAMPLES = 200  # to look through for questions that must, or must not, be there
KNOWN = things()
QUESTIONS = {text for thing in KNOWN.values() for _, text in thing.questions}

places = st.floats(0, 1, exclude_max=True)
seen_things = st.builds(Seen, st.just("cat"), places, places, st.floats(0.05, 1), st.just(0.5))


@pytest.fixture
def built() -> tuple[LisaModel, LisaProcessor]:
    return tiny_model()


def scene(
    *asked: Asked, concepts: Sequence[Seen] = (), classes: Sequence[Seen] = ()
) -> ImaginedScene:
    return ImaginedScene(tuple(concepts), tuple(classes), asked)


CAT = Seen("cat", 0.2, 0.8, 0.5, 0.75)
CUP = Seen("tea cup", 0.9, 0.1, 0.3, 0.5)
TABBY = Seen("tabby", 0.2, 0.8, 0.5, 0.25)
WHO = Asked("Who purrs?", "cat", True)
WHAT = Asked("Where is the tea cup?", "tea cup", True)
NO_DOG = Asked("Who barks?", "dog", False)
TWO = [
    scene(WHO, NO_DOG, concepts=[CAT, CUP], classes=[TABBY]),
    scene(WHAT, WHO, concepts=[CUP]),
]


# Scenes as tensors


@given(seen_things, st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_a_share_is_how_much_of_a_cell_is_covered(seen: Seen, grid: int) -> None:
    """Counted on points; a square that sticks out of the picture is cut."""
    points = (np.arange(60 * grid) + 0.5) / (60 * grid)
    down, across = (abs(points - centre) < seen.size / 2 for centre in (seen.y, seen.x))
    inside = down[:, None] & across
    expected = inside.reshape(grid, 60, grid, 60).mean((1, 3))
    np.testing.assert_allclose(share(seen, grid).numpy(), expected, atol=0.04)


@given(seen_things)
def test_a_thing_is_in_the_cell_that_holds_its_centre(seen: Seen) -> None:
    row, column = divmod(cell(seen), CELLS)
    assert row <= seen.y * CELLS < row + 1
    assert column <= seen.x * CELLS < column + 1


def test_a_free_slot_covers_nothing() -> None:
    assert share(None, 3).tolist() == [[0.0] * 3] * 3


def test_slots_hold_concepts_first_and_then_classes(
    built: tuple[LisaModel, LisaProcessor],
) -> None:
    _, processor = built  # two slots for concepts, one for a class
    batch = encode_scenes(TWO, processor)
    names = [[[i for i in ids if i >= 0] for ids in row] for row in batch.ids.tolist()]
    cat, cup, tabby = (processor.phrase_ids(one.name) for one in (CAT, CUP, TABBY))
    assert names == [[cat, cup, tabby], [cup, [], []]]
    assert batch.scores.tolist() == [[0.75, 0.5, 0.25], [0.5, 0, 0]]
    assert batch.cells[0].tolist() == [2 * 12 + 9, 10 * 12 + 1, 2 * 12 + 9]
    assert torch.equal(batch.shares[0, 1], share(CUP, processor.config.grid))
    assert not batch.shares[1, 1:].any()


def test_questions_are_encoded_as_those_about_a_picture(
    built: tuple[LisaModel, LisaProcessor],
) -> None:
    _, processor = built
    one, two = picture(seed=0), picture(seed=1)
    nothing = np.zeros((0, 40, 48), bool)
    expected = processor.encode(
        [
            Example(one, "Who purrs?", "The cat.", phrase="cat"),
            Example(one, "Who barks?", "There is no dog in this picture.", nothing, phrase="dog"),
            Example(two, "Where is the tea cup?", "The tea cup.", phrase="tea cup"),
            Example(two, "Who purrs?", "The cat.", phrase="cat"),
        ]
    )
    text = encode_scenes(TWO, processor).text
    for name in ("input_ids", "segments", "position_ids", "labels", "phrase_ids", "present"):
        assert torch.equal(getattr(text, name), getattr(expected, name)), name


def test_a_batch_moves_as_a_whole(built: tuple[LisaModel, LisaProcessor]) -> None:
    moved = encode_scenes(TWO, built[1]).to("meta")
    parts = [getattr(moved, field.name) for field in fields(ImaginedBatch)]
    parts += [value for value in vars(moved.text).values() if value is not None]
    assert {part.device.type for part in parts if isinstance(part, Tensor)} == {"meta"}


# Visual tokens


@torch.no_grad()
def test_imagined_places_are_mixed_from_the_names_there() -> None:
    model, processor, batch = lively()
    projector, table = model.vlm.projector, model.vlm.vocabulary
    grid = model.config.grid
    tokens = visual_tokens(model, batch)
    assert tokens.shape == (2, model.config.visual_tokens, model.vlm.hidden_size)
    where = F.linear(
        projector.place(grid, grid),
        projector.place_embedding.weight,
        projector.place_embedding.bias,
    )
    for place in range(grid * grid):
        mixed, total = torch.zeros(model.vlm.hidden_size), 0.0
        for seen in (CAT, CUP, TABBY):
            weight = seen.score * float(share(seen, grid).flatten()[place])
            mixed += weight * table[processor.phrase_ids(seen.name)].mean(0)
            total += weight
        expected = mixed / max(1.0, total) + where[place] + projector.kind_embedding[PLACE]
        torch.testing.assert_close(tokens[0, place], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_imagined_names_are_spelled_where_they_are() -> None:
    model, processor, batch = lively()
    projector, table = model.vlm.projector, model.vlm.vocabulary
    tokens = visual_tokens(model, batch)[0, model.config.grid**2 :]
    map_of_places = projector.place_embedding(projector.place(CELLS, CELLS))
    expected = []
    for seen, kind in ((CAT, CONCEPT), (CUP, CONCEPT), (TABBY, CLASS)):
        sure = seen.score * projector.score_embedding[kind] + projector.kind_embedding[kind]
        about = map_of_places[int(seen.y * 12) * 12 + int(seen.x * 12)] + sure
        ids = [*processor.phrase_ids(seen.name), int(projector.comma_id)]
        expected += [table[token] + about for token in ids]
    torch.testing.assert_close(tokens[: len(expected)], torch.stack(expected), rtol=1e-4, atol=1e-5)
    assert len(expected) < len(tokens) and not tokens[len(expected) :].any()


def lively() -> tuple[LisaModel, LisaProcessor, ImaginedBatch]:
    """A model with room for the names of both scenes, and the scenes."""
    tokenizer = chat_tokenizer()
    config = tiny_config(tokenizer, found_tokens=24)
    processor = LisaProcessor(tokenizer, config)
    return lively_model(config), processor, encode_scenes(TWO, processor)


# The task


def test_ten_steps_on_one_batch_lower_the_loss(built: tuple[LisaModel, LisaProcessor]) -> None:
    model, processor = built
    losses = learn(WordsTask(model), encode_scenes(TWO, processor), 10, 3e-3)
    assert losses[-1] < 0.95 * losses[0]


def test_eyes_language_and_names_stay_bitwise_what_they_were(
    built: tuple[LisaModel, LisaProcessor],
) -> None:
    model, processor = built
    task = WordsTask(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    learn(task, encode_scenes(TWO, processor), 2, 3e-3)
    after = model.state_dict()
    moved = {name for name in after if not after[name].equal(before[name])}
    assert moved == {name for name, value in model.named_parameters() if value.requires_grad}
    assert not [name for name in moved if name.startswith("decoder.") or "name_prompt" in name]
    embeddings = ("place_embedding", "kind_embedding", "score_embedding", "seg_input", "seg_output")
    learnt = ("lora_B", "head.", *embeddings)
    for mark in learnt:
        assert [name for name in moved if mark in name], mark
    assert all(any(mark in name for mark in (*learnt, "lora_A")) for name in moved)


@torch.no_grad()
def test_losses_are_those_of_the_answers_and_of_the_prompts_of_what_is_there(
    built: tuple[LisaModel, LisaProcessor],
) -> None:
    model, processor = built
    batch = encode_scenes(TWO, processor)
    losses = WordsTask(model)(batch)
    hidden = model.vlm.hidden_states(batch.text, visual_tokens(model, batch))
    labels = batch.text.labels
    assert labels is not None
    scores = model.vlm.logits(hidden)[:, :-1].transpose(1, 2)
    assert float(losses["text"]) == pytest.approx(float(F.cross_entropy(scores, labels[:, 1:])))
    seg = [(row, t) for row, t in (batch.text.input_ids == model.config.seg_token_id).nonzero()]
    prompts = model.head(torch.stack([hidden[row, t - 1] for row, t in seg]))
    table = model.vlm.vocabulary
    names = [table[processor.phrase_ids(name)].mean(0) for name in ("cat", "tea cup", "cat")]
    named = model.vlm.projector.name_prompt(torch.stack(names))
    distance = (prompts - named).square().mean(1) / named.square().mean(1)
    assert float(losses["prompt"]) == pytest.approx(float(distance.mean()), rel=1e-4)
    assert losses.keys() == {"text", "prompt"}


@pytest.mark.parametrize(
    "scenes",
    [[scene(NO_DOG, concepts=[CAT])], [scene(WHO), scene(WHAT, concepts=[CUP])]],
    ids=["nothing to point at", "nothing seen"],
)
def test_scenes_with_nothing_to_point_at_or_to_see_have_finite_losses(
    built: tuple[LisaModel, LisaProcessor], scenes: list[ImaginedScene]
) -> None:
    model, processor = built
    losses = WordsTask(model)(encode_scenes(scenes, processor))
    sum(losses.values(), torch.zeros(())).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


# What it is asked


def samples(reasoning: bool = True, seed: int = 0) -> list[ImaginedScene]:
    config = tiny_model()[1].config
    stream = Stream(words_stream(config, 3, reasoning), SAMPLES, seed)
    return [made for index in range(SAMPLES) for made in stream[index]]


def test_a_sample_is_one_scene_and_the_same_for_the_same_seed() -> None:
    first, again, other = samples(), samples(), samples(seed=1)
    assert len(first) == SAMPLES
    assert all(len(made.asked) == 3 for made in first)
    assert all(len(made.concepts) <= 2 and len(made.classes) == 1 for made in first)
    assert first == again != other


def test_nothing_that_is_held_out_is_taught() -> None:
    held_out = {name for name, thing in KNOWN.items() if thing.held_out}
    unseen = {text for name in held_out for _, text in KNOWN[name].questions}
    made = samples()
    asked = {one.question for one_scene in made for one in one_scene.asked}
    assert not asked & unseen
    assert not [text for text in asked & QUESTIONS if is_held_out(text)]
    assert len(asked & QUESTIONS) > SAMPLES
    said = {one.phrase for one_scene in made for one in one_scene.asked}
    assert not held_out & (said | {one.name for one_scene in made for one in one_scene.concepts})


def test_without_reasoning_no_implicit_question_is_asked() -> None:
    asked = {one.question for made in samples(reasoning=False) for one in made.asked}
    assert len(asked) > SAMPLES
    assert not asked & QUESTIONS


def test_places_are_asked_for_now_and_then() -> None:
    texts = {text for options in NAMING_QUESTIONS.values() for text in options}
    assert any(one.question in texts for made in samples() for one in made.asked)


# Its figures


@pytest.fixture(scope="module")
def measured() -> dict[str, list[ImaginedScene]]:
    return held_out_scenes(tiny_model()[1].config)


@pytest.mark.parametrize("part", ["phrasings", "things"])
def test_what_is_measured_is_one_of_eight_things_and_was_never_taught(
    measured: dict[str, list[ImaginedScene]], part: str
) -> None:
    trained = taught()
    assert len(measured[part]) == symbolic.MEASURED
    assert measured == held_out_scenes(tiny_model()[1].config)
    for made in measured[part]:
        (one,) = made.asked
        names = [seen.name for seen in made.concepts]
        assert len(set(names)) == len(names) == 8
        assert one.present and one.phrase in names
        assert one.question in {text for _, text in KNOWN[one.phrase].questions}
        assert all(0 < seen.score < 1 and 0 <= seen.y < 1 for seen in made.concepts)
        if part == "things":
            assert not trained.keys() & set(names)
        else:
            assert one.question not in {text for _, text in trained[one.phrase].questions}


def test_the_right_thing_may_be_anywhere_among_the_eight(
    measured: dict[str, list[ImaginedScene]],
) -> None:
    for part in measured.values():
        where = {[seen.name for seen in m.concepts].index(m.asked[0].phrase) for m in part}
        assert where == set(range(8))


def test_a_choice_is_right_when_the_answer_names_and_points(
    built: tuple[LisaModel, LisaProcessor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = built
    said = iter(["The cat. [SEG]", "The cat. [SEG]", "There is no tea cup in this picture."])

    def answer(*parts: object) -> list[str]:
        return [processor.read(processor.answer_ids(next(said))) for _ in parts[2]]  # type: ignore

    monkeypatch.setattr(symbolic, "answers", answer)
    asked = {"home": [scene(WHO), scene(WHAT)], "street": [scene(WHAT)]}
    assert choices(model, processor, asked) == {"val_home": 0.5, "val_street": 0.0}


def test_what_was_learnt_is_said_and_counted() -> None:
    model, processor, _ = lively()
    asked = [scene(WHO, concepts=[CAT, CUP]), scene(WHAT, concepts=[CUP, CAT])]
    learn(WordsTask(model), encode_scenes(asked, processor), 40, 5e-3)
    assert answers(model, processor, asked) == ["The cat.[SEG]", "The tea cup.[SEG]"]
    assert choices(model, processor, {"home": asked}) == {"val_home": 1.0}


def test_each_scene_is_answered_as_it_is_alone() -> None:
    model, processor, _ = lively()
    together = answers(model, processor, TWO)
    assert together == [answers(model, processor, [one])[0] for one in TWO]
    assert together[0] != together[1]
