"""Files that only grow: what is kept after an interruption, and lines that are broken."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from lisa.errors import DataError, OutputError
from lisa.files import append, records_of


@dataclass(frozen=True)
class Note:
    text: str


def test_records_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    assert records_of(path, Note) == []
    for text in ("one", "two\nlines", "drei äöü"):
        append(path, {"text": text})
    assert [note.text for note in records_of(path, Note)] == ["one", "two\nlines", "drei äöü"]


def test_half_a_line_is_no_record_and_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    append(path, {"text": "one"})
    with path.open("ab") as stream:
        stream.write(b'{"text": "tw')
    assert [note.text for note in records_of(path, Note)] == ["one"]
    append(path, {"text": "three"})
    assert [note.text for note in records_of(path, Note)] == ["one", "three"]


@pytest.mark.parametrize("line", ["{", "[]", '{"other": 1}', "3"])
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text(f'{{"text": "one"}}\n{line}\n')
    with pytest.raises(DataError, match=re.escape(f"line 2 of '{path}' is no note")):
        records_of(path, Note)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        append(tmp_path / "none" / "notes.jsonl", {"text": "one"})
