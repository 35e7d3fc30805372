"""Implicit questions in plain words: well formed, and no question gives its thing away."""

import json
import re

from lisa.nano.data.knowledge import things
from lisa.nano.data.text_files import text_file

RECORDS = [
    json.loads(line)
    for file in sorted(text_file("questions").glob("*.jsonl"))
    for line in file.read_text(encoding="utf-8").splitlines()
]


def stems(*texts: str) -> set[str]:
    """The first five letters of each word of at least four."""
    return {word[:5] for text in texts for word in re.findall("[a-z]{4,}", text.lower())}


def test_every_record_has_a_thing_and_questions() -> None:
    assert len(RECORDS) > 500
    for record in RECORDS:
        assert record.keys() == {"thing", "synonyms", "because", "questions"}
        assert record["thing"] and record["questions"] and all(record["questions"])


def test_a_thing_stands_once_and_is_not_held_out() -> None:
    names = [record["thing"] for record in RECORDS]
    assert len(names) == len(set(names))
    assert not set(names) & {name for name, thing in things().items() if thing.held_out}


def test_no_question_stands_twice_or_names_its_thing() -> None:
    for record in RECORDS:
        asked = [question.lower() for question in record["questions"]]
        assert len(asked) == len(set(asked)), record["thing"]
        given_away = stems(record["thing"], *record["synonyms"])
        assert not any(given_away & stems(question) for question in asked), record["thing"]
