"""The language side: who sees whom, what a picture becomes, and the one new token."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from helpers.lively_model import chat_tokenizer, lively_model, picture, tiny_config
from lisa.errors import ModelError
from lisa.example import Example
from lisa.model.config import LisaConfig
from lisa.model.generation import DecodingState
from lisa.model.interfaces import PADDING_SEGMENT, PICTURE_SEGMENT, Batch
from lisa.model.lisa import LisaModel
from lisa.nano.model.decoder import ImageFeatures
from lisa.nano.model.processor import LisaProcessor, pad
from lisa.nano.model.projector import CLASS, CONCEPT, PLACE, FoundNames, SemanticProjector
from lisa.nano.model.vlm import NanoVlm, segment_mask, visual_places

QUESTIONS = ["what is the cat?", "no cup in the umbrella and the cup?", "a"]
ANSWERS = ["The cat.", "The cup and the umbrella.", "No."]


@pytest.fixture(autouse=True)
def without_gradients() -> object:
    with torch.no_grad():
        yield


def examples(seed: int = 0) -> list[Example]:
    """Three questions about one picture."""
    image = picture(seed=seed)
    return [
        Example(image, question, answer, phrase="cat")
        for question, answer in zip(QUESTIONS, ANSWERS, strict=True)
    ]


def states(model: LisaModel, batch: Batch) -> Tensor:
    features = model.decoder.encode_image(batch.pixel_values)
    return model.vlm.hidden_states(batch, model.vlm.visual_embeddings(features))


# ------------------------------------------------------------------------ masks

segments_of_a_row = st.tuples(
    st.integers(1, 4), st.lists(st.integers(1, 3), max_size=3), st.integers(0, 3)
).map(
    lambda row: (
        [PICTURE_SEGMENT] * row[0]
        + [number for number, length in enumerate(row[1], 1) for _ in range(length)]
        + [PADDING_SEGMENT] * row[2]
    )
)


@given(segments_of_a_row)
def test_a_token_sees_the_picture_and_its_own_question_and_nothing_later(row: list[int]) -> None:
    mask = segment_mask(torch.tensor([row]))
    assert mask.shape == (1, 1, len(row), len(row))
    for looks, mine in enumerate(row):
        for seen, other in enumerate(row):
            related = other in (PICTURE_SEGMENT, mine) and other != PADDING_SEGMENT
            expected = looks == seen or (related and seen < looks)
            assert bool(mask[0, 0, looks, seen]) == expected, (looks, seen)


@given(segments_of_a_row, st.integers(0, 3))
def test_visual_tokens_stand_before_the_last_token_of_the_picture(
    row: list[int], count: int
) -> None:
    length = row.count(PICTURE_SEGMENT)
    count = min(count, length - 1)
    expected = [length - 1 - count <= place < length - 1 for place in range(len(row))]
    assert visual_places(torch.tensor([row]), count)[0].tolist() == expected


# ---------------------------------------------------------------------- packing


def test_questions_in_one_row_are_read_as_each_alone(
    model: LisaModel, processor: LisaProcessor
) -> None:
    packed = processor.encode(examples())
    assert len(packed.input_ids) == 1
    hidden = states(model, packed)[0]
    start = len(processor.prefix_ids())
    for number, example in enumerate(examples(), start=1):
        alone = processor.encode([example])
        torch.testing.assert_close(
            hidden[packed.segments[0] == number], states(model, alone)[0, start:], rtol=0, atol=1e-5
        )


def test_rows_side_by_side_are_read_as_each_alone(
    model: LisaModel, processor: LisaProcessor
) -> None:
    rows = [examples(0)[:1], examples(1), examples(2)[1:2]]
    together = processor.encode([example for row in rows for example in row])
    hidden = states(model, together)
    for number, row in enumerate(rows):
        alone = states(model, processor.encode(row))[0]
        torch.testing.assert_close(hidden[number, : len(alone)], alone, rtol=0, atol=1e-4)


def test_a_row_with_one_question_is_plain_causal_reading(
    model: LisaModel, processor: LisaProcessor
) -> None:
    batch = processor.encode(examples()[:1])
    features = model.decoder.encode_image(batch.pixel_values)
    visual = model.vlm.visual_embeddings(features)
    before = len(processor.prefix_ids()) - 1 - visual.shape[1]
    embeddings = model.vlm.embed(batch.input_ids)
    embeddings[:, before : before + visual.shape[1]] = visual
    plain = model.vlm.language.model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
    torch.testing.assert_close(states(model, batch), plain, rtol=0, atol=1e-4)


def test_the_picture_is_read(model: LisaModel, processor: LisaProcessor) -> None:
    one, other = (states(model, processor.encode(examples(seed)[:1])) for seed in (0, 1))
    assert (one - other)[0, -1].abs().max() > 0.01


def test_a_prefix_is_shared_and_continued_without_being_changed(
    model: LisaModel, processor: LisaProcessor
) -> None:
    batch = processor.encode([*examples(0)[:1], *examples(1)[:1]])
    visual = model.vlm.visual_embeddings(model.decoder.encode_image(batch.pixel_values))
    start = len(processor.prefix_ids())
    prefix = model.vlm.encode_prefix(batch.input_ids[:, :start], visual)
    assert prefix.length == start
    expected = model.vlm.hidden_states(batch, visual)
    rows = torch.tensor([1, 0, 1])
    ids = batch.input_ids[rows, start:]
    mask = torch.ones(3, batch.input_ids.shape[1], dtype=torch.bool)
    positions = batch.position_ids[rows, start:]
    for _ in range(2):
        hidden = model.vlm.step(DecodingState(ids, prefix.cache(rows), mask, positions))
        torch.testing.assert_close(hidden, expected[rows, start:], rtol=0, atol=1e-4)
    assert prefix.length == start


# -------------------------------------------------------------------- the new token


def test_seg_has_an_input_of_its_own(model: LisaModel) -> None:
    ids = torch.tensor([[3, model.config.seg_token_id, 5]])
    embedded = model.vlm.embed(ids)[0]
    assert torch.equal(embedded[0], model.vlm.vocabulary[3])
    assert torch.equal(embedded[1], model.vlm.seg_input)
    assert torch.equal(embedded[2], model.vlm.vocabulary[5])


def test_seg_has_an_output_of_its_own_and_it_is_the_last(model: LisaModel) -> None:
    hidden = torch.randn(2, 3, model.vlm.hidden_size)
    logits = model.vlm.logits(hidden)
    assert logits.shape == (2, 3, model.config.seg_token_id + 1)
    torch.testing.assert_close(logits[..., :-1], hidden @ model.vlm.vocabulary.T)
    torch.testing.assert_close(logits[..., -1], hidden @ model.vlm.seg_output)


def test_a_language_model_with_two_tables_speaks_with_its_own() -> None:
    language = LisaConfig.tiny(50, 50).language | {"tie_word_embeddings": False}
    vlm = NanoVlm(LisaConfig.tiny(50, 50, language=language))
    hidden = torch.randn(4, vlm.hidden_size)
    torch.testing.assert_close(vlm.logits(hidden)[:, :-1], hidden @ vlm.language.lm_head.weight.T)
    assert not torch.equal(vlm.language.lm_head.weight, vlm.vocabulary)


@pytest.mark.parametrize("seg_token_id", [49, 51])
def test_seg_must_follow_the_language_models_own_tokens(seg_token_id: int) -> None:
    with pytest.raises(ModelError, match=f"seg_token_id is {seg_token_id}; expected 50"):
        NanoVlm(LisaConfig.tiny(50, seg_token_id))


def test_a_name_is_the_mean_of_its_tokens(model: LisaModel) -> None:
    table = model.vlm.vocabulary
    names = model.vlm.name_embeddings(torch.tensor([[4, 5, 6], [7, -1, -1], [-1, -1, -1]]))
    torch.testing.assert_close(names[0], (table[4] + table[5] + table[6]) / 3)
    torch.testing.assert_close(names[1], table[7])
    assert names[2].tolist() == [0.0] * model.vlm.hidden_size


# ------------------------------------------------------------------- the projector


@pytest.fixture
def features(model: LisaModel, processor: LisaProcessor) -> ImageFeatures:
    images = [picture(64, 64, seed) for seed in range(2)]
    return model.decoder.encode_image(processor.encode_images(images))


def bare(projector: SemanticProjector) -> SemanticProjector:
    """Without what is learned about places, kinds and scores: names only."""
    for values in (projector.place_embedding.weight, projector.place_embedding.bias):
        values.zero_()
    projector.learned[-1].weight.zero_()
    projector.learned[-1].bias.zero_()
    projector.kind_embedding.zero_()
    projector.score_embedding.zero_()
    return projector


def test_a_picture_becomes_as_many_tokens_as_the_configuration_says(
    model: LisaModel, features: ImageFeatures
) -> None:
    visual = model.vlm.visual_embeddings(features)
    assert visual.shape == (2, model.config.visual_tokens, model.vlm.hidden_size)


def spelled(ids: Tensor, comma: Tensor) -> list[int]:
    """The tokens of names [K, L], a comma after each."""
    names = [[token for token in row if token >= 0] for row in ids.tolist()]
    return [token for name in names if name for token in [*name, int(comma)]]


def test_found_names_are_spelled_surest_first_concepts_before_classes(
    features: ImageFeatures,
) -> None:
    model = lively_model(tiny_config(chat_tokenizer(), found_tokens=12))
    projector = bare(model.vlm.projector)
    tokens = model.vlm.visual_embeddings(features)[:, model.config.grid**2 :]
    concepts = model.vlm.name_embeddings(projector.concept_ids)
    probabilities = projector.concept_probabilities(features, concepts)
    for row in range(2):
        peaks = [float(p.max()) for p in probabilities[row]]
        surest = sorted(range(len(peaks)), key=lambda n: -peaks[n])[:2]
        best = int(features.semantic[row].flatten(1).max(1).values.argmax())
        names = torch.cat([projector.concept_ids[surest], projector.class_ids[[best]]])
        ids = spelled(names, projector.comma_id)
        torch.testing.assert_close(tokens[row, : len(ids)], model.vlm.vocabulary[ids])
        assert not tokens[row, len(ids) :].any()


slots = st.lists(st.lists(st.integers(5, 399), max_size=3), min_size=4, max_size=4)


@given(st.lists(slots, min_size=1, max_size=2), st.integers(1, 20), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_each_token_of_a_name_says_where_and_how_sure(
    tiny: tuple[LisaModel, LisaProcessor], scenes: list[list[list[int]]], room: int, seed: int
) -> None:
    """Free slots take no room, and what does not fit is left out."""
    model = tiny[0]
    random = torch.Generator().manual_seed(seed)
    projector, table = model.vlm.projector, model.vlm.vocabulary
    places = torch.randn(len(scenes), 4, model.vlm.hidden_size, generator=random)
    scores = torch.rand(len(scenes), 4, generator=random)
    kinds = torch.randint(2, (4,), generator=random)
    ids = torch.stack([pad([*names, [-1] * 3], -1)[:4] for names in scenes])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(projector, "found_tokens", room)
        tokens = projector.spell(FoundNames(ids, places, scores, kinds), model.vlm.embed)
    expected = torch.zeros(len(scenes), room, model.vlm.hidden_size)
    for row, names in enumerate(scenes):
        said = [
            (token, n)
            for n, name in enumerate(names)
            if name
            for token in [*name, int(projector.comma_id)]
        ]
        for place, (token, n) in enumerate(said[:room]):
            kind = int(kinds[n])
            sure = scores[row, n] * projector.score_embedding[kind]
            about = places[row, n] + sure + projector.kind_embedding[kind]
            expected[row, place] = table[token] + about
    torch.testing.assert_close(tokens, expected)


def test_lists_of_names_are_joined_one_after_the_other() -> None:
    one, two = (
        FoundNames(
            torch.full((2, count, 3), count),
            torch.full((2, count, 4), float(count)),
            torch.full((2, count), float(count)),
            torch.full((count,), kind),
        )
        for count, kind in ((2, CONCEPT), (1, CLASS))
    )
    joined = FoundNames.join([one, two])
    assert joined.kinds.tolist() == [CONCEPT, CONCEPT, CLASS]
    assert joined.ids[0, :, 0].tolist() == joined.scores[1].tolist() == [2, 2, 1]
    assert joined.places.shape == (2, 3, 4)


def test_a_place_is_the_mean_of_the_names_seen_there(features: ImageFeatures) -> None:
    model = lively_model(tiny_config(chat_tokenizer()))
    projector = bare(model.vlm.projector)
    tokens = model.vlm.visual_embeddings(features)[:, : model.config.grid**2]
    concepts = model.vlm.name_embeddings(projector.concept_ids)
    classes = model.vlm.name_embeddings(projector.class_ids)
    probabilities = projector.concept_probabilities(features, concepts)
    for row, y, x in [(0, 0, 0), (1, 1, 0), (0, 0, 1)]:  # the map is as fine as the grid: 2x2
        seen = probabilities[row, :, y, x]
        by_concept = (seen @ concepts) / max(1.0, float(seen.sum()))
        by_class = features.semantic[row, :, y, x] @ classes
        torch.testing.assert_close(
            tokens[row, y * 2 + x], by_concept + by_class, rtol=1e-4, atol=1e-4
        )


def test_a_coarse_grid_takes_the_mean_of_its_places(
    model: LisaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    projector = model.vlm.projector
    seen = torch.randn(1, model.vlm.hidden_size, 4, 6)
    tokens = projector.place_tokens(seen)
    where = projector.place_vectors(2, 2)
    corner = seen[0, :, 2:, :3].mean((1, 2))  # the lower left one of 2x2
    torch.testing.assert_close(tokens[0, 2], corner + where[2] + projector.kind_embedding[PLACE])
    monkeypatch.setattr(projector, "grid", 1)
    assert projector.place_tokens(seen).shape == (1, 1, model.vlm.hidden_size)


def test_what_is_found_says_where_and_how_sure(features: ImageFeatures) -> None:
    model = lively_model(tiny_config(chat_tokenizer(), found_concepts=0))
    projector = bare(model.vlm.projector)
    names = model.vlm.visual_embeddings(features)
    projector.place_embedding.weight.normal_()
    projector.score_embedding.normal_()
    told = (model.vlm.visual_embeddings(features) - names)[:, model.config.grid**2 :]
    peaks, cells = features.semantic.flatten(2).max(-1)
    for row in range(2):
        best = int(peaks[row].argmax())
        place = projector.place(2, 2)[cells[row, best]]
        where = F.linear(place, projector.place_embedding.weight)
        sure = peaks[row, best] * projector.score_embedding[CLASS]
        length = int((projector.class_ids[best] >= 0).sum()) + 1  # the comma says so, too
        expected = (where + sure).expand(length, -1)
        torch.testing.assert_close(told[row, :length], expected, rtol=1e-4, atol=1e-4)
        assert not told[row, length:].any()


@pytest.mark.parametrize("classes", [0, 1])
def test_a_model_without_concepts_reads_pictures_too(classes: int) -> None:
    tokenizer = chat_tokenizer()
    config = tiny_config(tokenizer, concepts=[], found_classes=classes)
    model, processor = lively_model(config), LisaProcessor(tokenizer, config)
    batch = processor.encode(examples()[:1])
    features = model.decoder.encode_image(batch.pixel_values)
    visual = model.vlm.visual_embeddings(features)
    assert visual.shape[1] == config.visual_tokens == 4 + 8
    assert bool(visual[0, 4:].any()) == (classes > 0)
    assert torch.isfinite(model.vlm.hidden_states(batch, visual)).all()
