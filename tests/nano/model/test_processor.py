"""The processor: what becomes ids, what becomes tensors, and the way back."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from torch import Tensor
from torch.nn import functional as F

from helpers.lively_model import chat_tokenizer, picture, tiny_config
from lisa.errors import ModelError
from lisa.example import MAX_QUESTION_CHARACTERS, Example
from lisa.model import geometry
from lisa.model.answers import group_by_image, phrases, target_answer
from lisa.model.config import LisaConfig
from lisa.model.interfaces import IGNORE_LABEL, DecodedMasks, Generated
from lisa.nano.model import processor as processor_file
from lisa.nano.model.processor import LisaProcessor, add_seg_token, check_seg_token, pad
from lisa.nano.model.zoom import fuse_views, main_pieces, zoom_box

HEIGHT, WIDTH = 40, 48  # of `picture`
SEG = "[SEG]"
START, END = "<|im_start|>", "<|im_end|>"

words = st.text(st.characters(codec="utf-8"), max_size=40)
texts = st.lists(words | st.sampled_from([SEG, START, END, "<|endoftext|>", "[SEG", " "])).map(
    "".join
)


@pytest.fixture(scope="module")
def made() -> LisaProcessor:
    """A processor without a model."""
    tokenizer = chat_tokenizer()
    return LisaProcessor(tokenizer, tiny_config(tokenizer))


def control_ids(processor: LisaProcessor) -> set[int]:
    """Every id that only the processor may write."""
    added = processor.tokenizer.get_added_tokens_decoder()
    return {token_id for token_id, token in added.items() if token.special}


def plain(processor: LisaProcessor, text: str) -> list[int]:
    return processor.tokenizer.encode(text, add_special_tokens=False).ids


def everything(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.ones((1, height, width), bool)


# ------------------------------------------------------------------------- text


def test_a_row_begins_with_the_users_turn_and_the_picture(made: LisaProcessor) -> None:
    ids = made.prefix_ids()
    before = [made.tokenizer.token_to_id(START), *plain(made, "user\n")]
    assert ids[: len(before)] == before
    assert ids[len(before) : -1] == [0] * made.config.visual_tokens
    assert ids[-1:] == plain(made, "\n")


def test_a_question_ends_with_the_assistants_opening(made: LisaProcessor) -> None:
    end, start = (made.tokenizer.token_to_id(marker) for marker in (END, START))
    opening = [end, *plain(made, "\n"), start, *plain(made, "assistant\n")]
    assert made.question_ids("  what is the cat? \n") == plain(made, "what is the cat?") + opening


def test_the_layout_is_that_of_a_chat_model(made: LisaProcessor) -> None:
    ids = (
        [i for i in made.prefix_ids() if i]
        + made.question_ids("what?")
        + made.answer_ids("A [SEG]")
    )
    shown = made.tokenizer.decode(ids, skip_special_tokens=False)
    assert shown == f"{START}user\n\nwhat?{END}\n{START}assistant\nA{SEG}{END}"


@given(texts)
def test_nothing_in_a_question_is_a_control_token(made: LisaProcessor, text: str) -> None:
    opening = made.question_ids("")
    ids = made.question_ids(text)
    assert ids[len(ids) - len(opening) :] == opening
    asked = ids[: len(ids) - len(opening)]
    assert not control_ids(made) & set(asked)
    assert made.tokenizer.decode(asked) == text.strip()


@given(texts)
def test_an_answer_has_its_seg_tokens_and_one_end(made: LisaProcessor, text: str) -> None:
    ids = made.answer_ids(text)
    assert ids.count(made.config.seg_token_id) == text.count(SEG)
    assert ids.index(made.end_token_id) == len(ids) - 1
    assert len(control_ids(made) & set(ids)) <= 2


@pytest.mark.parametrize(
    ("answer", "pieces"),
    [
        ("The cat. [SEG]", ["The cat.", None]),
        ("[SEG].", [None, "."]),
        ("a \n[SEG][SEG] b", ["a", None, None, " b"]),
        ("", []),
    ],
)
def test_a_seg_token_swallows_the_space_before_it(
    made: LisaProcessor, answer: str, pieces: list[str | None]
) -> None:
    seg = [made.config.seg_token_id]
    expected = [i for piece in pieces for i in (seg if piece is None else plain(made, piece))]
    assert made.answer_ids(answer) == [*expected, made.end_token_id]


def test_answers_are_read_as_the_tokenizer_itself_reads_them(made: LisaProcessor) -> None:
    reader = Tokenizer.from_str(made.tokenizer.to_str())
    for answer in ("The cat. [SEG]", "[SEG].", "the cat [SEG] and the cup [SEG].", "no"):
        assert made.answer_ids(answer) == reader.encode(answer + END, add_special_tokens=False).ids


def test_a_name_is_read_as_it_stands_in_running_text(made: LisaProcessor) -> None:
    assert made.phrase_ids(" umbrella ") == plain(made, "what umbrella")[len(plain(made, "what")) :]


def test_a_comma_is_the_token_between_names(made: LisaProcessor) -> None:
    assert made.tokenizer.decode([made.comma_id]) == ","


def test_two_threads_cannot_make_text_a_control_token(made: LisaProcessor) -> None:
    """The tokenizer is in the same state whatever was read last."""
    made.answer_ids("[SEG].")
    made.prefix_ids()
    assert made.tokenizer.encode_special_tokens


LONG = [
    "what is the cat? " * 117 + "ab cdefgh",
    "猫はどこにいますか。" * 200,
    "🧢" * MAX_QUESTION_CHARACTERS,
    "Wo ist die Tasse, aus der ich trinken könnte?",
    "؟أين القطة",
]


@pytest.mark.parametrize("question", LONG)
def test_long_and_foreign_questions_lose_nothing(made: LisaProcessor, question: str) -> None:
    ids = made.question_ids(question)
    asked = ids[: len(ids) - len(made.question_ids(""))]
    assert made.tokenizer.decode(asked) == question.strip()


# ------------------------------------------------------------------ bad tokenizers


def without_seg() -> Tokenizer:
    tokenizer = Tokenizer.from_str(chat_tokenizer().to_str().replace(SEG, "[GES]"))
    assert tokenizer.token_to_id(SEG) is None
    return tokenizer


def test_a_tokenizer_without_seg_is_refused() -> None:
    tokenizer = without_seg()
    with pytest.raises(ModelError, match=r"reads '\[SEG\]' as ids \[.*\]; expected the one id 400"):
        LisaProcessor(tokenizer, LisaConfig.tiny(400, 400))


def test_a_seg_token_with_another_id_is_refused() -> None:
    with pytest.raises(ModelError, match=r"as ids \[400\]; expected the one id 399"):
        check_seg_token(chat_tokenizer(), 399)


def test_seg_is_added_once_as_the_last_token() -> None:
    tokenizer = without_seg()
    count = tokenizer.get_vocab_size()
    assert add_seg_token(tokenizer) == count
    assert add_seg_token(tokenizer) == count
    check_seg_token(tokenizer, count)


def test_a_tokenizer_of_no_chat_model_is_refused() -> None:
    tokenizer = Tokenizer.from_str(chat_tokenizer().to_str().replace(START, "<|go|>"))
    with pytest.raises(ModelError, match=r"no token '<\|im_start\|>'; expected"):
        LisaProcessor(tokenizer, tiny_config(chat_tokenizer()))


def test_markers_that_can_be_written_as_text_are_refused() -> None:
    tokenizer = chat_tokenizer()
    tokenizer.add_tokens([AddedToken(END, special=False)])
    serialised = tokenizer.to_str()
    open_marker = f'"content":"{END}","single_word":false,"lstrip":false,"rstrip":false'
    assert open_marker in serialised
    at = serialised.index(open_marker)
    changed = serialised[:at] + serialised[at:].replace('"special":true', '"special":false', 1)
    with pytest.raises(
        ModelError, match=r"reads '<\|im_end\|>' in text as a control token; expected"
    ):
        LisaProcessor(Tokenizer.from_str(changed), tiny_config(chat_tokenizer()))


# ------------------------------------------------------------------------ batches


def three_examples() -> list[Example]:
    one, two = picture(seed=0), picture(30, 50, seed=1)
    return [
        Example(one, "what is the cat?", "The cat.", everything(), phrase="cat"),
        Example(one, "a cup?", "There is no cup.", everything()[:0], phrase="the cup"),
        Example(two, "what is in the picture?", "A cat."),
    ]


def test_questions_about_one_picture_share_a_row(made: LisaProcessor) -> None:
    examples = three_examples()
    batch = made.encode(examples)
    assert batch.pixel_values.shape == (2, 3, 64, 64)
    prefix, start = made.prefix_ids(), len(made.prefix_ids())
    for row, asked in enumerate((examples[:2], examples[2:])):
        ids, segments, positions, labels = (
            list(prefix),
            [0] * start,
            list(range(start)),
            [-100] * start,
        )
        for number, example in enumerate(asked, start=1):
            question = made.question_ids(example.question)
            answer = made.answer_ids(target_answer(example))
            length = len(question) + len(answer)
            ids += question + answer
            segments += [number] * length
            positions += range(start, start + length)
            labels += [IGNORE_LABEL] * len(question) + answer
        length = len(ids)
        assert batch.labels is not None
        for tensor, expected, padding in (
            (batch.input_ids, ids, 0),
            (batch.segments, segments, -1),
            (batch.position_ids, positions, 0),
            (batch.labels, labels, -100),
        ):
            assert tensor[row].tolist() == expected + [padding] * (tensor.shape[1] - length)


def test_text_needs_no_picture(made: LisaProcessor) -> None:
    one, two, three = three_examples()
    whole, text = made.encode([one, two, three]), made.encode_text([[one, two], [three]])
    for name in ("input_ids", "segments", "position_ids", "labels"):
        assert torch.equal(getattr(text, name), getattr(whole, name)), name
    assert text.pixel_values.numel() == 0
    assert (text.masks, text.phrase_ids, text.present) == (None, None, None)


def test_rows_go_by_what_is_given_and_not_by_the_picture(made: LisaProcessor) -> None:
    """Imagined scenes share one picture that is none."""
    one, two, _ = three_examples()
    assert one.image is two.image
    assert made.encode_text([[one], [two]]).segments.amax(1).tolist() == [1, 1]


def test_targets_are_those_that_are_called_something(made: LisaProcessor) -> None:
    batch = made.encode([*three_examples(), Example(picture(), "the umbrella?", phrase="umbrella")])
    assert batch.image_index is not None
    assert batch.phrase_ids is not None
    assert batch.masks is not None
    assert batch.known is not None
    assert batch.present is not None
    assert batch.image_index.tolist() == [0, 0, 2]
    names = [[i for i in row if i >= 0] for row in batch.phrase_ids.tolist()]
    assert names == [made.phrase_ids(name) for name in ("cat", "the cup", "umbrella")]
    assert batch.masks.flatten(1).amax(1).tolist() == [1, 0, 0]
    assert batch.known.tolist() == [True, True, False]
    assert batch.present.tolist() == [True, False, True]


def test_a_batch_that_only_talks_has_no_targets(made: LisaProcessor) -> None:
    batch = made.encode(three_examples()[2:])
    assert (batch.masks, batch.phrase_ids, batch.present) == (None, None, None)


@given(
    st.lists(st.tuples(texts, st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=4)
)
@settings(max_examples=30, deadline=None)
def test_there_is_one_seg_for_each_present_target_whatever_the_answer_says(
    made: LisaProcessor, rows: list[tuple[str, bool, bool, bool]]
) -> None:
    image = picture(8, 8)
    mask = np.ones((1, 8, 8), bool)
    examples = [
        Example(
            image,
            "what?",
            text,
            (mask if there else mask[:0]) if known else None,
            phrase="cat" * named,
        )
        for text, named, known, there in rows
    ]
    batch = made.encode(examples)
    expected = [named and (there or not known) for _, named, known, there in rows]
    for number, present in enumerate(expected, start=1):
        ids = batch.input_ids[batch.segments == number]
        assert int((ids == made.config.seg_token_id).sum()) == int(present)
    if batch.present is not None:
        assert int(batch.present.sum()) == sum(expected)


@pytest.mark.parametrize(
    ("answer", "there", "spoken"),
    [
        ("The cat.", True, "The cat. [SEG]"),
        ("[SEG] The cat [SEG].", True, "The cat . [SEG]"),
        (None, True, "[SEG]."),
        (" [SEG]", True, "[SEG]."),
        ("There is no cat.", False, "There is no cat."),
        ("[SEG].", False, "."),
        (None, False, ""),
    ],
)
def test_what_is_spoken(answer: str | None, there: bool, spoken: str) -> None:
    masks = everything() if there else everything()[:0]
    assert target_answer(Example(picture(), "cat?", answer, masks, phrase="cat")) == spoken


def test_only_neighbours_with_the_same_picture_object_share_a_row() -> None:
    one, two, three = three_examples()
    rows = group_by_image([one, three, two])
    assert [len(row) for row in rows] == [1, 1, 1]
    assert [len(row) for row in group_by_image([one, two, three])] == [2, 1]


def test_rows_are_filled_on_the_right() -> None:
    assert pad([[1], [2, 3]], -1).tolist() == [[1, -1], [2, 3]]


# ------------------------------------------------------------------------ geometry


def test_pictures_become_squares_between_minus_one_and_one(made: LisaProcessor) -> None:
    white = picture(3, 5).point(lambda _: 255)
    black = picture(3000, 1).point(lambda _: 0)
    pixels = made.encode_images([white, black])
    assert pixels.shape == (2, 3, 64, 64)
    assert pixels.dtype == torch.float32
    assert (pixels[0].unique().tolist(), pixels[1].unique().tolist()) == ([1.0], [-1.0])


def test_a_picture_of_the_right_size_is_taken_as_it_is(made: LisaProcessor) -> None:
    image = picture(64, 64)
    expected = np.asarray(image).transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(made.encode_images([image])[0].numpy(), expected, atol=1e-6)


def test_left_stays_left_and_top_stays_top(made: LisaProcessor) -> None:
    pixels = np.zeros((30, 90, 3), np.uint8)
    pixels[:, :45, 0], pixels[:15, :, 1] = 255, 255
    encoded = made.encode_images([processor_file.Image.fromarray(pixels)])[0]
    assert encoded[0, :, :30].min() == 1.0
    assert encoded[0, :, 34:].max() == -1.0
    assert encoded[1, :30].min() == 1.0
    assert encoded[1, 34:].max() == -1.0


sizes = st.tuples(st.integers(1, 80), st.integers(1, 80)) | st.sampled_from(
    [(1, 1), (1, 3000), (3000, 1), (16, 16), (384, 97), (7, 900)]
)


def shares_by_hand(mask: np.ndarray, side: int) -> np.ndarray:
    """The share of each of ``side`` x ``side`` cells that is covered, by exact areas."""

    def weights(length: int) -> np.ndarray:
        """How much of each pixel lies in each cell, in parts of the cell: [side, length]."""
        edges = np.arange(length + 1)
        cells = np.arange(side + 1) * length / side
        low = np.maximum(edges[:-1][None], cells[:-1][:, None])
        high = np.minimum(edges[1:][None], cells[1:][:, None])
        return np.clip(high - low, 0, None) / (length / side)

    return weights(mask.shape[0]) @ mask.astype(float) @ weights(mask.shape[1]).T


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_an_encoded_mask_holds_exact_shares_where_cells_hold_whole_pixels(
    made: LisaProcessor, rows: int, columns: int, seed: int
) -> None:
    mask = np.random.default_rng(seed).random((16 * rows, 16 * columns)) < 0.4
    encoded = made.encode_mask(mask).numpy()
    assert encoded.shape == (16, 16)
    np.testing.assert_allclose(encoded, shares_by_hand(mask, 16), atol=1.01 / 255)


@given(sizes, st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_an_encoded_mask_keeps_the_covered_share(
    made: LisaProcessor, size: tuple[int, int], seed: int
) -> None:
    mask = np.random.default_rng(seed).random(size) < 0.4
    encoded = made.encode_mask(mask)
    assert encoded.shape == (16, 16)
    assert 0 <= float(encoded.min()) <= float(encoded.max()) <= 1
    if min(size) >= 16:
        assert float(encoded.mean()) == pytest.approx(mask.mean(), abs=0.05)
    assert made.encode_mask(np.ones_like(mask)).unique().tolist() == [1.0]
    assert made.encode_mask(np.zeros_like(mask)).unique().tolist() == [0.0]


@contextmanager
def mask_threshold(processor: LisaProcessor, threshold: float) -> Iterator[None]:
    """Another threshold for a while."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processor.config, "mask_threshold", threshold)
        yield


