"""Where a pixel of the picture lies in each square, and back."""

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lisa.model.geometry import (
    CLIP_MEAN,
    CLIP_STD,
    SAM_MEAN,
    SAM_STD,
    clip_pixels,
    longest_side_size,
    restore_masks,
    sam_pixels,
    shortest_side_size,
)

sides = st.integers(1, 3000)


def picture(
    height: int, width: int, colour: tuple[int, int, int] = (10, 200, 30)
) -> PIL.Image.Image:
    return PIL.Image.new("RGB", (width, height), colour)


@given(sides, sides)
def test_longest_side(height: int, width: int) -> None:
    new = longest_side_size(height, width)
    assert max(new) == 1024
    assert min(new) >= 1
    assert abs(new[0] * width - new[1] * height) <= max(height, width)  # half a pixel, both ways


@given(sides, sides)
def test_shortest_side(height: int, width: int) -> None:
    new = shortest_side_size(height, width)
    assert min(new) == 224
    assert (new[0] >= new[1]) == (height >= width) or 224 in new


def test_clip_sees_the_central_square() -> None:
    wide = np.zeros((100, 300, 3), np.uint8)
    wide[:, 120:180] = 255  # well inside the centre
    pixels = clip_pixels(PIL.Image.fromarray(wide))
    assert pixels.shape == (3, 224, 224)
    white = (1 - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
    torch.testing.assert_close(pixels[:, 112, 112], white)
    black = -torch.tensor(CLIP_MEAN) / torch.tensor(CLIP_STD)
    torch.testing.assert_close(pixels[:, 112, 0], black)


@pytest.mark.parametrize(("height", "width"), [(50, 100), (100, 50), (64, 64)])
def test_sam_sees_the_whole_picture_beside_zeros(height: int, width: int) -> None:
    pixels, size = sam_pixels(picture(height, width))
    assert pixels.shape == (3, 1024, 1024)
    assert size == longest_side_size(height, width)
    colour = (torch.tensor([10.0, 200, 30]) - torch.tensor(SAM_MEAN)) / torch.tensor(SAM_STD)
    inside = pixels[:, : size[0], : size[1]]
    torch.testing.assert_close(inside, colour[:, None, None].expand_as(inside))
    assert not pixels[:, size[0] :].any()
    assert not pixels[:, :, size[1] :].any()


def test_another_side() -> None:
    pixels, size = sam_pixels(picture(30, 60), side=64, mean=(0, 0, 0), std=(1, 1, 1))
    assert (pixels.shape, size) == ((3, 64, 64), (32, 64))


def test_masks_return_to_where_they_were() -> None:
    """The upper left quarter of a wide picture, marked in the square, is that of the picture."""
    height, width = 60, 120
    resized = longest_side_size(height, width)
    low_res = torch.full((1, 256, 256), -10.0)
    low_res[:, : resized[0] // 8, : resized[1] // 8] = 10.0
    masks = restore_masks(low_res, resized, (height, width)) > 0
    expected = torch.zeros(1, height, width, dtype=torch.bool)
    expected[:, : height // 2, : width // 2] = True
    assert torch.equal(masks, expected)


def test_no_masks_and_half_precision() -> None:
    empty = restore_masks(torch.zeros(0, 256, 256), (512, 1024), (60, 120))
    assert empty.shape == (0, 60, 120)
    assert restore_masks(torch.zeros(1, 8, 8, dtype=torch.bfloat16), (4, 8), (3, 6), 8).dtype == (
        torch.float32
    )
