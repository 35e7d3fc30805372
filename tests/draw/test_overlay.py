"""The overlay: what is drawn can be seen, and its labels can be read."""

from collections.abc import Sequence

import cv2
import numpy as np
import PIL.Image
import PIL.ImageFont
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.masks import ellipse
from lisa.draw import overlay as overlay_module
from lisa.draw.overlay import draw_overlay


def drawn(masks: Sequence[np.ndarray], phrases: Sequence[str] = ()) -> np.ndarray:
    """The overlay on a grey picture, int [H, W, 3]; without phrases no mask has a label."""
    height, width = masks[0].shape
    picture = PIL.Image.new("RGB", (width, height), "grey")
    overlay = draw_overlay(picture, masks, phrases or [""] * len(masks))
    assert (overlay.mode, overlay.size) == ("RGB", picture.size)
    return np.asarray(overlay).astype(int)


def test_overlay_of_nothing_is_a_copy_of_the_picture() -> None:
    picture = PIL.Image.new("RGB", (8, 5), "grey")
    overlay = draw_overlay(picture, [], [])
    assert np.array_equal(np.asarray(overlay), np.asarray(picture))
    overlay.paste("red", (0, 0, 8, 5))
    assert picture.getpixel((0, 0)) == (128, 128, 128)


def test_overlay_tints_the_inside_and_leaves_the_rest_alone() -> None:
    mask = ellipse(300, 400, (200, 150), (80, 60))
    picture = PIL.Image.new("RGB", (400, 300), "grey")
    pixels = np.asarray(draw_overlay(picture, [mask], [""]))
    assert pixels[150, 200].tolist() == [109, 151, 175]  # 0.55 of grey and 0.45 of sky blue
    far = ~cv2.dilate(mask.astype(np.uint8), np.ones((15, 15))).astype(bool)
    assert (pixels[far] == 128).all()
    assert (np.asarray(picture) == 128).all()  # the photograph itself is not drawn on


def test_overlay_draws_the_outline_in_full_colour_around_holes_too() -> None:
    mask = ellipse(300, 400, (200, 150), (120, 90)) & ~ellipse(300, 400, (200, 150), (50, 40))
    pixels = drawn([mask])
    full = (np.abs(pixels - overlay_module._COLOURS[0]).sum(axis=2) == 0).nonzero()
    radius = np.hypot((full[1] - 200) / 120, (full[0] - 150) / 90)
    assert (radius > 0.9).sum() > 100
    assert (radius < 0.6).sum() > 50
    assert pixels[150, 200].tolist() == [128, 128, 128]  # the hole is not tinted


def test_overlay_shows_the_small_thing_on_the_large_one_whatever_their_order() -> None:
    large, small = np.ones((400, 400), bool), ellipse(400, 400, (200, 200), (50, 50))
    for masks in ((large, small), (small, large)):
        pixels = drawn(masks)
        colour = overlay_module._COLOURS[0 if masks[0] is small else 1]
        outline = pixels[146:156, 200]  # where the small thing begins
        assert (outline == colour).all(axis=1).any()


