"""Recall: texts by themselves, names as answers, and what is weighed against what is seen."""

import math

import numpy as np
import pytest
import torch

from helpers.lively_model import chat_tokenizer, picture, recalling_model, tiny_config
from lisa.model.lisa import LisaModel
from lisa.nano.model.lisa import NanoModel
from lisa.nano.model.processor import RECALL_TOKENS, LisaProcessor, pad
from lisa.nano.model.retriever import (
    LEAST_VOTE,
    NEAR,
    SEEN,
    SIZE,
    UNFITTED,
    Choice,
    Evidence,
    Memory,
    Recall,
    StatePool,
    mean_states,
)
from lisa.nano.model.segmenter import NanoAnswering
from lisa.nano.model.vlm import NanoVlm
from lisa.nano.model.zoom import main_pieces
from lisa.predict import Segmenter

NAMES = ["cat", "cup", "umbrella", "dog"]
WIDTH, PROMPT = 32, 32


@pytest.fixture
def built() -> tuple[LisaModel, LisaProcessor]:
    return recalling_model(NAMES)


@pytest.fixture
def recall() -> Recall:
    torch.manual_seed(0)
    recall = Recall(WIDTH, PROMPT, len(NAMES)).eval()
    recall.keys.copy_(torch.nn.functional.normalize(torch.randn(len(NAMES), SIZE), dim=-1))
    return recall


def weights(layer: torch.nn.Linear, values: list[float], bias: float = 0.0) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([values]))
        layer.bias.fill_(bias)


