"""Answers as text: phrases, and the ``[SEG]`` that follow them.

This file knows words; it refuses to know tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

from lisa.example import SEG_TOKEN, TEACHER_FORCED_ANSWER, Example


def visible_text(raw_answer: str) -> str:
    """An answer without its ``[SEG]`` tokens."""
    text = " ".join(raw_answer.replace(SEG_TOKEN, " ").split())
    return re.sub(r" ([.,;:!?])(?= |$)", r"\1", text)


def phrases(raw_answer: str) -> list[str]:
    """What the answer calls each mask: the words before its ``[SEG]``, without article and stop."""
    spoken = [" ".join(before.split()) for before in raw_answer.split(SEG_TOKEN)[:-1]]
    return [
        re.sub(r"^(and |, )*(the |a |an )?", "", before.strip(" .,:;"), flags=re.IGNORECASE)
        for before in spoken
    ]


def group_by_image(examples: Sequence[Example]) -> list[list[Example]]:
    """Runs of neighbours that hold the same picture object."""
    return [list(row) for _, row in groupby(examples, key=lambda example: id(example.image))]


def is_present(example: Example) -> bool:
    """Whether an example's target is in its picture, and so gets a ``[SEG]``."""
    return bool(example.phrase) and (example.masks is None or bool(example.masks.any()))


def target_answer(example: Example) -> str:
    """The answer with one ``[SEG]`` at its end, or with none where no target is present.

    An example with a present target that says nothing says "[SEG].".
    """
    answer = " ".join((example.answer or "").replace(SEG_TOKEN, " ").split())
    if not is_present(example):
        return answer
    return f"{answer} {SEG_TOKEN}" if answer else TEACHER_FORCED_ANSWER
