"""What the templates write, what is supervised, and what does not fit."""

import pytest
import torch

from helpers.llama_tokenizer import llama_tokenizer
from lisa.errors import QuestionError
from lisa.model.chat_templates import (
    IMAGE_TOKEN_ID,
    TEMPLATES,
    Row,
    Template,
    encode_row,
    encode_with_image,
    mark_image,
    stack,
    text_limit,
)
from lisa.model.interfaces import IGNORE_LABEL
from lisa.model.llama_tokenizer import LegacyTokenizer

V1, LLAMA_2 = TEMPLATES["llava_v1"], TEMPLATES["llava_llama_2"]
TURNS = ["<image>\nthe cup?", "Sure, [SEG].", "the dog?", "It is [SEG]."]


@pytest.fixture
def tokenizer() -> LegacyTokenizer:
    return llama_tokenizer()


def test_v1_writes_rounds() -> None:
    assert V1.write(TURNS) == (
        f"{V1.system} USER: <image>\nthe cup? ASSISTANT: Sure, [SEG].</s>"
        "USER: the dog? ASSISTANT: It is [SEG].</s>"
    )


def test_llama_2_writes_rounds() -> None:
    assert LLAMA_2.write(TURNS) == (
        f"[INST] <<SYS>>\n{LLAMA_2.system}\n<</SYS>>\n\n<image>\nthe cup? [/INST] Sure, [SEG]. </s>"
        "<s>[INST] the dog? [/INST] It is [SEG]. </s>"
    )


def test_a_last_question_is_left_to_answer() -> None:
    assert V1.write(TURNS[:3]).endswith("</s>USER: the dog? ASSISTANT:")
    assert LLAMA_2.write(TURNS[:3]).endswith("</s><s>[INST] the dog? [/INST]")


def test_an_image_takes_one_id_and_one_bos_remains(tokenizer: LegacyTokenizer) -> None:
    ids = encode_with_image("a<image>b", tokenizer)
    assert ids == [*tokenizer.encode("a"), IMAGE_TOKEN_ID, *tokenizer.encode("b", bos=False)]
    assert encode_with_image("no picture", tokenizer) == tokenizer.encode("no picture")


def test_marked_image(tokenizer: LegacyTokenizer) -> None:
    ids = encode_with_image(mark_image("<image>\nhi"), tokenizer)
    start, end = tokenizer.token_id("<im_start>"), tokenizer.token_id("<im_end>")
    assert ids[1:4] == [start, IMAGE_TOKEN_ID, end]


@pytest.mark.parametrize("template", [V1, LLAMA_2], ids=["v1", "llama_2"])
def test_answers_and_their_ends_are_supervised(
    template: Template, tokenizer: LegacyTokenizer
) -> None:
    row = encode_row(template.write(TURNS), template, tokenizer)
    assert len(row.labels) == len(row.ids)
    learnt = [label for label in row.labels if label != IGNORE_LABEL]
    text = tokenizer.decode(learnt).replace(" ", "")
    assert text == "Sure,[SEG].</s>Itis[SEG].</s>"
    assert all(label in (IGNORE_LABEL, i) for label, i in zip(row.labels, row.ids, strict=True))


def test_questions_are_not_supervised(tokenizer: LegacyTokenizer) -> None:
    row = encode_row(V1.write(["Is [SEG] one?", "Yes."]), V1, tokenizer)
    assert tokenizer.seg_token_id in row.ids
    assert tokenizer.seg_token_id not in row.labels


@pytest.mark.parametrize("text", ["no answer here</s>", "a ASSISTANT: b ASSISTANT: c</s>"])
def test_a_round_is_one_question_and_one_answer(text: str, tokenizer: LegacyTokenizer) -> None:
    with pytest.raises(QuestionError, match="expected one question and one answer"):
        encode_row(text, V1, tokenizer)


def test_an_end_within_a_question_is_refused(tokenizer: LegacyTokenizer) -> None:
    with pytest.raises(QuestionError, match="one question and one answer"):
        encode_row(V1.write(["odd</s>question", "Yes."]), V1, tokenizer)


@pytest.mark.parametrize(
    ("limit", "lost"), [(5, r"a \[SEG\]"), (4, r"a \[SEG\]"), (6, None), (9, None)]
)
def test_a_cut_must_not_lose_a_seg(limit: int, lost: str | None) -> None:
    row = Row([1, 5, 6, 7, 8, 9, 2], [IGNORE_LABEL] * 4 + [8, 9, 2])
    if lost is None:
        assert len(row.cut(limit, seg_token_id=9).ids) == min(limit, 7)
        return
    with pytest.raises(QuestionError, match=f"has 7 tokens, .* {lost}; expected at most {limit}"):
        row.cut(limit, seg_token_id=9)
    assert row.cut(limit, seg_token_id=9, silently=True) == Row(row.ids[:limit], row.labels[:limit])


def test_a_cut_must_not_lose_the_whole_answer() -> None:
    row = Row([1, 5, 6, 7, 8, 2], [IGNORE_LABEL] * 4 + [8, 2])
    with pytest.raises(QuestionError, match="its answer"):
        row.cut(4, seg_token_id=9)


def test_the_picture_counts() -> None:
    assert text_limit(256) == 257
    assert text_limit(576, model_max_length=2048) == 2048 - 575


def test_rows_are_padded_on_the_right() -> None:
    tensors = stack([Row([1, 5], [IGNORE_LABEL, 5]), Row([1], [IGNORE_LABEL])], 0)
    assert tensors["input_ids"].tolist() == [[1, 5], [1, 0]]
    assert tensors["labels"].tolist() == [[IGNORE_LABEL, 5], [IGNORE_LABEL] * 2]
    assert torch.equal(tensors["attention_mask"], torch.tensor([[True, True], [True, False]]))
