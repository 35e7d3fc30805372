"""Marked pictures: names as people write them, and masks in all the forms of files."""

import numpy as np
import pytest

from lisa.data.annotated import area_of, filled, flat, packed, plain_words, united, unpacked
from lisa.errors import DataError
from lisa.masks import decode_rle

SQUARE = [2.0, 1.0, 6.0, 1.0, 6.0, 4.0, 2.0, 4.0]
MASK = np.zeros((8, 9), bool)
MASK[1:4, 2:6] = True


def test_names_lose_what_machines_put_in_them() -> None:
    assert plain_words(" traffic_light ") == "traffic light"
    assert plain_words("Café  crème") == "Café crème"
    with pytest.raises(DataError, match="the name ' _ ' is empty"):
        plain_words(" _ ")


def test_both_forms_of_a_polygon_are_one_mask() -> None:
    pairs = [[2, 1], [6, 1], [6, 4], [2, 4]]
    for polygon in (SQUARE, pairs):
        np.testing.assert_array_equal(decode_rle(filled([polygon], 8, 9)), MASK)


def test_run_lengths_are_taken_in_both_forms() -> None:
    counts = [17, 3, 5, 3, 5, 3, 5, 3, 28]
    for form in ({"size": [8, 9], "counts": counts}, packed(MASK)):
        np.testing.assert_array_equal(decode_rle(unpacked(form, 8, 9)), MASK)


@pytest.mark.parametrize("polygon", ["what", [[1, 2], [3]], [[1, 2], 3, 4]])
def test_what_is_no_list_of_corners_is_refused(polygon: object) -> None:
    with pytest.raises(DataError):
        flat(polygon)


@pytest.mark.parametrize(
    "polygons", [[], [[20, 20, 30, 20, 30, 30]], [[1, 1, 2, 2]], [["a", "b", 1, 2, 3, 4]]]
)
def test_a_mask_covers_something(polygons: list[object]) -> None:
    with pytest.raises(DataError):
        filled(polygons, 8, 9)


def test_parts_are_united_and_measured() -> None:
    other = np.zeros((8, 9), bool)
    other[3:6, 5:8] = True
    both = united([packed(MASK), packed(other)])
    np.testing.assert_array_equal(decode_rle(both), MASK | other)
    assert area_of(both) == 12 + 9 - 1
