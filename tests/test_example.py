"""Example: good values are kept, bad ones are named with what was expected."""

from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lisa.errors import DataError, ImageError, LisaError, QuestionError
from lisa.example import MAX_QUESTION_CHARACTERS, Example, check_question

IMAGE = PIL.Image.new("RGB", (3, 2))  # width 3, height 2


def example(**fields: Any) -> Example:
    return Example(**{"image": IMAGE, "question": "which one barks?", **fields})


def test_defaults_say_that_nothing_is_known() -> None:
    plain = example()
    assert plain.answer is None
    assert plain.masks is None
    assert plain.ignore is None
    assert plain.name == ""
    assert plain.tags == frozenset()


def test_fields_are_kept() -> None:
    masks, ignore = np.ones((2, 2, 3), bool), np.zeros((2, 3), bool)
    full = example(
        answer="The dog.", masks=masks, ignore=ignore, name="dog.jpg", tags=frozenset({"short"})
    )
    assert full.image is IMAGE
    assert full.masks is masks
    assert full.ignore is ignore
    assert (full.answer, full.name, full.tags) == (
        "The dog.",
        "dog.jpg",
        frozenset({"short"}),
    )


def test_fields_cannot_be_reassigned() -> None:
    with pytest.raises(AttributeError):
        example().question = "another"  # type: ignore[misc]


def test_examples_with_arrays_can_be_compared_and_hashed() -> None:
    one, two = example(masks=np.ones((1, 2, 3), bool)), example(masks=np.ones((1, 2, 3), bool))
    assert one != two
    assert len({one, two, one}) == 2


def test_mask_is_the_union() -> None:
    masks = np.zeros((2, 2, 3), bool)
    masks[0, 0, 0] = masks[1, 1, 2] = True
    union = example(masks=masks).mask
    assert union.dtype == bool
    assert union.tolist() == [[True, False, False], [False, False, True]]


def test_an_absent_target_has_an_empty_mask_of_the_image_size() -> None:
    union = example(masks=np.zeros((0, 2, 3), bool)).mask
    assert union.dtype == bool
    assert union.shape == (2, 3)
    assert not union.any()


def test_mask_of_unknown_masks_is_an_error() -> None:
    with pytest.raises(DataError, match=r"'dog\.jpg' has no masks; expected bool \[N, H, W\]"):
        _ = example(name="dog.jpg").mask


@pytest.mark.parametrize(
    ("field", "value", "error", "said"),
    [
        ("image", np.zeros((2, 3, 3)), ImageError, "expected Image, got ndarray"),
        ("image", PIL.Image.new("L", (3, 2)), ImageError, "got L 3x2"),
        ("image", PIL.Image.new("RGB", (0, 2)), ImageError, "got RGB 0x2"),
        ("masks", [[[True]]], DataError, "expected ndarray, got list"),
        ("masks", np.ones((2, 3), bool), DataError, "expected bool [N, 2, 3], got bool [2, 3]"),
        ("masks", np.ones((1, 3, 2), bool), DataError, "got bool [1, 3, 2]"),
        ("masks", np.ones((1, 2, 3), np.uint8), DataError, "got uint8 [1, 2, 3]"),
        ("masks", np.array(True), DataError, "got bool []"),
        ("ignore", np.ones((1, 2, 3), bool), DataError, "expected bool [2, 3], got bool [1, 2, 3]"),
        ("ignore", np.ones((2, 3)), DataError, "got float64 [2, 3]"),
        ("answer", 7, DataError, "expected str, got int"),
        ("name", None, DataError, "expected str, got NoneType"),
        ("tags", {"long"}, DataError, "expected frozenset, got set"),
        ("tags", frozenset({1}), DataError, "expected str, got int"),
        ("further", [("who?", "it")], DataError, "expected tuple, got list"),
        ("further", ("who?",), DataError, "expected tuple, got str"),
    ],
)
def test_a_bad_field_is_named_with_expected_and_actual(
    field: str, value: object, error: type[LisaError], said: str
) -> None:
    name = {} if field == "name" else {"name": "dog.jpg"}
    with pytest.raises(error) as caught:
        example(**{field: value, **name})
    message = str(caught.value)
    assert said in message
    assert field in message
    assert field == "name" or "'dog.jpg'" in message
    assert "\n" not in message


def test_example_strips_and_checks_its_question() -> None:
    assert example(question="  who barks?\n").question == "who barks?"
    with pytest.raises(QuestionError):
        example(question=" ")


@pytest.mark.parametrize("question", ["", " ", "\t\n", "\u3000"])
def test_an_empty_question_cannot_be_asked(question: str) -> None:
    with pytest.raises(QuestionError, match="is empty; expected at least one word"):
        check_question(question)


@pytest.mark.parametrize(("question", "kind"), [(None, "NoneType"), (b"who", "bytes"), (7, "int")])
def test_a_question_is_text(question: object, kind: str) -> None:
    with pytest.raises(QuestionError, match=f"question is a {kind}; expected text"):
        check_question(question)


def test_an_over_long_question_says_its_length_and_the_limit() -> None:
    longest = "y" * MAX_QUESTION_CHARACTERS
    assert check_question(f" {longest} ") == longest
    with pytest.raises(QuestionError, match=r"2001 characters; expected at most 2000") as caught:
        check_question(longest + "y")
    assert len(str(caught.value)) < 200


def test_half_a_character_is_not_text() -> None:
    with pytest.raises(QuestionError, match="not valid Unicode") as caught:
        check_question("who \udcff barks?")
    str(caught.value).encode("utf-8")  # the message itself can be printed


@pytest.mark.parametrize("question", ["哪个会叫?", "Ποιο γαβγίζει;", "<image> [SEG] USER: who?"])
def test_other_languages_and_markers_pass_unchanged(question: str) -> None:
    assert check_question(question) == question


@settings(deadline=None)
@given(st.text())
def test_a_question_is_kept_or_refused_in_one_line(question: str) -> None:
    try:
        assert check_question(question) == question.strip() != ""
    except QuestionError as error:
        assert len(str(error).splitlines()) == 1
