"""JSON files and their fields: what is said of broken ones."""

from pathlib import Path

import pytest

from lisa.data.records import BadRecords, field, read_json, read_list
from lisa.errors import DataError


@pytest.mark.parametrize("content", ["", '{"a": [1', "[" * 100_000], ids=["empty", "cut", "deep"])
def test_a_truncated_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=r"a\.json' is not valid JSON") as caught:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read '.*a\.json': No such file.*; expected"):
        read_json(tmp_path / "a.json")


def test_a_list_is_a_list(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[3]")
    (tmp_path / "b.json").write_text("{}")
    assert read_list(tmp_path / "a.json") == [3]
    with pytest.raises(DataError, match=r"b\.json' holds a dict; expected a list"):
        read_list(tmp_path / "b.json")


def test_fields() -> None:
    assert field({"a": "x"}, "a", str, "here") == "x"
    with pytest.raises(DataError, match=r"^here: 'a' is missing; expected a str$"):
        field({}, "a", str, "here")
    with pytest.raises(DataError, match=r"^'a' is a int; expected a str$"):
        field({"a": 1}, "a", str)
    with pytest.raises(DataError, match=r"'a' is missing"):
        field([], "a", str)


def test_a_bad_record_is_an_error_with_its_name() -> None:
    with pytest.raises(DataError, match=r"^record 3: it is odd$"), BadRecords().of("record 3"):
        raise DataError("it is odd")


def test_or_it_is_left_out_and_said() -> None:
    bad, read = BadRecords(skip=True), []
    for number in range(3):
        with bad.of(f"record {number}"):
            if number == 1:
                raise DataError("it is odd")
            read.append(number)
    assert (read, bad.messages) == ([0, 2], ["record 1: it is odd"])


def test_an_error_of_our_own_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), BadRecords(skip=True).of("record 3"):
        1 / 0  # noqa: B018
