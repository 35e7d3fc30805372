"""Two ways of writing questions and answers as ids: official LISA's, and a tokenizer's own chat.

What a person writes is text, whatever it looks like: control tokens in it are broken up, so that
only this file writes them (``compat="official"`` leaves them, as the official code does). This file
knows strings and ids; it refuses to know pictures, whose place is ``IMAGE_TOKEN_ID``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from lisa.errors import ModelError
from lisa.example import SEG_TOKEN
from lisa.model.chat_templates import (
    IMAGE_TOKEN,
    IMAGE_TOKEN_ID,
    TEMPLATES,
    Row,
    encode_row,
    encode_with_image,
    mark_image,
)
from lisa.model.config import OFFICIAL, LisaConfig
from lisa.model.interfaces import IGNORE_LABEL
from lisa.model.llama_tokenizer import LegacyTokenizer

Turns = Sequence[tuple[str, str]]  # questions and answers
ANY_QUESTION = "Q"  # an answer's ids do not depend on its question


class TextProcessor(Protocol):
    """Questions and answers of one model, as ids."""

    end_token_id: int

    def question_ids(self, question: str) -> list[int]:
        """A question about a picture, up to the answer."""
        ...

    def answer_ids(self, answer: str) -> list[int]:
        """An answer with its ``[SEG]`` tokens and the end."""
        ...

    def row(self, question: str, answer: str, further: Turns = ()) -> Row:
        """Both, what was asked and answered next, and which of the ids are supervised.

        The tokenizer's own chat has the first question and answer alone.
        """
        ...

    def text_ids(self, text: str) -> list[int]:
        """The ids of text in which control tokens stand for themselves."""
        ...

    def read(self, token_ids: Sequence[int]) -> str:
        """An answer's text, with ``[SEG]`` where its token stands."""
        ...

    def save(self, directory: Path) -> None:
        """Write the tokenizer."""
        ...


class OfficialText:
    """The templates and the tokenizer of official LISA.

    Raises:
        ModelError: ``[SEG]`` is not the token that the configuration names.
    """

    def __init__(self, tokenizer: LegacyTokenizer, config: LisaConfig) -> None:
        check_seg_token(tokenizer.encode(SEG_TOKEN, bos=False), config)
        self.tokenizer = tokenizer
        self.template = TEMPLATES[config.conversation]
        self.end_token_id = tokenizer.eos_token_id
        self.control = [] if config.compat == OFFICIAL else control_tokens(tokenizer)

    def question_ids(self, question: str) -> list[int]:
        return encode_with_image(self._write(question), self.tokenizer)

    def answer_ids(self, answer: str) -> list[int]:
        asked = len(self.question_ids(ANY_QUESTION))
        return encode_with_image(self._write(ANY_QUESTION, answer), self.tokenizer)[asked:]

    def row(self, question: str, answer: str, further: Turns = ()) -> Row:
        text = self._write(question, answer, *(said for turn in further for said in turn))
        return encode_row(text, self.template, self.tokenizer)

    def text_ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, bos=False)

    def read(self, token_ids: Sequence[int]) -> str:
        return self.tokenizer.decode(token_ids, skip_special=True)

    def save(self, directory: Path) -> None:
        self.tokenizer.save(directory)

    def _write(self, question: str, *turns: str) -> str:
        asked = f"{IMAGE_TOKEN}\n{break_up(question, self.control)}"
        kept = [token for token in self.control if token != SEG_TOKEN]
        said = [
            break_up(text, self.control if number % 2 else kept)
            for number, text in enumerate(turns)  # answers, and questions between them
        ]
        return mark_image(self.template.write([asked, *said]))


