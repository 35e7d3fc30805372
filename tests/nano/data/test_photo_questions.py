"""Questions about photographs: they are read whole, never name their target, and some are kept."""

import re
from pathlib import Path

import pytest

from lisa.errors import DataError
from lisa.nano.data import photo_questions
from lisa.nano.data.photo_questions import Asked, asked_about, is_held_out
from lisa.nano.data.text_files import VARIABLE

SOURCES = ("coco_union", "voc_animals", "ccp")


@pytest.mark.parametrize("source", SOURCES)
def test_each_photograph_is_either_learnt_from_or_held_out(source: str) -> None:
    taught, kept = asked_about(source), asked_about(source, held_out=True)
    assert taught and kept and not taught.keys() & kept.keys()
    assert all(is_held_out(name) for name in kept) and not any(map(is_held_out, taught))


@pytest.mark.parametrize("source", SOURCES)
def test_no_question_names_its_target(source: str) -> None:
    for about in asked_about(source).values():
        for one in about:
            assert one.texts and one.target
            for text in one.texts:
                assert not re.search(rf"\b{re.escape(one.target)}s?\b", text, re.IGNORECASE), text


def test_some_ask_for_what_is_not_there() -> None:
    found = [one for source in SOURCES for about in asked_about(source).values() for one in about]
    assert 0.05 < sum(one.absent for one in found) / len(found) < 0.3


def test_nobody_asked_about_other_sources() -> None:
    assert asked_about("tools_seg") == {}


def test_a_malformed_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photo_questions").mkdir()
    (tmp_path / "photo_questions" / "mine.jsonl").write_text(
        '{"file": "a.jpg", "asked": [{"texts": []}]}\n'
    )
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(DataError, match=r"line 1 of 'mine.jsonl' is malformed .*'target'"):
        asked_about("mine")


def test_an_entry_is_there_unless_it_says_otherwise() -> None:
    record = {"texts": ["keeps the rain off"], "target": "umbrella"}
    assert photo_questions.read_asked(record) == Asked(("keeps the rain off",), "umbrella", False)
    assert photo_questions.read_asked(record | {"absent": True}).absent
