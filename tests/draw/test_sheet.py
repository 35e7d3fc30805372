"""The contact sheet: a cell for each example, with its masks in it."""

import numpy as np
import PIL.Image
import pytest

from lisa.draw.sheet import CELL, COLUMNS, GAP, cell, contact_sheet
from lisa.example import Example


def example(masks: np.ndarray | None, size: tuple[int, int] = (400, 200)) -> Example:
    return Example(PIL.Image.new("RGB", size, "gray"), "what?", masks=masks)


@pytest.mark.parametrize(("count", "rows"), [(0, 1), (1, 1), (COLUMNS, 1), (COLUMNS + 1, 2)])
def test_rows_of_cells(count: int, rows: int) -> None:
    sheet = contact_sheet([example(None)] * count)
    assert sheet.size == (COLUMNS * (CELL + GAP), rows * (CELL + GAP))


def test_a_mask_is_drawn_where_it_is() -> None:
    mask = np.zeros((1, 200, 400), bool)
    mask[0, 100:, 200:] = True
    drawn = np.asarray(cell(example(mask)))
    assert drawn.shape == (CELL // 2, CELL, 3)
    assert tuple(drawn[20, CELL // 4]) == (128, 128, 128)
    assert tuple(drawn[-20, -20]) != (128, 128, 128)


@pytest.mark.parametrize("masks", [None, np.zeros((0, 400, 200), bool)])
def test_a_question_without_a_mask_is_written_all_the_same(masks: np.ndarray | None) -> None:
    drawn = np.asarray(cell(example(masks, (200, 400))))
    assert drawn.shape == (CELL, CELL // 2, 3)
    assert np.ptp(drawn[: CELL // 4]) > 100
    assert np.ptp(drawn[CELL // 2 :]) == 0


def test_each_cell_stands_in_its_place() -> None:
    dark = Example(PIL.Image.new("RGB", (100, 100)), "dark?")
    pixels = np.asarray(contact_sheet([example(None)] * COLUMNS + [dark]))
    assert pixels[CELL + GAP + CELL // 2, CELL // 2].max() == 0
    assert pixels[CELL + GAP + CELL // 2, CELL + GAP + CELL // 2].min() == 255
