"""The overlay: a picture with its masks tinted, outlined and named.

This file knows pixels, colours and letters. It knows no model, no file format, and not where the
masks came from.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

# Okabe and Ito (2008), "Color Universal Design": told apart by people with any colour vision.
# Black is left out; the order puts colours first that stand out from most photographs.
_COLOURS = (
    (86, 180, 233),  # sky blue
    (230, 159, 0),  # orange
    (204, 121, 167),  # reddish purple
    (240, 228, 66),  # yellow
    (0, 158, 115),  # bluish green
    (213, 94, 0),  # vermilion
    (0, 114, 178),  # blue
)
_TINT = 0.45  # how much of the mask's colour covers the photograph
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)
_SMALLEST_FONT = 11  # pixels; smaller letters cannot be read
_LONGEST_LABEL = 200  # characters
_NO_LETTER = "\U0010ffff"  # a code that Unicode promises never to use
_INSTALLED_FONTS = (  # by operating system and script, the common ones first
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "arial.ttf",
    "msyh.ttc",
    "Nirmala.ttf",
)
_SUPERSAMPLING = 4  # labels are drawn this much larger, then scaled down, for smooth corners

Box = tuple[int, int, int, int]  # x, y, width, height in pixels
Colour = tuple[int, int, int]  # red, green, blue in 0 to 255
Font = PIL.ImageFont.FreeTypeFont | PIL.ImageFont.ImageFont


def draw_overlay(
    image: PIL.Image.Image, masks: Sequence[np.ndarray], phrases: Sequence[str]
) -> PIL.Image.Image:
    """The picture with each mask tinted and outlined, and its phrase beside it.

    Args:
        image: RGB; left as it is.
        masks: each bool [H, W] of the picture's size.
        phrases: one for each mask; "" stays unwritten.

    Returns:
        RGB, of the picture's size. Colours can be told apart with any colour vision. Labels never
        leave the picture: one too long is cut, and a picture too small for legible letters gets
        none. Letters beyond English need an installed font that has them; otherwise they show as
        empty boxes.
    """
    pixels = np.array(image)
    areas = [np.count_nonzero(mask) for mask in masks]
    largest_first = sorted(range(len(masks)), key=lambda index: -areas[index])
    for index in largest_first:  # so that a small thing on a large one stays visible
        _draw_mask(pixels, masks[index], _colour(index))
    picture = PIL.Image.fromarray(pixels)
    _draw_labels(picture, masks, phrases)
    return picture


def _colour(index: int) -> Colour:
    return _COLOURS[index % len(_COLOURS)]


def _scale(width: int, height: int) -> float:
    """A length in pixels that line widths and letters are proportional to."""
    return min(math.sqrt(width * height), 3.0 * min(width, height))


def _draw_mask(pixels: np.ndarray, mask: np.ndarray, colour: Colour) -> None:
    """Tint the mask and draw its outline, in a white casing, into uint8 [H, W, 3]."""
    for channel, value in zip(np.moveaxis(pixels, 2, 0), colour, strict=True):
        tinted = np.rint(np.arange(256) * (1.0 - _TINT) + value * _TINT).astype(np.uint8)
        channel[mask] = tinted[channel[mask]]
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    height, width = mask.shape
    line = max(1, round(_scale(width, height) / 320 + 0.5))
    casing = round(line / 3)  # on either side; too much for a line of one pixel
    cv2.drawContours(pixels, contours, -1, _WHITE, line + 2 * casing, cv2.LINE_AA)
    cv2.drawContours(pixels, contours, -1, colour, line, cv2.LINE_AA)


def _draw_labels(
    picture: PIL.Image.Image, masks: Sequence[np.ndarray], phrases: Sequence[str]
) -> None:
    """Write the phrases beside their masks, into the picture."""
    covered = np.zeros((picture.height, picture.width), dtype=bool)
    for mask in masks:
        covered |= mask
    taken: list[Box] = []
    for index, (mask, phrase) in enumerate(zip(masks, phrases, strict=True)):
        label = _label(phrase, _colour(index), picture.size) if mask.any() else None
        if label is None:
            continue
        x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
        box = _place(label.size, (x, y, width, height), covered, taken)
        picture.paste(label, box[:2], label)
        taken.append(box)


def _label(phrase: str, colour: Colour, picture_size: tuple[int, int]) -> PIL.Image.Image | None:
    """The phrase in a rounded box, RGBA; None when it has no room or there is no phrase."""
    width, height = picture_size
    font_size = max(_SMALLEST_FONT, round(_scale(width, height) / 32))
    padding, box_height = font_size // 2, round(1.6 * font_size)
    line = _one_line(phrase)
    font = _font(line, font_size * _SUPERSAMPLING)
    room = width - 2 * padding - 2 * _gap(box_height)
    text = _shorten(line, font, room * _SUPERSAMPLING)
    if not text or 4 * box_height > height:
        return None
    size = (math.ceil(font.getlength(text) / _SUPERSAMPLING) + 2 * padding, box_height)
    large_width, large_height = (length * _SUPERSAMPLING for length in size)
    label = PIL.Image.new("RGBA", (large_width, large_height), (*colour, 0))
    draw = PIL.ImageDraw.Draw(label)
    corners = (0, 0, large_width - 1, large_height - 1)
    draw.rounded_rectangle(corners, large_height // 4, colour)
    draw.text((large_width / 2, large_height / 2), text, _ink(colour), font, anchor="mm")
    return label.resize(size, PIL.Image.Resampling.BOX)


def _ink(colour: Colour) -> Colour:
    """Black or white, whichever has more contrast (WCAG 2.2, relative luminance) on the colour."""
    linear = [((channel / 255 + 0.055) / 1.055) ** 2.4 for channel in colour]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return _BLACK if luminance > 0.18 else _WHITE


def _font(text: str, size: int) -> Font:
    """Pillow's own font, or the first installed one that has every letter Pillow's lacks."""
    built_in = PIL.ImageFont.load_default(size)
    if text.isascii():
        return built_in
    for name in _INSTALLED_FONTS:
        try:
            font = PIL.ImageFont.truetype(name, size)
        except OSError:
            continue
        if _has_letters(font, text):
            return font
    return built_in


def _has_letters(font: PIL.ImageFont.FreeTypeFont, text: str) -> bool:
    """Whether each letter looks different from the sign that stands for a missing letter."""
    missing = bytes(font.getmask(_NO_LETTER))
    return all(bytes(font.getmask(letter)) != missing for letter in set(text) if letter.strip())


def _one_line(phrase: str) -> str:
    """Without line breaks, and without half characters, which fonts cannot draw."""
    return " ".join(phrase.encode("utf-8", "replace").decode("utf-8").split())


def _shorten(text: str, font: Font, room: float) -> str:
    """The text, cut with an ellipsis to `room` pixels; "" when nothing fits."""
    if font.getlength(text) <= room:
        return text
    for end in range(min(len(text), _LONGEST_LABEL), 0, -1):
        shorter = text[:end].rstrip() + "..."
        if font.getlength(shorter) <= room:
            return shorter
    return ""


def _gap(label_height: int) -> int:
    """Pixels between a label and its thing, and between a label and the picture's edge."""
    return label_height // 4