def some_logits(seed: int, mean: float = 0.0) -> Tensor:
    return torch.randn(16, 16, generator=torch.Generator().manual_seed(seed)) * 3 + mean


@given(sizes, st.integers(0, 9), st.floats(-8, 8), st.floats(0.05, 0.95))
@settings(max_examples=60, deadline=None)
def test_a_mask_is_stretched_as_pytorch_stretches(
    made: LisaProcessor, size: tuple[int, int], seed: int, mean: float, threshold: float
) -> None:
    logits = some_logits(seed, mean)
    with mask_threshold(made, threshold):
        mask = made.decode_mask(logits, size)
    assert (mask.shape, mask.dtype) == (size, np.dtype(bool))
    assert mask.flags["C_CONTIGUOUS"]
    full = F.interpolate(logits[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    probability = full.double().sigmoid().numpy()
    cut = min(threshold, float(logits.double().max().sigmoid()) / 2)  # half the peak, if lower
    clear = np.abs(full.numpy() - math.log(cut / (1 - cut))) > 1e-4
    assert (mask == (probability > cut))[clear].all()


@given(sizes, st.integers(1, 50))
@settings(max_examples=40, deadline=None)
def test_a_mask_does_not_depend_on_the_bands_it_is_stretched_in(
    made: LisaProcessor, size: tuple[int, int], band: int
) -> None:
    logits = some_logits(sum(size))
    whole = made.decode_mask(logits, size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(geometry, "BAND_PIXELS", band * max(size) // 4 + 1)
        assert (made.decode_mask(logits, size) == whole).all()


def test_every_mask_points_somewhere(made: LisaProcessor) -> None:
    for mean in (-10.0, -4.0, 0.0, 10.0):
        assert made.decode_mask(some_logits(0, mean), (48, 40)).any()


@pytest.mark.parametrize(
    "size", [(2000, 4000), (4000, 2000), (1, 5_000_000), (5_000_000, 1), (1_500_000, 7)]
)
def test_a_huge_mask_is_stretched_in_little_memory(
    made: LisaProcessor, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    largest = 0
    lerp = torch.lerp

    def watched(*arguments: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        result = lerp(*arguments)
        largest = max(largest, result.numel())
        return result

    monkeypatch.setattr(torch, "lerp", watched)
    logits = torch.full((16, 16), -1.0)
    logits[8:, :] = 1.0
    mask = made.decode_mask(logits, size)
    assert mask.shape == size
    assert largest <= max(geometry.BAND_PIXELS, max(16, 16) * math.isqrt(200_000_000))
    assert mask[: max(1, size[0] // 2 - size[0] // 16)].any() == (size[0] == 1)
    assert mask[size[0] // 2 + size[0] // 16 :].all() or size[0] == 1


@given(st.tuples(st.integers(1, 4), st.integers(1, 4)), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_there_and_back_keeps_a_box_but_for_its_border(
    made: LisaProcessor, cell: tuple[int, int], seed: int
) -> None:
    """A box of whole low-resolution cells, each of ``cell`` pixels, comes back within one cell."""
    generator = np.random.default_rng(seed)
    (top, bottom), (left, right) = (sorted(generator.choice(17, 2, replace=False)) for _ in "yx")
    mask = np.zeros((16 * cell[0], 16 * cell[1]), bool)
    mask[top * cell[0] : bottom * cell[0], left * cell[1] : right * cell[1]] = True
    back = made.decode_mask(made.encode_mask(mask) * 20 - 10, mask.shape)
    assert not (back != mask)[far_from_border(mask, cell)].any()


def far_from_border(mask: np.ndarray, cell: tuple[int, int]) -> np.ndarray:
    """Pixels whose whole neighbourhood of one cell to each side is alike."""
    padded = np.pad(mask, ((cell[0],) * 2, (cell[1],) * 2), mode="edge")
    views = np.lib.stride_tricks.sliding_window_view(padded, (2 * cell[0] + 1, 2 * cell[1] + 1))
    return views.all((2, 3)) | ~views.any((2, 3))


@given(sizes, st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_a_closer_look_holds_the_mask_and_lies_in_the_picture(
    size: tuple[int, int], seed: int
) -> None:
    generator = np.random.default_rng(seed)
    (top, bottom), (left, right) = (np.sort(generator.integers(0, side, 2)) for side in size)
    mask = np.zeros(size, bool)
    mask[top : bottom + 1, left : right + 1] = True
    box = zoom_box(mask)
    if box is None:
        assert mask.mean() > 0.05  # a small mask gains from it
        return
    x0, y0, x1, y1 = box
    assert 0 <= x0 <= left <= right < x1 <= size[1]
    assert 0 <= y0 <= top <= bottom < y1 <= size[0]
    assert (x1 - x0) * (y1 - y0) < mask.size


@pytest.mark.parametrize("mask", [np.zeros((30, 40), bool), np.ones((30, 40), bool)])
def test_nothing_is_gained_by_a_closer_look_at_nothing_or_everything(mask: np.ndarray) -> None:
    assert zoom_box(mask) is None


def test_a_closer_look_leaves_room_around_the_mask() -> None:
    mask = np.zeros((400, 800), bool)
    mask[100:200, 300:500] = True
    left, top, right, bottom = zoom_box(mask) or (0, 0, 0, 0)
    assert 300 - left == right - 500 > 0  # as much on each side
    assert 100 - top == bottom - 200 > 0


# ------------------------------------------------------------------- answers


def generated(processor: LisaProcessor, ids: list[int]) -> Generated:
    """An answer whose masks are all, half, all ... of the picture, with scores that rise."""
    count = ids.count(processor.config.seg_token_id)
    low_res_masks = torch.full((count, 16, 16), 10.0)
    low_res_masks[1::2, 8:] = -10.0
    number = torch.arange(count).float()
    masks = DecodedMasks(low_res_masks, number, torch.zeros(count, 2, 2))
    return Generated(ids, masks, torch.zeros(count, 4))


@pytest.mark.parametrize(
    ("answer", "text", "names"),
    [
        ("The umbrella. [SEG]", "The umbrella.", ["umbrella"]),
        ("[SEG].", ".", [""]),
        ("The cat [SEG] and the cup [SEG].", "The cat and the cup.", ["cat", "cup"]),
        ("A cat [SEG], a big cup [SEG]!", "A cat, a big cup!", ["cat", "big cup"]),
        ("[SEG][SEG]", "", ["", ""]),
        ("There is no cat.\n\nNo  cup.", "There is no cat. No cup.", []),
        ("An anteater: [SEG]", "An anteater:", ["anteater"]),
        ("The\ncat\t [SEG]", "The cat", ["cat"]),
    ],
)
def test_an_answer_becomes_text_and_named_masks(
    made: LisaProcessor, answer: str, text: str, names: list[str]
) -> None:
    ids = made.answer_ids(answer)[:-1]
    said, masks = made.decode(generated(made, ids), (30, 20))
    assert said == text
    assert [mask.phrase for mask in masks] == names
    assert [mask.area for mask in masks] == [(600, 300)[n % 2] for n in range(len(names))]
    expected = torch.arange(len(names)).float().sigmoid().tolist()
    assert [mask.score for mask in masks] == pytest.approx(expected)


def test_scores_are_calibrated_and_keep_their_order(made: LisaProcessor) -> None:
    plain = made.scores(torch.tensor([-2.0, 0.0, 3.0]))
    assert plain == pytest.approx([0.1192, 0.5, 0.9526], abs=1e-4)
    config = tiny_config(chat_tokenizer(), score_scale=0.5, score_bias=-1.0)
    scores = LisaProcessor(chat_tokenizer(), config).scores(torch.tensor([-2.0, 0.0, 3.0]))
    assert scores == pytest.approx([0.1192, 0.2689, 0.6225], abs=1e-4)


@pytest.mark.parametrize("answer", ["The cat.[SEG]", "[SEG].", "a cup[SEG] and a cat[SEG]", "No."])
def test_an_answer_is_read_back_with_its_seg_tokens(made: LisaProcessor, answer: str) -> None:
    assert made.read(made.answer_ids(answer)) == answer


@given(st.lists(st.integers(0, 400), max_size=12))
@settings(max_examples=100, deadline=None)
def test_whatever_is_generated_there_is_a_mask_for_each_seg_and_no_marker_in_the_text(
    made: LisaProcessor, ids: list[int]
) -> None:
    text, masks = made.decode(generated(made, ids), (3, 2))
    assert len(masks) == ids.count(made.config.seg_token_id)
    for marker in (SEG, START, END, "<|endoftext|>"):
        assert marker not in text
    assert "\n" not in text


def test_seg_written_letter_by_letter_is_no_mask(made: LisaProcessor) -> None:
    ids = plain(made, "so [SEG] is ")
    assert made.config.seg_token_id not in ids
    text, masks = made.decode(generated(made, [*ids, made.config.seg_token_id]), (3, 2))
    assert text == "so is"
    assert [mask.phrase for mask in masks] == ["so is"]


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        ("I would take the umbrella. [SEG]", ["I would take the umbrella"]),
        ("The cat, [SEG] and a cup [SEG] and more", ["cat", "cup"]),
        ("Another cat [SEG]", ["Another cat"]),
        ("no mask", []),
    ],
)
def test_phrases(raw: str, names: list[str]) -> None:
    assert phrases(raw) == names


def test_two_views_that_agree_are_one() -> None:
    logits = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    both = fuse_views(logits, logits, (0, 0, 30, 20), (20, 30))
    torch.testing.assert_close(both, logits, atol=1e-4, rtol=0)


def test_two_views_are_the_mean_of_their_probabilities_in_the_box() -> None:
    """The whole picture says left half yes, right half no; the box is the right half."""
    whole = torch.full((8, 8), 6.0)
    whole[:, 4:] = -6.0
    both = fuse_views(whole, torch.full((8, 8), 6.0), (20, 0, 40, 30), (30, 40))
    torch.testing.assert_close(both[:, 1:].sigmoid(), torch.full((8, 7), 0.5), atol=1e-3, rtol=0)
    upper = torch.zeros(8, 8)
    upper[4:] = 2.0
    lower = fuse_views(upper, torch.full((8, 8), 2.0), (0, 15, 40, 30), (30, 40))
    torch.testing.assert_close(lower[1:], torch.full((7, 8), 2.0))


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_main_pieces_are_the_largest_and_those_half_as_large(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    mask, kept = np.zeros((12, 40), bool), np.zeros((12, 40), bool)
    sides = random.integers(1, 9, count)
    for n, side in enumerate(sides.tolist()):
        mask[1 : 1 + side, 10 * n : 10 * n + side] = True
        if 2 * side**2 >= sides.max() ** 2:
            kept[1 : 1 + side, 10 * n : 10 * n + side] = True
    before = mask.copy()
    assert np.array_equal(main_pieces(mask), kept)
    assert np.array_equal(mask, before)
    assert not main_pieces(np.zeros((3, 4), bool)).any()