def label_box(mask: np.ndarray, phrase: str) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a label: where the picture differs with the phrase."""
    rows, columns = (drawn([mask], [phrase]) != drawn([mask])).any(axis=2).nonzero()
    assert rows.size, f"no label for {phrase!r}"
    return columns.min(), rows.min(), columns.max(), rows.max()


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(st.integers(0, 639), st.integers(0, 479)),
    st.tuples(st.integers(0, 200), st.integers(0, 200)),
    st.sampled_from(["cat", "a rather long phrase about a cat", "w" * 300]),
)
def test_a_label_lies_whole_inside_the_picture(
    centre: tuple[int, int], axes: tuple[int, int], phrase: str
) -> None:
    left, top, right, bottom = label_box(ellipse(480, 640, centre, axes), phrase)
    assert 0 < left < right < 639  # a margin on every side: nothing is cut off
    assert 0 < top < bottom < 479
    assert bottom - top > 15


def test_a_label_stands_beside_its_thing_and_does_not_hide_it() -> None:
    mask = ellipse(480, 640, (320, 240), (100, 80))
    left, top, right, bottom = label_box(mask, "cat")
    assert not mask[top : bottom + 1, left : right + 1].any()
    assert 0 < mask.nonzero()[0].min() - bottom < 20
    assert abs((left + right) / 2 - 320) < 3


def test_a_label_goes_where_it_hides_nothing_when_there_is_no_room_above() -> None:
    mask = np.zeros((480, 640), bool)
    mask[:400] = True
    left, top, right, bottom = label_box(mask, "cat")
    assert not mask[top : bottom + 1, left : right + 1].any()


def test_an_empty_mask_and_a_tiny_picture_get_no_label() -> None:
    empty = np.zeros((480, 640), bool)
    assert (drawn([empty], ["ghost"]) == 128).all()
    tiny = ellipse(43, 64, (32, 20), (15, 12))
    assert np.array_equal(drawn([tiny], ["cat"]), drawn([tiny]))


def test_labels_do_not_cover_each_other() -> None:
    masks = [ellipse(480, 640, (x, 240), (30, 30)) for x in (300, 320, 340)]
    phrases = ("the first thing", "the second thing", "the third thing")
    pixels = drawn(masks, phrases)
    for index in range(3):
        colour = overlay_module._COLOURS[index]
        label = (pixels == colour).all(axis=2)
        label &= ~cv2.dilate(masks[index].astype(np.uint8), np.ones((9, 9))).astype(bool)
        rows, columns = label.nonzero()
        size = (int(np.ptp(columns)) + 1) * (int(np.ptp(rows)) + 1)
        assert label.sum() > 0.6 * size  # nearly whole: only its letters are of another colour


def test_each_label_has_ink_that_can_be_read_on_it() -> None:
    for colour in overlay_module._COLOURS:
        paper, ink = (luminance(c) for c in (colour, overlay_module._ink(colour)))
        contrast = (max(paper, ink) + 0.05) / (min(paper, ink) + 0.05)
        assert contrast >= 4.5  # WCAG 2.2, level AA


def luminance(colour: tuple[int, int, int]) -> float:
    """Relative luminance in WCAG 2.2, with its linear part."""
    scaled = [channel / 255 for channel in colour]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in scaled]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 50), (50, 1), (64, 43), (4000, 20), (20, 4000), (2000, 1500)]
)
@pytest.mark.parametrize("phrase", ["", "cat", "two\nlines", "ü咖啡\udcff", "w" * 5000])
def test_any_size_and_phrase_can_be_drawn(size: tuple[int, int], phrase: str) -> None:
    width, height = size
    mask = np.zeros((height, width), bool)
    mask[: (height + 1) // 2] = True
    pixels = drawn([mask], [phrase])
    assert (pixels[mask] != 128).any()


def test_a_phrase_of_several_lines_is_drawn_on_one() -> None:
    mask = ellipse(300, 400, (200, 150), (80, 60))
    assert np.array_equal(drawn([mask], ["two\n lines"]), drawn([mask], ["two lines"]))


def test_letters_grow_with_the_picture() -> None:
    heights = []
    for scale in (1, 4):
        mask = ellipse(300 * scale, 400 * scale, (200 * scale, 150 * scale), (40, 40))
        _, top, _, bottom = label_box(mask, "cat")
        heights.append(bottom - top + 1)
    assert 3 < heights[1] / heights[0] < 5


def test_a_font_is_chosen_that_has_the_letters() -> None:
    built_in = PIL.ImageFont.load_default(20)
    assert isinstance(built_in, PIL.ImageFont.FreeTypeFont)
    assert overlay_module._has_letters(built_in, "plain English?")
    assert not overlay_module._has_letters(built_in, "caf\ue000")  # private use: no letter at all


def test_there_are_more_masks_than_colours() -> None:
    masks = [ellipse(100, 900, (50 + 80 * index, 50), (20, 20)) for index in range(10)]
    pixels = drawn(masks)
    assert (pixels[50, 50] == pixels[50, 50 + 80 * 7]).all()
    assert len({tuple(pixels[50, 50 + 80 * index]) for index in range(7)}) == 7
