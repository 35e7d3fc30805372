"""The whole model: an answer with its masks, however it is read, batched, cached or saved."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from helpers.lively_model import chat_tokenizer, lively_model, picture, tiny_config
from lisa.example import Example
from lisa.model.interfaces import IGNORE_LABEL, PADDING_SEGMENT, Batch, DecodedMasks, Generated
from lisa.model.lisa import EncodedImages, LisaModel, split_masks
from lisa.nano.model.lisa import NanoModel
from lisa.nano.model.processor import LisaProcessor

QUESTIONS = [
    "what is the cat?",
    "a",
    "no cup in the umbrella and the cup? " * 3,
    "what is a cup?",
    "what is assistant?",
    "what is the umbrella and what is no cat?",
]


def encode(model: LisaModel, processor: LisaProcessor, *seeds: int) -> EncodedImages:
    pictures = processor.encode_pictures([picture(seed=seed) for seed in seeds])
    return model.encode_images(pictures)


def answer(
    model: LisaModel,
    processor: LisaProcessor,
    images: EncodedImages,
    asked: Sequence[tuple[int, str]],
    given: Sequence[str | None] | None = None,
    **settings: int,
) -> list[Generated]:
    """Ask ``(picture, question)`` pairs, all side by side."""
    return model.generate(
        images,
        [processor.question_ids(question) for _, question in asked],
        [index for index, _ in asked],
        end_token_id=processor.end_token_id,
        answers=given and [None if text is None else processor.answer_ids(text) for text in given],
        **settings,
    )


def assert_same(one: Generated, other: Generated) -> None:
    assert one.token_ids == other.token_ids
    torch.testing.assert_close(one.prompts, other.prompts, rtol=0, atol=1e-4)
    assert_same_masks(one.masks, other.masks)


def assert_same_masks(one: DecodedMasks, other: DecodedMasks) -> None:
    for name in ("low_res_masks", "iou_logits", "similarity"):
        left, right = getattr(one, name), getattr(other, name)
        torch.testing.assert_close(left, right, rtol=0, atol=1e-4)


def row_of(
    processor: LisaProcessor, seed: int, question: str, token_ids: list[int]
) -> tuple[Batch, int]:
    """One picture, one question and its answer as a batch, and where the answer starts."""
    prefix, asked = processor.prefix_ids(), processor.question_ids(question)
    ids = [*prefix, *asked, *token_ids]
    segments = [0] * len(prefix) + [1] * (len(ids) - len(prefix))
    batch = Batch(
        processor.encode_images([picture(seed=seed)]),
        torch.tensor([ids]),
        torch.tensor([segments]),
        torch.arange(len(ids))[None],
    )
    return batch, len(prefix) + len(asked)


@pytest.fixture(scope="module")
def images(tiny: tuple[LisaModel, LisaProcessor]) -> EncodedImages:
    return encode(*tiny, 0, 1, 2)


@pytest.fixture(scope="module")
def generated(tiny: tuple[LisaModel, LisaProcessor], images: EncodedImages) -> list[Generated]:
    """Every question about every picture, all in one batch."""
    return answer(*tiny, images, ASKED)


ASKED = [(index, question) for index in range(3) for question in QUESTIONS]


# --------------------------------------------------------------------- generation


def test_the_answers_of_the_test_model_are_of_all_kinds(generated: list[Generated]) -> None:
    counts = {min(len(one.masks.iou_logits), 2) for one in generated}
    assert counts == {0, 1, 2}  # no [SEG], one, several
    lengths = {len(one.token_ids) for one in generated}
    assert max(lengths) == 48
    assert min(lengths) < 20
    assert len({tuple(one.token_ids) for one in generated}) > len(QUESTIONS)
    masks = torch.cat([one.masks.low_res_masks for one in generated])
    assert 0.1 < (masks > 0).float().mean() < 0.9


def test_the_cache_changes_nothing(
    model: LisaModel, processor: LisaProcessor, generated: list[Generated]
) -> None:
    """Every token is the greedy choice of a full pass without a cache, every mask is its mask."""
    for (index, question), one in zip(ASKED, generated, strict=True):
        batch, start = row_of(processor, index, question, one.token_ids)
        with torch.no_grad():
            output = model(batch)
        choices = output.logits.argmax(-1)[start - 1 :].tolist()
        ended = [processor.end_token_id] if len(one.token_ids) < 48 else choices[-1:]
        assert choices == one.token_ids + ended
        assert output.masks is not None
        assert_same(one, Generated(one.token_ids, output.masks, output.seg_prompts))


def test_the_states_that_become_prompts_are_those_before_each_seg(
    model: LisaModel, processor: LisaProcessor, images: EncodedImages
) -> None:
    text = "The cat [SEG] and the cup [SEG]."
    (one,) = answer(model, processor, images, [(1, QUESTIONS[0])], [text])
    batch, _ = row_of(processor, 1, QUESTIONS[0], one.token_ids)
    with torch.no_grad():
        features = model.decoder.encode_image(batch.pixel_values)
        hidden = model.vlm.hidden_states(batch, model.vlm.visual_embeddings(features))[0]
        places = [n for n, i in enumerate(batch.input_ids[0]) if i == model.config.seg_token_id]
        prompts = model.head(torch.stack([hidden[place - 1] for place in places]))
        masks = model.decoder.decode(features, prompts, torch.zeros(2, dtype=torch.long))
    assert_same(one, Generated(one.token_ids, masks, prompts))


def test_a_batch_answers_as_each_question_alone(
    model: LisaModel, processor: LisaProcessor, generated: list[Generated]
) -> None:
    for (index, question), one in zip(ASKED[::2], generated[::2], strict=True):
        alone = encode(model, processor, index)
        assert_same(one, answer(model, processor, alone, [(0, question)])[0])


def test_no_questions_no_answers(
    model: LisaModel, processor: LisaProcessor, images: EncodedImages
) -> None:
    assert answer(model, processor, images, []) == []


def test_pictures_can_be_asked_about_again(
    tiny: tuple[LisaModel, LisaProcessor], images: EncodedImages, generated: list[Generated]
) -> None:
    for one, again in zip(generated, answer(*tiny, images, ASKED), strict=True):
        assert one.token_ids == again.token_ids
        assert torch.equal(one.masks.low_res_masks, again.masks.low_res_masks)


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_a_generated_answer_is_cut(
    tiny: tuple[LisaModel, LisaProcessor],
    images: EncodedImages,
    generated: list[Generated],
    limit: int,
) -> None:
    cut = answer(*tiny, images, ASKED, max_new_tokens=limit)
    assert [one.token_ids for one in cut] == [one.token_ids[:limit] for one in generated]


# ----------------------------------------------------------------- given answers

GIVEN = [
    ("[SEG].", 1),
    ("The cat. [SEG]", 1),
    ("[SEG][SEG] and [SEG]", 3),
    ("There is no cat in this picture.", 0),
    ("", 0),
]


@pytest.mark.parametrize(("text", "count"), GIVEN)
def test_a_given_answer_is_read_as_it_is(
    model: LisaModel, processor: LisaProcessor, images: EncodedImages, text: str, count: int
) -> None:
    (one,) = answer(model, processor, images, [(0, QUESTIONS[0])], [text])
    assert [*one.token_ids, processor.end_token_id] == processor.answer_ids(text)
    assert one.masks.low_res_masks.shape == (count, 16, 16)
    batch, _ = row_of(processor, 0, QUESTIONS[0], one.token_ids)
    with torch.no_grad():
        output = model(batch)
    assert_same(one, Generated(one.token_ids, output.masks, output.seg_prompts))


def test_a_given_answer_is_read_to_its_end(
    model: LisaModel, processor: LisaProcessor, images: EncodedImages
) -> None:
    text = "the cat and " * 40 + "[SEG]"
    (one,) = answer(model, processor, images, [(0, "what?")], [text], max_new_tokens=5)
    assert [*one.token_ids, processor.end_token_id] == processor.answer_ids(text)
    assert len(one.token_ids) > 48
    assert len(one.masks.iou_logits) == 1


def test_given_and_generated_answers_stand_side_by_side(
    tiny: tuple[LisaModel, LisaProcessor], images: EncodedImages, generated: list[Generated]
) -> None:
    texts = [text for text, _ in GIVEN]
    alone = [answer(*tiny, images, [pair], [t])[0] for pair, t in zip(ASKED, texts, strict=False)]
    given = [t for text in texts for t in (text, None)]
    asked = [pair for pair in ASKED[: len(texts)] for _ in range(2)]
    mixed = answer(*tiny, images, asked, given)
    for number, expected in enumerate(alone):
        assert_same(mixed[2 * number], expected)
        assert_same(mixed[2 * number + 1], generated[number])


# ------------------------------------------------------------------------ training


def batch_of(processor: LisaProcessor) -> Batch:
    """Two pictures; three targets that are there, one that is not, one that is not asked for."""
    nothing, everything = (
        torch.zeros(1, 40, 48).bool().numpy(),
        torch.ones(1, 40, 48).bool().numpy(),
    )
    one, two = picture(seed=0), picture(seed=1)
    return processor.encode(
        [
            Example(one, "what is the cat?", "The cat.", everything, phrase="cat"),
            Example(one, "what is a cup?", "There is no cup.", nothing[:0], phrase="cup"),
            Example(two, "what is in this picture?", "A cat and a cup."),
            Example(two, "the umbrella?", "The umbrella.", everything, phrase="umbrella"),
            Example(two, "the cup?", None, None, phrase="cup"),
        ]
    )


def test_forward_gives_logits_where_answers_are_and_a_mask_for_each_target(
    model: LisaModel, processor: LisaProcessor
) -> None:
    batch = batch_of(processor)
    output = model(batch)
    assert batch.labels is not None
    assert output.logits.shape == (
        int((batch.labels != IGNORE_LABEL).sum()),
        model.config.seg_token_id + 1,
    )
    assert output.seg_rows.tolist() == [0, 1, 1]
    assert output.seg_prompts.shape == (3, model.config.prompt_size)
    assert output.masks is not None
    assert output.masks.low_res_masks.shape == (3, 16, 16)


def test_logits_are_those_before_each_label(model: LisaModel, processor: LisaProcessor) -> None:
    batch = batch_of(processor)
    labels, batch.labels = batch.labels, None
    assert labels is not None
    with torch.no_grad():
        everywhere = model(batch).logits
        batch.labels = labels
        supervised = model(batch).logits
    rows, length = labels.shape
    assert len(everywhere) == rows * length
    before = [
        row * length + place - 1
        for row in range(rows)
        for place in range(length)
        if labels[row, place] != IGNORE_LABEL
    ]
    torch.testing.assert_close(supervised, everywhere[before])


def test_hidden_states_are_read_without_a_mask(model: LisaModel, processor: LisaProcessor) -> None:
    batch = batch_of(processor)
    with torch.no_grad():
        output = model(batch)
        visual = model.vlm.visual_embeddings(model.decoder.encode_image(batch.pixel_values))
        logits, seg_prompts, seg_rows = model.read(model.vlm.hidden_states(batch, visual), batch)
    torch.testing.assert_close(logits, output.logits)
    torch.testing.assert_close(seg_prompts, output.seg_prompts)
    assert seg_rows.tolist() == output.seg_rows.tolist()


def test_targets_are_segmented_by_name_alone(model: LisaModel, processor: LisaProcessor) -> None:
    batch = batch_of(processor)
    with torch.no_grad():
        masks = model.segment_phrases(batch)
        features = model.decoder.encode_image(batch.pixel_values)
        name = model.vlm.name_embeddings(torch.tensor([processor.phrase_ids("umbrella")]))
        prompt = model.vlm.projector.name_prompt(name)
        expected = model.decoder.decode(features, prompt, torch.tensor([1]))
    assert masks.low_res_masks.shape == (4, 16, 16)
    assert_same_masks(masks.select(torch.tensor([2])), expected)


def test_everything_that_is_new_can_learn(processor: LisaProcessor) -> None:
    model = lively_model(processor.config)
    output = model(batch_of(processor))
    assert output.masks is not None
    loss = output.logits.logsumexp(-1).mean() + output.masks.low_res_masks.mean()
    (loss + output.masks.iou_logits.sum()).backward()
    untouched = {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    }
    # A key's bias cancels in the softmax; nothing is normed after the last image update.
    assert {n for n in untouched if not n.endswith("key.bias")} <= {"decoder.tower.classifier.bias"}


def test_padding_is_not_read(model: LisaModel, processor: LisaProcessor) -> None:
    batch = batch_of(processor)
    with torch.no_grad():
        expected = model(batch)
        batch.input_ids = batch.input_ids.where(batch.segments != PADDING_SEGMENT, torch.tensor(9))
        output = model(batch)
    torch.testing.assert_close(output.logits, expected.logits)
    torch.testing.assert_close(output.seg_prompts, expected.seg_prompts)


# -------------------------------------------------------------------------- files


@pytest.mark.parametrize("tied", [True, False])
def test_saved_and_read_back_as_transformers_does(
    tmp_path: Path, processor: LisaProcessor, tied: bool
) -> None:
    language = processor.config.language | {"tie_word_embeddings": tied}
    model = lively_model(tiny_config(chat_tokenizer(), language=language))
    model.save_pretrained(tmp_path)
    back, report = NanoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    state, state_back = model.state_dict(), back.state_dict()
    assert state.keys() == state_back.keys()
    assert all(torch.equal(state[key], state_back[key]) for key in state)
    shared = back.vlm.language.lm_head.weight is back.vlm.vocabulary
    assert shared is tied
    given: list[str | None] = [None, "[SEG]."]
    pairs = [(0, QUESTIONS[0])] * 2
    results = [answer(m, processor, encode(m, processor, 0), pairs, given) for m in (model, back)]
    for one, other in zip(*results, strict=True):
        assert_same(one, other)


def test_saving_twice_gives_the_same_bytes(tmp_path: Path, model: LisaModel) -> None:
    for name in ("one", "two"):
        model.save_pretrained(tmp_path / name)
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@torch.no_grad()
def test_the_parts_start_with_the_weights_they_gave_themselves() -> None:
    """`transformers` would overwrite them all with its own 0.02."""
    torch.manual_seed(0)
    model = NanoModel(tiny_config(chat_tokenizer()))
    assert float(model.decoder.neck.semantic_keys.weight.std()) == pytest.approx(0.4, rel=0.05)
    lateral = model.decoder.neck.lateral32.weight  # PyTorch's own: uniform, 1 / sqrt(inputs)
    assert float(lateral.abs().max()) == pytest.approx(lateral.shape[1] ** -0.5, rel=0.05)
    assert float(model.vlm.vocabulary.std()) == pytest.approx(0.02, rel=0.1)
    places = model.vlm.projector.place_embedding  # they whisper beside the words
    assert float(places.weight.std()) == pytest.approx(0.005, rel=0.1)
    assert not places.bias.any()


def test_masks_are_split_by_answer() -> None:
    number = torch.arange(4.0)
    parts: list[Tensor] = [
        part.iou_logits for part in split_masks(DecodedMasks(number, number, number), [1, 0, 3])
    ]
    assert [part.tolist() for part in parts] == [[0.0], [], [1.0, 2.0, 3.0]]
