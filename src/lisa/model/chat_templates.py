"""Turns of a conversation -> the exact text and ids that official LISA was trained on.

Two templates (LLaVA's "v1" and "llama_2"), the picture's place among the ids, which tokens are
supervised, and how rows become tensors. This file knows strings and ids; it refuses to know
pictures and models, and its tokenizer is whatever encodes text with a leading ``<s>``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lisa.errors import QuestionError
from lisa.model.interfaces import IGNORE_LABEL

IMAGE_TOKEN = "<image>"
IMAGE_TOKEN_ID = -200  # where the picture goes; no row of any table
MARKED_IMAGE_TOKEN = f"<im_start>{IMAGE_TOKEN}<im_end>"
END_OF_ANSWER = "</s>"
MODEL_MAX_LENGTH = 512  # tokens of a row that training keeps, the picture's among them


class Encoder(Protocol):
    """What this file needs of a tokenizer."""

    @property
    def pad_token_id(self) -> int: ...

    def encode(self, text: str) -> list[int]:
        """Ids of ``text`` after a ``<s>``."""
        ...


@dataclass(frozen=True)
class Template:
    """How turns are written down.

    ``answer_mark`` parts a question from its answer; what stands before its end is not supervised.
    """

    name: str
    system: str
    answer_mark: str

    def write(self, turns: Sequence[str]) -> str:
        """Questions and answers in turn; after a last question the answer is left to write."""
        pairs = list(zip(turns[::2], [*turns[1::2], ""], strict=False))
        return self._llama_2(pairs) if self.name == "llava_llama_2" else self._v1(pairs)

    def _v1(self, pairs: Sequence[tuple[str, str]]) -> str:
        rounds = [
            f"{said('USER', question)}{' ' if question else ''}{said('ASSISTANT', answer)}"
            f"{END_OF_ANSWER if answer else ''}"
            for question, answer in pairs
        ]
        return f"{self.system} {''.join(rounds)}"

    def _llama_2(self, pairs: Sequence[tuple[str, str]]) -> str:
        rounds = []
        for number, (question, answer) in enumerate(pairs):
            system = f"<<SYS>>\n{self.system}\n<</SYS>>\n\n" if number == 0 else ""
            rounds.append(f"<s>[INST] {system}{question} [/INST]")
            rounds.append(f" {answer} {END_OF_ANSWER}" if answer else "")
        return "".join(rounds).removeprefix("<s>")  # the tokenizer supplies the first


def said(role: str, text: str) -> str:
    """A turn; without text only the role, for the model to go on."""
    return f"{role}: {text}" if text else f"{role}:"


TEMPLATES = {
    "llava_v1": Template(
        "llava_v1",
        "A chat between a curious human and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the human's questions.",
        " ASSISTANT: ",
    ),
    "llava_llama_2": Template(
        "llava_llama_2",
        "You are a helpful language and vision assistant. You are able to understand the visual "
        "content that the user provides, and assist the user with a variety of tasks using "
        "natural language.",
        "[/INST] ",
    ),
}


def mark_image(text: str) -> str:
    """The picture's place between ``<im_start>`` and ``<im_end>``."""
    return text.replace(IMAGE_TOKEN, MARKED_IMAGE_TOKEN)


def encode_with_image(text: str, tokenizer: Encoder) -> list[int]:
    """Ids of ``text`` with ``IMAGE_TOKEN_ID`` for each ``<image>``.

    What stands before, between and after pictures is encoded by itself, and only the first part
    keeps its ``<s>``.
    """
    ids: list[int] = []
    for number, part in enumerate(text.split(IMAGE_TOKEN)):
        encoded = tokenizer.encode(part)
        ids += [IMAGE_TOKEN_ID, *encoded[1:]] if number else encoded
    return ids


def answer_labels(
    text: str, ids: Sequence[int], template: Template, tokenizer: Encoder
) -> list[int]:
    """The labels of a written conversation: its answers and their ``</s>``, -100 elsewhere.

    Args:
        text: the conversation as ``template`` wrote it, with the picture's place in it or not.
        ids: its tokens, as ``encode_with_image`` gives them.

    Raises:
        QuestionError: a round does not hold exactly one answer, or its tokens are not those that
            it has by itself.
    """
    labels, place = [IGNORE_LABEL], 1
    for exchange in filter(None, text.split(END_OF_ANSWER)):
        parts = exchange.split(template.answer_mark)
        if len(parts) != 2:
            raise QuestionError(
                f"{shortened(exchange)} holds {len(parts) - 1} times {template.answer_mark!r}; "
                "expected one question and one answer"
            )
        length = len(encode_with_image(exchange, tokenizer))  # its <s> stands for the </s>
        question = len(encode_with_image(parts[0] + template.answer_mark, tokenizer)) - 2
        labels += [IGNORE_LABEL] * question + list(ids[place + question : place + length])
        place += length
    if place != len(ids):
        raise QuestionError(
            f"{shortened(text)} has {len(ids)} tokens, its rounds {place}; expected the same "
            f"(is there a {END_OF_ANSWER} or <unk> in it?)"
        )
    return labels


def shortened(text: str) -> str:
    """A text in a message of one line."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


@dataclass(frozen=True)
class Row:
    """One conversation: its ids, and which of them are supervised."""

    ids: list[int]
    labels: list[int]

    def cut(self, limit: int, seg_token_id: int, *, silently: bool = False) -> Row:
        """The first ``limit`` tokens.

        Raises:
            QuestionError: that would cut a ``[SEG]`` or the whole answer away; not if ``silently``,
                as the official code does it.
        """
        row = Row(self.ids[:limit], self.labels[:limit])
        lost_seg = seg_token_id in self.ids[limit:]
        lost_answer = set(row.labels) <= {IGNORE_LABEL} and not set(self.labels) <= {IGNORE_LABEL}
        if (lost_seg or lost_answer) and not silently:
            raise QuestionError(
                f"a conversation has {len(self.ids)} tokens, and what is cut off holds "
                f"{'a [SEG]' if lost_seg else 'its answer'}; expected at most {limit}"
            )
        return row


def encode_row(text: str, template: Template, tokenizer: Encoder) -> Row:
    """A written conversation as ids and labels.

    Raises:
        QuestionError: as ``answer_labels``.
    """
    ids = encode_with_image(text, tokenizer)
    return Row(ids, answer_labels(text, ids, template, tokenizer))


def text_limit(visual_tokens: int, model_max_length: int = MODEL_MAX_LENGTH) -> int:
    """Ids that fit in a row with a picture: its ``visual_tokens`` replace one of them."""
    return model_max_length - (visual_tokens - 1)


def stack(rows: Sequence[Row], pad_token_id: int) -> dict[str, Tensor]:
    """``input_ids``, ``labels`` and ``attention_mask`` [R, L]: rows padded on the right.

    The mask is where the id is not ``pad_token_id``, which is ``<unk>``, too (official rule).
    """
    ids = pad_sequence([torch.tensor(row.ids) for row in rows], True, pad_token_id)
    labels = pad_sequence([torch.tensor(row.labels) for row in rows], True, IGNORE_LABEL)
    return {"input_ids": ids, "labels": labels, "attention_mask": ids != pad_token_id}