def states_for(recall: Recall, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every question is about that name; the last number: about none."""
    keys = torch.cat([recall.keys, torch.nn.functional.normalize(recall.freely, dim=0)[None]])
    monkeypatch.setattr(
        recall.question, "forward", lambda states, known: keys[number].expand(len(states), -1)
    )


def test_what_is_not_text_is_not_looked_at() -> None:
    pool = StatePool(WIDTH).eval()
    states = torch.randn(2, 5, WIDTH)
    known = torch.tensor([[True, True, False, False, False], [True] * 5])
    pooled = pool(states, known)
    assert torch.allclose(pooled.norm(dim=-1), torch.ones(2))
    changed = torch.where(known[..., None], states, torch.randn(2, 5, WIDTH))
    assert torch.allclose(pool(changed, known), pooled, atol=1e-6)


def test_probabilities_are_of_all_names_and_of_none(recall: Recall) -> None:
    log_odds = recall(torch.randn(3, 4, WIDTH), torch.ones(3, 4, dtype=torch.bool))
    assert log_odds.shape == (3, len(NAMES) + 1)
    assert torch.allclose(log_odds.exp().sum(1), torch.ones(3))
    assert recall(
        torch.randn(1, 2, WIDTH), torch.ones(1, 2, dtype=torch.bool), recall.keys[:2]
    ).shape == (1, 3)


def test_what_the_eyes_say_is_surest_where_the_prompt_fits(recall: Recall) -> None:
    recall.prompts.copy_(torch.randn(len(NAMES), PROMPT))
    keys = torch.randn(1, PROMPT, 2, 3) * 0.1
    keys[0, :, 1, 2] = recall.prompts[2] * 3
    seen = recall.look(keys)
    assert seen.shape == (1, len(NAMES), SEEN)
    assert seen[0, :, 0].argmax() == 2 and seen[0, :, 1].argmax() == 2
    assert (seen[..., 1] <= 0).all()


def evidence(
    recall: Recall,
    seen: torch.Tensor,
    said: torch.Tensor | None = None,
    begun: torch.Tensor | None = None,
) -> Evidence:
    """Of random questions; what is ``said`` and ``begun`` is that of all names."""
    count = len(seen)
    states, known = torch.randn(count, 2, WIDTH), torch.ones(count, 2, dtype=torch.bool)
    nothing = torch.zeros(count, len(NAMES))
    said, begun = nothing if said is None else said, nothing if begun is None else begun
    facts = recall(states, known), recall.memory(states, known), seen, begun
    names = recall.shortlist(*facts)
    return Evidence(*facts, names, said.gather(1, names))


def chosen(recall: Recall, found: Evidence) -> list[int | None]:
    return [one.name if one else None for one in recall.choose(found)]


def test_a_name_is_chosen_by_what_is_recalled_seen_and_said(
    recall: Recall, monkeypatch: pytest.MonkeyPatch
) -> None:
    states_for(recall, 1, monkeypatch)
    seen = torch.zeros(1, len(NAMES), SEEN)
    weights(recall.answer, [1.0, 0.0, 0.0, 0.0, 0.0])
    assert chosen(recall, evidence(recall, seen)) == [1]
    weights(recall.answer, [1.0, 0.0, 1.0, 0.0, 0.0])
    seen[0, 3, 0] = 100.0
    assert chosen(recall, evidence(recall, seen)) == [3]
    weights(recall.answer, [1.0, 0.0, 1.0, 0.0, 3.0])
    said = torch.tensor([[0.0, 0.0, 100.0, 0.0]])
    assert chosen(recall, evidence(recall, seen, said)) == [2]


def test_only_what_is_recalled_seen_or_begun_is_a_possible_answer(
    recall: Recall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lisa.nano.model.retriever.SHORTLISTED", 2)
    states_for(recall, 1, monkeypatch)
    weights(recall.possible, [0.0, 0.0, 0.0, 1.0, 0.0])
    seen = torch.zeros(1, len(NAMES), SEEN)
    seen[0, :, 1] = torch.tensor([-1.0, -300.0, -400.0, -2.0])
    found = evidence(recall, seen, torch.tensor([[0.0, 0.0, 9.0, 1.0]]))
    assert found.names.tolist() == [[0, 3]]
    weights(recall.answer, [0.0, 0.0, 0.0, 0.0, 1.0])
    assert recall.weigh(found).shape == (1, 2)
    assert chosen(recall, found) == [3]  # not 2, whatever is said
    weights(recall.possible, [100.0, 0.0, 0.0, 1.0, 0.0])
    assert evidence(recall, seen).names[0, 0] == 1  # recalled, and hardly seen
    weights(recall.possible, [0.0, 0.0, 0.0, 1.0, 50.0])
    begun = torch.tensor([[0.0, 0.0, 9.0, 1.0]])
    assert evidence(recall, seen, begun=begun).names.tolist() == [[2, 3]]


def test_names_whose_masks_agree_support_each_other(recall: Recall) -> None:
    chances = torch.tensor([[0.35, 0.30, 0.30, 0.05]])
    names = torch.tensor([[3, 1, 0, 2]])
    nothing = torch.zeros(1, 4)
    found = Evidence(
        torch.zeros(1, 5), nothing, torch.zeros(1, 4, SEEN), nothing, names, chances.log()
    )
    weights(recall.answer, [0.0, 0.0, 0.0, 0.0, 1.0])
    alone = recall.choose(found)[0]
    assert alone is not None and alone.name == 3
    assert alone.certainty == pytest.approx(0.35, abs=1e-6)
    gains = torch.eye(4)
    gains[1, 2] = gains[2, 1] = 0.8  # the names 1 and 0
    together = recall.choose(found, gains[None])[0]
    assert together is not None and together.name == 1
    assert together.certainty == pytest.approx(0.30 + 0.8 * 0.30, abs=1e-6)
    gains[1] *= 0.5  # its own mask is not to be relied upon
    other = recall.choose(found, gains[None])[0]
    assert other is not None and other.name == 0
    assert other.certainty == pytest.approx(0.30 + 0.8 * 0.30, abs=1e-6)


def test_a_question_about_no_name_is_answered_freely(
    recall: Recall, monkeypatch: pytest.MonkeyPatch
) -> None:
    states_for(recall, len(NAMES), monkeypatch)
    assert recall.choose(evidence(recall, torch.zeros(2, len(NAMES), SEEN))) == [None, None]


def test_evidence_is_joined_and_parted(recall: Recall) -> None:
    first, second = (evidence(recall, torch.randn(n, len(NAMES), SEEN)) for n in (2, 1))
    both = Evidence.join([first, second])
    assert both.recalled.shape == (3, len(NAMES) + 1)
    assert torch.equal(both.of(torch.tensor([2])).seen, second.seen)
    assert recall.weigh(both)[2].tolist() == pytest.approx(recall.weigh(second)[0].tolist())


def test_before_it_is_fitted_what_is_said_does_not_count() -> None:
    unfitted = Recall(WIDTH, PROMPT, 2)
    assert torch.equal(unfitted.answer.weight[0], torch.tensor(UNFITTED))
    assert torch.equal(unfitted.possible.weight[0], torch.tensor(UNFITTED))
    assert UNFITTED[-1] == 0 < UNFITTED[0]


def one_state(texts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts [N, H] of one state each, with another one that is not known."""
    padded = torch.stack([texts, torch.randn_like(texts)], 1)
    return padded, torch.tensor([[True, False]]).expand(len(texts), -1)


def test_the_texts_most_like_a_question_vote_for_what_they_were_about() -> None:
    torch.manual_seed(0)
    texts, about = torch.randn(60, WIDTH), torch.arange(60) % 3
    memory = Memory(WIDTH, names=4, texts=0)
    memory.learn(texts, about)
    votes = memory(*one_state(texts))
    assert votes.shape == (60, 4)
    assert torch.equal(votes.argmax(1), about)  # a text is most like itself
    placed = memory.place(texts)
    assert torch.allclose(placed.norm(dim=1), torch.ones(60), atol=1e-5)
    by_hand = [
        math.exp((float(placed[7] @ placed[n]) - 1) / NEAR) for n in range(60) if about[n] == 2
    ]
    assert float(votes[7, 2]) == pytest.approx(math.log(sum(by_hand) + LEAST_VOTE), abs=1e-3)
    assert torch.allclose(votes[:, 3], torch.tensor(LEAST_VOTE).log())  # nobody votes for it


def test_every_direction_counts_the_same() -> None:
    torch.manual_seed(0)
    texts = torch.randn(500, WIDTH) * torch.logspace(-1, 1, WIDTH) + 5.0
    memory = Memory(WIDTH, names=2, texts=0)
    memory.learn(texts, torch.zeros(500, dtype=torch.long))
    spread = ((texts - memory.centre) @ memory.axes).std(0)
    assert torch.allclose(spread, torch.ones(WIDTH), atol=0.02)


def test_texts_along_one_line_are_remembered_without_a_division_by_nothing() -> None:
    memory = Memory(WIDTH, names=2, texts=0)
    line = torch.linspace(-1, 1, 5)[:, None] * torch.ones(1, WIDTH)
    memory.learn(line, torch.tensor([0, 0, 0, 1, 1]))
    votes = memory(*one_state(line))
    assert torch.isfinite(votes).all() and votes[0].argmax() == 0 and votes[4].argmax() == 1


def test_without_texts_nobody_votes() -> None:
    votes = Memory(WIDTH, names=3, texts=0)(*one_state(torch.randn(2, WIDTH)))
    assert torch.allclose(votes, torch.full((2, 3), LEAST_VOTE).log())


def test_the_mean_is_of_what_belongs_to_a_text() -> None:
    states, known = one_state(torch.randn(3, WIDTH))
    assert torch.allclose(mean_states(states, known), states[:, 0])
    assert torch.allclose(mean_states(states, torch.ones(3, 2)), states.mean(1))


def test_what_is_remembered_makes_an_answer_possible_and_right(recall: Recall) -> None:
    texts = torch.randn(8, WIDTH)
    recall.memory.learn(texts, torch.arange(8) % 4)
    weights(recall.possible, [0.0, 1.0, 0.0, 0.0, 0.0])
    weights(recall.answer, [0.0, 1.0, 0.0, 0.0, 0.0])
    states, known = one_state(texts[6:7])
    seen, nothing = torch.zeros(1, 4, SEEN), torch.zeros(1, 4)
    facts = recall(states, known), recall.memory(states, known), seen, nothing
    names = recall.shortlist(*facts)
    assert names[0, 0] == 2
    assert recall.weigh(Evidence(*facts, names, nothing))[0].argmax() == 0


def test_texts_are_read_by_themselves_and_by_the_lowest_layers(
    built: tuple[LisaModel, LisaProcessor],
) -> None:
    model, processor = built
    assert isinstance(model.vlm, NanoVlm)
    short, long = processor.recall_ids("a cat"), processor.recall_ids("a cat on a mat, or two")
    both, known = model.vlm.read_alone(pad([short, long], -1))
    alone, _ = model.vlm.read_alone(torch.tensor([short]))
    assert torch.allclose(both[0, : len(short)], alone[0], atol=1e-5)
    assert known.sum(1).tolist() == [len(short), len(long)]
    everything = model.vlm.language.model(
        inputs_embeds=model.vlm.embed(torch.tensor([[0, *short]])), output_hidden_states=True
    ).hidden_states
    assert torch.allclose(alone[0], everything[model.config.recall_layers][0, 1:], atol=1e-5)


def test_a_long_question_is_cut(built: tuple[LisaModel, LisaProcessor]) -> None:
    assert len(built[1].recall_ids("cat and " * 200)) == RECALL_TOKENS


def test_the_first_letter_and_blanks_make_no_difference(
    built: tuple[LisaModel, LisaProcessor],
) -> None:
    assert built[1].recall_ids(" The cat ") == built[1].recall_ids("the cat")


def test_the_segmenter_says_what_is_recalled(
    built: tuple[LisaModel, LisaProcessor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = built
    monkeypatch.setattr(
        Recall, "choose", lambda self, evidence, gains: [Choice(2, 0.5)] * len(evidence.seen)
    )
    segmenter = Segmenter(NanoAnswering(model, processor))
    given = segmenter.segment(picture(), "keeps the rain off", answer="[SEG].")
    result = segmenter.segment(picture(), "keeps the rain off")
    assert result.text == "The umbrella." and len(result.masks) == 1
    assert len(given.masks) == 1 and "umbrella" not in given.text
    read = segmenter.segment(picture(), "keeps the rain off", answer="The umbrella. [SEG]")
    assert np.array_equal(main_pieces(read.masks[0].mask), result.masks[0].mask)
    assert result.masks[0].score == pytest.approx(0.5 * read.masks[0].score, abs=1e-5)


def test_what_is_not_recalled_is_generated(
    built: tuple[LisaModel, LisaProcessor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = built
    monkeypatch.setattr(Recall, "choose", lambda self, evidence, gains: [None] * len(evidence.seen))
    freely = Segmenter(NanoAnswering(model, processor)).segment(picture(), "the cat")
    model.vlm.recall = None
    assert (
        Segmenter(NanoAnswering(model, processor)).segment(picture(), "the cat").text == freely.text
    )


def test_a_model_without_names_recalls_nothing() -> None:
    tokenizer = chat_tokenizer()
    assert NanoModel(tiny_config(tokenizer)).vlm.recall is None


def test_the_scale_of_what_is_not_seen_is_finite(recall: Recall) -> None:
    seen = recall.look(torch.full((1, PROMPT, 1, 1), -1e4))
    assert torch.isfinite(seen).all() and seen[..., 1].min() >= math.log(1e-6) - 1e-4
