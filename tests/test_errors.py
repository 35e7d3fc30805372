"""The family of errors is small, flat, and drawn as it is."""

import inspect

import pytest

from lisa import errors

CHILDREN = {
    errors.ImageError,
    errors.QuestionError,
    errors.DataError,
    errors.ModelError,
    errors.OutputError,
}


def defined_errors() -> set[type[Exception]]:
    return {value for value in vars(errors).values() if inspect.isclass(value)}


def test_one_catch_is_enough() -> None:
    assert defined_errors() == {errors.LisaError, *CHILDREN}
    assert all(child.__bases__ == (errors.LisaError,) for child in CHILDREN)


def test_lisa_error_does_not_hide_mistakes_of_the_program() -> None:
    assert errors.LisaError.__bases__ == (Exception,)


@pytest.mark.parametrize("error", sorted(CHILDREN, key=repr))
def test_message_is_what_was_given(error: type[errors.LisaError]) -> None:
    with pytest.raises(errors.LisaError) as caught:
        raise error("cannot read 'x.jpg'")
    assert str(caught.value) == "cannot read 'x.jpg'"


def test_the_drawing_names_every_error_and_each_explains_itself() -> None:
    assert errors.__doc__
    for error in defined_errors():
        assert error.__name__ in errors.__doc__
        assert error.__doc__