def _place(size: tuple[int, int], thing: Box, covered: np.ndarray, taken: list[Box]) -> Box:
    """Where a label goes: beside its thing, inside the picture, off other labels and masks.

    Of the places above, below, right of, left of and on the thing, the first that hides least.
    """
    width, height = size
    x, y, thing_width, thing_height = thing
    gap = _gap(height)
    centre_x, centre_y = x + (thing_width - width) // 2, y + (thing_height - height) // 2
    corners = [
        (centre_x, y - height - gap),
        (centre_x, y + thing_height + gap),
        (x + thing_width + gap, centre_y),
        (x - width - gap, centre_y),
        (centre_x, centre_y),
    ]
    rows, columns = covered.shape
    right_most, lowest = columns - width - gap, rows - height - gap
    places = [
        (min(max(left, gap), right_most), min(max(top, gap), lowest), width, height)
        for left, top in corners
    ]
    return min(places, key=lambda box: (_hidden_labels(box, taken), _hidden_pixels(box, covered)))


def _hidden_labels(box: Box, taken: list[Box]) -> int:
    """Pixels of other labels under the box."""
    x, y, width, height = box
    hidden = 0
    for other_x, other_y, other_width, other_height in taken:
        overlap_x = min(x + width, other_x + other_width) - max(x, other_x)
        overlap_y = min(y + height, other_y + other_height) - max(y, other_y)
        hidden += max(0, overlap_x) * max(0, overlap_y)
    return hidden


def _hidden_pixels(box: Box, covered: np.ndarray) -> int:
    """Pixels of masks under the box."""
    x, y, width, height = box
    return int(np.count_nonzero(covered[y : y + height, x : x + width]))
