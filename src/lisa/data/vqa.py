"""Conversations about pictures, without masks: LLaVA-Instruct-150K.

    llava_dataset/llava_instruct_150k.json   [{"image", "conversations": [{"from", "value"}, ...]}]
    coco/train2017/                          the pictures

They keep a model that learns to point able to talk. This file knows the format; it refuses to know
models and scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lisa.data.image_dataset import ImageDataset, check_exists, folder_of
from lisa.data.records import BadRecords, field, read_list
from lisa.errors import DataError
from lisa.example import Example, check_question

IMAGE_MARK = "<image>"  # where the file says that the picture comes
LLAVA_FILE = "llava_instruct_150k.json"


@dataclass(frozen=True)
class Conversation:
    """Questions and answers in turn about one picture."""

    photo: Path
    number: int
    turns: tuple[tuple[str, str], ...]


class LlavaInstruct(ImageDataset):
    """One example for each conversation: its first question and answer, ``further`` the others.

    ``masks`` is bool [0, H, W]: nothing is pointed at. Training asks the same.

    Args:
        root: holds ``llava_dataset`` and ``coco``.
        split: None; there are none.
        skip_bad: leave broken records out.

    Raises:
        DataError: the file or a picture is missing, or a record is malformed.
    """

    name = "llava-instruct"

    def __init__(self, root: Path, split: str | None = None, skip_bad: bool = False) -> None:
        if split is not None:
            raise DataError(f"'{self.name}' has no splits; got '{split}'")
        self.split = None
        path = folder_of(root, "llava_dataset", ".", what="LLaVA-Instruct") / LLAVA_FILE
        photos = folder_of(root, "coco/train2017", what="pictures of COCO")
        bad = BadRecords(skip_bad)
        self.conversations: list[Conversation] = []
        for number, record in enumerate(read_list(path)):
            with bad.of(f"conversation {number} of '{path}'"):
                self.conversations.append(_parse(record, number, photos))
        self.photos = [conversation.photo for conversation in self.conversations]
        self.skipped = bad.messages

    def __len__(self) -> int:
        return len(self.conversations)

    def example(self, index: int) -> Example:
        conversation = self.conversations[index]
        image = self.picture(conversation.photo)
        (question, answer), *further = conversation.turns
        return Example(
            image=image,
            question=question,
            answer=answer,
            masks=np.zeros((0, image.height, image.width), bool),
            name=f"{conversation.photo.name}#{conversation.number}",
            further=tuple(further),
        )

    def draw(self, index: int, random: np.random.Generator) -> list[Example]:
        return [self.example(index)]


def _parse(record: Any, number: int, photos: Path) -> Conversation:
    said = [_parse_turn(turn) for turn in field(record, "conversations", list)]
    if said and said[0][0] != "human":
        said = said[1:]  # as the paper's code does
    speakers = [speaker for speaker, _ in said]
    if not said or speakers != ["human", "gpt"] * (len(said) // 2):
        raise DataError(f"its speakers are {speakers[:4]}; expected human and gpt in turn")
    texts = [text for _, text in said]
    texts[::2] = [check_question(text) for text in texts[::2]]
    photo = check_exists(photos / field(record, "image", str))
    turns = tuple(zip(texts[::2], texts[1::2], strict=True))
    return Conversation(photo, number, turns)


def _parse_turn(turn: Any) -> tuple[str, str]:
    text = field(turn, "value", str).replace(IMAGE_MARK, "").strip()
    return field(turn, "from", str), text
