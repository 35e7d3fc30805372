"""Where the embedded model's texts are looked for."""

from pathlib import Path

import pytest

from lisa.errors import DataError
from lisa.nano.data.text_files import VARIABLE, text_file


def test_another_folder_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert text_file("knowledge", "food.jsonl") == tmp_path / "knowledge" / "food.jsonl"


def test_texts_that_are_not_here_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"nowhere'; expected them: install .* in LISA_NANO_TEXTS"):
        text_file("kinds.json")