class ChatText:
    """The chat template of a tokenizer; without one, ``USER: ... ASSISTANT:``.

    Args:
        tokenizer: gets ``[SEG]`` if it has none.
        config: names the ids of ``[SEG]`` and of a picture's places.

    Raises:
        ModelError: the tokenizer does not fit the configuration.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, config: LisaConfig) -> None:
        add_seg_token(tokenizer)
        check_seg_token(tokenizer.encode(SEG_TOKEN, add_special_tokens=False), config)
        self.tokenizer, self.seg_token_id = tokenizer, config.seg_token_id
        self.image_token_id: int = config.vlm_config().image_token_id
        self.place = str(tokenizer.convert_ids_to_tokens(self.image_token_id))
        self.end_token_id = end_of_answer(tokenizer)
        added = (str(token) for token in tokenizer.added_tokens_decoder.values())
        self.control = [] if config.compat == OFFICIAL else list(added)

    def question_ids(self, question: str) -> list[int]:
        text = self._write(break_up(question.strip(), self.control))
        has_start = self.tokenizer.chat_template is not None  # templates write it themselves
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=not has_start)
        if ids.count(self.image_token_id) != 1:
            raise ModelError(
                f"the tokenizer writes {ids.count(self.image_token_id)} times '{self.place}' for "
                "a picture; expected once"
            )
        return [IMAGE_TOKEN_ID if token == self.image_token_id else token for token in ids]

    def answer_ids(self, answer: str) -> list[int]:
        kept = [token for token in self.control if token != SEG_TOKEN]
        return [*self.text_ids(break_up(answer, kept)), self.end_token_id]

    def row(self, question: str, answer: str, further: Turns = ()) -> Row:
        asked, answered = self.question_ids(question), self.answer_ids(answer)
        return Row(asked + answered, [IGNORE_LABEL] * len(asked) + answered)

    def text_ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def read(self, token_ids: Sequence[int]) -> str:
        parts: list[list[int]] = [[]]
        for token in token_ids:
            if token == self.seg_token_id:
                parts.append([])
            else:
                parts[-1].append(token)
        texts = [str(self.tokenizer.decode(part, skip_special_tokens=True)) for part in parts]
        return SEG_TOKEN.join(text.replace(SEG_TOKEN, " ") for text in texts)

    def save(self, directory: Path) -> None:
        self.tokenizer.save_pretrained(directory)

    def _write(self, question: str) -> str:
        if self.tokenizer.chat_template is None:
            return f"USER: {self.place}\n{question} ASSISTANT:"
        content: Any = [{"type": "image"}, {"type": "text", "text": question}]
        return str(
            self.tokenizer.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
        )


def control_tokens(tokenizer: LegacyTokenizer) -> list[str]:
    """What a person's text must not be read as."""
    named = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    return [IMAGE_TOKEN, *tokenizer.added, *(tokenizer.decode([number]) for number in named)]


def break_up(text: str, control: Iterable[str]) -> str:
    """``text`` with a blank in each control token: what is left is read as text.

    >>> break_up("a [SEG]", ["[SEG]"])
    'a [ SEG]'
    """
    for token in control:
        if len(token) > 1:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def add_seg_token(tokenizer: PreTrainedTokenizerFast) -> int:
    """Give a language model's tokenizer the new token, unless it has it; returns its id."""
    token = AddedToken(SEG_TOKEN, lstrip=True, normalized=False, special=True)
    if SEG_TOKEN not in tokenizer.get_vocab():
        tokenizer.add_tokens([token])
    return int(tokenizer.get_vocab()[SEG_TOKEN])


def check_seg_token(ids: Sequence[int], config: LisaConfig) -> None:
    """``[SEG]`` must be one id, the one that the configuration names.

    Raises:
        ModelError: it is not.
    """
    if list(ids) != [config.seg_token_id]:
        raise ModelError(
            f"the tokenizer reads '{SEG_TOKEN}' as ids {list(ids)}; "
            f"expected the one id {config.seg_token_id}"
        )


def end_of_answer(tokenizer: PreTrainedTokenizerFast) -> int:
    """The id that ends an answer.

    Raises:
        ModelError: the tokenizer has none.
    """
    if not isinstance(tokenizer.eos_token_id, int):
        raise ModelError("the tokenizer has no eos_token; expected one, it ends an answer")
    return tokenizer.eos_token_id
