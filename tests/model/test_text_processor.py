"""Questions and answers as ids, and back: nobody can write a control token."""

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from helpers.llama_tokenizer import llama_tokenizer
from helpers.parts import CONTROL, TEMPLATE, decoder_fields, tokenizer, vlm_fields
from lisa.errors import ModelError
from lisa.example import SEG_TOKEN
from lisa.model.chat_templates import IMAGE_TOKEN_ID
from lisa.model.config import LisaConfig
from lisa.model.interfaces import IGNORE_LABEL
from lisa.model.text_processor import ChatText, OfficialText, TextProcessor, break_up


def config(seg_token_id: int, conversation: str, **changes: Any) -> LisaConfig:
    changes |= {"seg_token_id": seg_token_id, "conversation": conversation}
    return LisaConfig.from_parts(vlm_fields("llava"), decoder_fields("sam"), **changes)


def legacy(conversation: str = "llava_v1", **changes: Any) -> OfficialText:
    words = llama_tokenizer()
    return OfficialText(words, config(words.seg_token_id, conversation, **changes))


def chat(template: str | None, **changes: Any) -> ChatText:
    words = tokenizer(template)
    return ChatText(words, config(len(words), "chat", **changes))


VOICES = {
    "llava_v1": lambda **changes: legacy("llava_v1", **changes),
    "llava_llama_2": lambda **changes: legacy("llava_llama_2", **changes),
    "template": lambda **changes: chat(TEMPLATE, **changes),
    "plain": lambda **changes: chat(None, **changes),
}


@pytest.fixture(params=VOICES)
def voice(request: pytest.FixtureRequest) -> TextProcessor:
    return VOICES[request.param]()


def seg_of(voice: Any) -> int:
    (number,) = voice.text_ids(SEG_TOKEN)
    return int(number)


def test_a_question_has_one_picture(voice: TextProcessor) -> None:
    assert voice.question_ids("What is the cat?").count(IMAGE_TOKEN_ID) == 1


def test_an_answer_is_supervised_to_its_end(voice: TextProcessor) -> None:
    row = voice.row("What is the cat?", "It is the cat [SEG].")
    asked = voice.question_ids("What is the cat?")
    assert row.ids == asked + voice.answer_ids("It is the cat [SEG].")
    supervised = [token for token, label in zip(row.ids, row.labels, strict=True) if label >= 0]
    assert row.labels[: len(asked)] == [IGNORE_LABEL] * len(asked)
    assert supervised == row.ids[len(asked) :]
    assert supervised[-1] == voice.end_token_id
    assert supervised.count(seg_of(voice)) == 1


def test_an_answer_is_read_as_it_was_written(voice: TextProcessor) -> None:
    answer = voice.answer_ids("It is the cat [SEG]")[:-1]
    assert voice.read(answer).replace(SEG_TOKEN, f" {SEG_TOKEN}").split() == [
        "It",
        "is",
        "the",
        "cat",
        SEG_TOKEN,
    ]


@pytest.mark.parametrize("marker", ["[SEG]", "<image>", "</s>", "<s>"])
def test_control_tokens_in_a_question_are_text(voice: TextProcessor, marker: str) -> None:
    plain, marked = (voice.question_ids(f"What is the {word} cat") for word in ("", marker))
    for control in (seg_of(voice), IMAGE_TOKEN_ID, voice.end_token_id, 1):
        assert marked.count(control) == plain.count(control)


@pytest.mark.parametrize("marker", ["<image>", "</s>"])
def test_control_tokens_in_an_answer_are_text(voice: TextProcessor, marker: str) -> None:
    ids = voice.answer_ids(f"It is {marker} [SEG].")
    assert ids.count(voice.end_token_id) == 1
    assert IMAGE_TOKEN_ID not in ids
    assert ids.count(seg_of(voice)) == 1


@pytest.mark.parametrize("name", ["llava_v1", "llava_llama_2"])
def test_further_turns_of_a_conversation_are_supervised_too(name: str) -> None:
    voice = VOICES[name]()
    further = [("What is left? [SEG] </s>", "the right cat"), ("the cat ?", "It is a cat")]
    row = voice.row("What is the cat?", "It is the left cat", further)
    supervised = [token for token, label in zip(row.ids, row.labels, strict=True) if label >= 0]
    answers = ["It is the left cat", "the right cat", "It is a cat"]
    assert supervised == [token for answer in answers for token in voice.answer_ids(answer)]
    assert row.ids.count(voice.end_token_id) == 3 and seg_of(voice) not in row.ids
    assert row.ids.count(IMAGE_TOKEN_ID) == 1


@pytest.mark.parametrize("name", ["template", "plain"])
def test_a_chat_has_the_first_turn_alone(name: str) -> None:
    voice = VOICES[name]()
    first = voice.row("What is the cat?", "It is left")
    assert voice.row("What is the cat?", "It is left", [("the cat ?", "left")]) == first


@pytest.mark.parametrize("name", ["llava_v1", "template"])
def test_official_questions_may_hold_seg(name: str) -> None:
    voice = VOICES[name](compat="official")
    assert seg_of(voice) in voice.question_ids("What is [SEG]?")


@pytest.mark.parametrize("name", VOICES)
def test_seg_must_be_the_configured_token(name: str) -> None:
    with pytest.raises(ModelError, match=r"\[SEG\].*expected the one id 4"):
        if name.startswith("llava"):
            OfficialText(llama_tokenizer(), config(4, name))
        else:
            ChatText(tokenizer(), config(4, "chat"))


def test_a_template_without_a_picture_is_refused() -> None:
    voice = chat("<s> user : {{ messages[0].content[1].text }} assistant :")
    with pytest.raises(ModelError, match="0 times '<image>'"):
        voice.question_ids("What is the cat?")


def test_an_answer_must_have_an_end() -> None:
    words = tokenizer()
    words.eos_token = None
    with pytest.raises(ModelError, match="no eos_token"):
        ChatText(words, config(len(words), "chat"))


def test_a_chat_survives_the_disk(tmp_path: Path) -> None:
    voice = chat(TEMPLATE)
    voice.save(tmp_path)
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    reread = ChatText(again, config(seg_of(voice), "chat"))
    for question in ("What is the cat?", f"What is {CONTROL[4]}?"):
        assert reread.question_ids(question) == voice.question_ids(question)


def test_breaking_up() -> None:
    assert break_up("a [SEG] b", ["[SEG]", "b"]) == "a [ SEG] b"
