"""Drawn things: whole cut-outs of known things, the same each time."""

import numpy as np
import pytest

from lisa.nano.data.knowledge import things
from lisa.nano.data.sketches import HEIGHT, SKETCHES, Canvas, Sketches

VARIANTS = 5


@pytest.fixture(scope="module")
def sketches() -> Sketches:
    return Sketches(VARIANTS)


def test_every_sketch_is_of_a_known_thing(sketches: Sketches) -> None:
    assert set(SKETCHES) <= set(things())
    assert len(sketches) == VARIANTS * len(SKETCHES)
    assert {sketches[n][1] for n in range(len(sketches))} == set(SKETCHES)


def test_a_cut_out_has_no_empty_border_and_is_neither_full_nor_a_speck(sketches: Sketches) -> None:
    for pixels, name in sketches:
        inside = pixels[..., 3] > 127
        assert pixels.dtype == np.uint8 and max(inside.shape) <= HEIGHT
        assert pixels[0, :, 3].any() and pixels[-1, :, 3].any()
        assert pixels[:, 0, 3].any() and pixels[:, -1, 3].any()
        assert 0.04 < inside.mean() < 0.98, name


def test_the_same_number_is_the_same_drawing_and_another_is_not(sketches: Sketches) -> None:
    once, again, other = sketches[0][0], Sketches(VARIANTS)[0][0], sketches[1][0]
    assert np.array_equal(once, again)
    assert once.shape != other.shape or not np.array_equal(once, other)


def test_a_column_is_lit_from_one_side() -> None:
    canvas = Canvas(np.random.default_rng(0))
    canvas.light = 0.6
    white = np.full(3, 255, np.float32)
    canvas.area([(0.3, 0.1), (0.7, 0.1), (0.7, 0.9), (0.3, 0.9)], white, round_across=True)
    row = canvas.colours[canvas.size // 2, :, 0]
    left, right = (row[round(x * canvas.size)] for x in (0.35, 0.62))
    assert right > left + 50
    assert canvas.alpha[canvas.size // 2].sum() / 255 == pytest.approx(0.4 * canvas.size, abs=2)


def test_a_beam_is_as_wide_as_asked() -> None:
    canvas = Canvas(np.random.default_rng(0))
    canvas.beam = np.zeros(3, np.float32)
    canvas.line((0.2, 0.2), (0.8, 0.8), 0.1)
    length, width = 0.6 * 2**0.5 * canvas.size, 0.1 * canvas.size
    assert (canvas.alpha > 0).sum() == pytest.approx(length * width, rel=0.05)
