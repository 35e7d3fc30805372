"""The stage "recall" on a tiny model: what it reads, that it learns, how evidence is weighed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.lively_model import recalling_model
from helpers.training_data import write_training_data
from lisa.model.lisa import LisaModel
from lisa.nano.data import text_pairs
from lisa.nano.data.knowledge import things
from lisa.nano.data.text_pairs import FREELY, Pair
from lisa.nano.model.processor import LisaProcessor
from lisa.nano.training import retrieval as stage
from lisa.nano.training.retrieval import (
    Looked,
    RecallTask,
    States,
    defined_in_photographs,
    forgetful,
    learn_to_recall,
    learn_to_weigh,
    pairs_to_learn,
    questions_to_weigh,
    read_texts,
    recall_names,
)

NAMES = ["banana", "cat", "cup", "umbrella"]
PAIRS = [
    Pair("yellow and bent", "banana"),
    Pair("purrs on a sofa", "cat"),
    Pair("holds hot tea", "cup"),
    Pair("segment the cat", FREELY),
]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> tuple[LisaModel, LisaProcessor]:
    """A tiny model that knows four names and a few definitions."""
    few = text_pairs.glosses()[::400]
    monkeypatch.setattr(text_pairs, "glosses", lambda: few)
    return recalling_model(NAMES)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_data(tmp_path_factory.mktemp("data"))


def test_the_names_are_those_of_things_and_concepts() -> None:
    names = recall_names(["cat", "a concept of its own"])
    assert set(names) == {*things(), "a concept of its own", "cat"} and names == sorted(names)


def test_texts_are_read_like_one_alone_whatever_their_order(
    built: tuple[LisaModel, LisaProcessor],
) -> None:
    model, processor = built
    texts = ["holds hot tea and more of it", "purrs", "yellow and bent"]
    together = read_texts(model, processor, texts)
    for n, text in enumerate(texts):
        (alone,) = read_texts(model, processor, [text]).rows
        torch.testing.assert_close(together.rows[n], alone, atol=2e-3, rtol=1e-2)
        assert len(alone) == len(processor.recall_ids(text))


def test_a_batch_of_states_says_which_are_there() -> None:
    states = States([torch.ones(2, 4).half(), torch.ones(5, 4).half()])
    batch, known = states.batch(torch.tensor([1, 0]))
    assert batch.shape == (2, 5, 4) and batch.dtype == torch.float32
    assert known.sum(1).tolist() == [5, 2] and (batch[1, 2:] == 0).all()


def test_something_of_each_text_is_always_looked_at() -> None:
    torch.manual_seed(0)
    known = torch.tensor([[True, False, False], [True, True, True]]).repeat(200, 1)
    _, kept = forgetful(torch.zeros(400, 3, 2), known)
    assert kept.any(1).all() and not (kept & ~known).any()
    assert 0.7 < kept[1::2, 1:].float().mean() < 0.95


def test_a_text_lands_beside_its_name(
    built: tuple[LisaModel, LisaProcessor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = built
    recall = model.vlm.recall
    assert recall is not None
    for layer in recall.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    monkeypatch.setattr(stage, "FORGOTTEN", 0.0)
    language = {k: v.clone() for k, v in model.vlm.language.state_dict().items()}
    learn_to_recall(model, processor, PAIRS, epochs=60)
    ids = [processor.recall_ids(pair.text) for pair in PAIRS]
    with torch.no_grad():
        found = [recall(*model.vlm.read_alone(torch.tensor([row]))).argmax().item() for row in ids]
    assert found == [0, 1, 2, len(NAMES)]
    assert all(torch.equal(v, language[k]) for k, v in model.vlm.language.state_dict().items())
    prompts = model.phrase_prompts(torch.tensor([processor.phrase_ids("cat")]))
    torch.testing.assert_close(recall.prompts[1], prompts[0])
    assert not recall.training


def test_texts_about_known_names_are_remembered_and_no_others(
    built: tuple[LisaModel, LisaProcessor],
) -> None:
    model, processor = built
    recall = model.vlm.recall
    assert recall is not None
    learn_to_recall(model, processor, PAIRS, epochs=1)
    about = recall.memory.about
    defined = [name for name, texts in text_pairs.definitions(False).items() for _ in texts]
    assert about[:3].tolist() == [0, 1, 2]  # and not what is answered freely
    assert [NAMES[n] for n in about[3:]] == [name for name in defined if name in NAMES]
    ids = [torch.tensor([processor.recall_ids(pair.text)]) for pair in PAIRS[:3]]
    with torch.no_grad():
        votes = [recall.memory(*model.vlm.read_alone(row)).argmax().item() for row in ids]
    assert votes == [0, 1, 2]


def test_what_is_remembered_is_loaded_however_much_it_is(
    built: tuple[LisaModel, LisaProcessor],
) -> None:
    learnt, fresh = built[0], recalling_model(NAMES)[0]
    learn_to_recall(*built, PAIRS, epochs=1)
    assert learnt.vlm.recall is not None and fresh.vlm.recall is not None
    RecallTask(fresh).load_state_dict(RecallTask(learnt).state_dict())
    for name, value in learnt.vlm.recall.state_dict().items():
        assert torch.equal(fresh.vlm.recall.state_dict()[name], value), name


def test_names_that_are_held_out_get_keys_and_teach_nothing(
    built: tuple[LisaModel, LisaProcessor],
) -> None:
    model, processor = built
    kept = next(thing.name for thing in things().values() if thing.held_out)
    processor.config.recall_names = [kept, "cat", "cup", "umbrella"]
    learn_to_recall(model, processor, [*PAIRS, Pair("never read", kept)], epochs=1)
    assert model.vlm.recall is not None
    norms = model.vlm.recall.keys.norm(dim=-1)
    assert torch.allclose(norms, torch.ones(4), atol=1e-5)
    assert 0 not in model.vlm.recall.memory.about


def test_what_is_saved_is_all_of_recall(built: tuple[LisaModel, LisaProcessor]) -> None:
    task = RecallTask(built[0])
    saved = {name.removeprefix("model.vlm.recall.") for name in task.state_dict()}
    assert built[0].vlm.recall is not None
    assert saved == set(built[0].vlm.recall.state_dict()) >= {"keys", "prompts"}


def test_the_zero_shot_kind_reads_no_question(data: Path) -> None:
    pairs = pairs_to_learn(data, reasoning=False, samples=False)
    assert {pair.name for pair in pairs} == {FREELY}
    more = pairs_to_learn(data, reasoning=False, samples=True)
    assert len(more) > len(pairs)
    assert len(pairs_to_learn(data, reasoning=True, samples=True)) > len(more) + 5000


def test_definitions_are_asked_about_photographs_that_are_left_out(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = ["cat", "dog", "cup", "horse", "dress", "bag", "belt"]
    defined = [Pair(f"what a {name} is", name) for name in [*shown, "hammer"]]
    monkeypatch.setattr(text_pairs, "glosses", lambda: defined)
    monkeypatch.setattr(text_pairs, "is_held_out", lambda text: "horse" not in text)
    place = {pair.name: n for n, pair in enumerate(defined)}
    asked = defined_in_photographs(data, place)
    assert asked and {one.text for one in asked} <= {pair.text for pair in defined}
    assert not [one for one in asked if "horse" in one.text]  # learnt
    assert all(one.text == f"what a {list(place)[one.target]} is" for one in asked)
    assert questions_to_weigh(data, list(place), reasoning=True) == []  # nobody asked about these


def looked(target: int, level: int) -> Looked:
    pixels = np.full((64, 64, 3), level, np.uint8)
    return Looked(PAIRS[target].text, Image.fromarray(pixels), target)


def test_weighing_finds_the_right_names(built: tuple[LisaModel, LisaProcessor]) -> None:
    model, processor = built
    recall = model.vlm.recall
    assert recall is not None
    learn_to_recall(model, processor, PAIRS, epochs=60)
    with torch.no_grad():
        wrong_way_round = torch.tensor([[-1.0, 0.0, 0.0, 0.0, 0.0]])
        recall.answer.weight.copy_(wrong_way_round)
        recall.possible.weight.copy_(wrong_way_round)
    found = learn_to_weigh(model, processor, [looked(n % 3, 20 * n) for n in range(12)])
    assert found["possible"] == 1.0 and found["right"] > 0.9
    assert recall.answer.weight[0, 0] > 0 and recall.possible.weight[0, 0] > 0


def test_what_is_never_possible_cannot_be_weighed(
    built: tuple[LisaModel, LisaProcessor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = built
    monkeypatch.setattr(
        "lisa.nano.model.retriever.Recall.shortlist",
        lambda self, recalled, remembered, seen, begun: torch.zeros(len(seen), 1, dtype=torch.long),
    )
    assert learn_to_weigh(model, processor, [looked(1, 20)]) == {}


def test_without_questions_nothing_is_weighed_anew(built: tuple[LisaModel, LisaProcessor]) -> None:
    model, processor = built
    assert model.vlm.recall is not None
    before = model.vlm.recall.answer.weight.clone()
    assert learn_to_weigh(model, processor, []) == {}
    assert torch.equal(model.vlm.recall.answer.weight, before)
