"""Conversations without masks, and broken files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.picture_files import HEIGHT, WIDTH, write_json, write_picture
from lisa.data.vqa import LlavaInstruct
from lisa.errors import DataError


def said(*texts: str, first: str = "human") -> list[dict[str, str]]:
    speakers = ["human", "gpt"] if first == "human" else ["gpt", "human"]
    return [{"from": speakers[n % 2], "value": text} for n, text in enumerate(texts)]


def write(root: Path, *records: Any) -> Path:
    write_json(root / "llava_dataset" / "llava_instruct_150k.json", list(records))
    write_picture(root / "coco" / "train2017" / "1.jpg")
    return root


def record(*texts: str, **changes: Any) -> dict[str, Any]:
    return {"id": "1", "image": "1.jpg", "conversations": said(*texts)} | changes


def test_a_conversation_is_one_example(tmp_path: Path) -> None:
    write(tmp_path, record("What is it?\n<image>", " A cup. ", "Why?", "Because."))
    dataset = LlavaInstruct(tmp_path)
    (example,) = dataset
    assert (example.question, example.answer) == ("What is it?", "A cup.")
    assert example.further == (("Why?", "Because."),)
    assert example.masks.shape == (0, HEIGHT, WIDTH)
    assert (example.name, example.phrase) == ("1.jpg#0", "")
    (drawn,) = dataset.draw(0, np.random.default_rng(0))
    assert (drawn.question, drawn.further) == (example.question, example.further)


def test_what_the_model_says_first_is_left_out(tmp_path: Path) -> None:
    talk = said("skip me", "<image>\nDescribe it. ", "It is a street.", first="gpt")
    (example,) = LlavaInstruct(write(tmp_path, record(conversations=talk)))
    assert (example.question, example.answer, example.further) == (
        *("Describe it.", "It is a street.", ()),
    )


BROKEN = {
    "no answer": (record("What?"), r"its speakers are \['human'\]; expected human and gpt"),
    "nothing": (record(), r"its speakers are \[\]"),
    "no text": (record(conversations=[{"from": "human"}]), "'value' is missing"),
    "no picture": (record("What?", "This.", image="2.jpg"), r"picture '.*2\.jpg' is missing"),
    "no words": (record("<image>", "This."), "question '' is empty"),
    "a list": ([], "'conversations' is missing"),
}


@pytest.mark.parametrize(("broken", "message"), BROKEN.values(), ids=list(BROKEN))
def test_a_broken_record_is_named_or_left_out(tmp_path: Path, broken: Any, message: str) -> None:
    write(tmp_path, record("What?", "This."), broken)
    with pytest.raises(DataError, match=rf"conversation 1 of '.*150k\.json': {message}"):
        LlavaInstruct(tmp_path)
    kept = LlavaInstruct(tmp_path, skip_bad=True)
    assert (len(kept), len(kept.skipped)) == (1, 1)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, record("What?", "This.")) / "llava_dataset" / "llava_instruct_150k.json"
    path.write_text(path.read_text()[:30])
    with pytest.raises(DataError, match=r"150k\.json' is not valid JSON"):
        LlavaInstruct(tmp_path)


def test_there_are_no_splits(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'llava-instruct' has no splits; got 'val'"):
        LlavaInstruct(tmp_path, "val")
