"""A contact sheet: examples side by side, each with its masks and its question.

This file knows examples and pixels; it refuses to know where they come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import PIL.Image
from PIL import Image, ImageDraw

from lisa.draw.overlay import draw_overlay
from lisa.example import Example

SHEET_COLUMNS = 4
THUMBNAIL = 300  # pixels

COLUMNS, CELL, GAP = 4, 320, 4  # pictures in a row; pixels


class Answered(Protocol):
    """A question with its answer, such as a ``Result``."""

    @property
    def question(self) -> str: ...
    @property
    def text(self) -> str: ...
    def overlay(self) -> PIL.Image.Image: ...


def contact_sheet(examples: Sequence[Example]) -> PIL.Image.Image:
    """RGB, ``COLUMNS`` cells wide. A question that nothing answers stands at the top edge."""
    step = CELL + GAP
    rows = max(1, -(-len(examples) // COLUMNS))
    sheet = PIL.Image.new("RGB", (COLUMNS * step, rows * step), "white")
    for number, example in enumerate(examples):
        row, column = divmod(number, COLUMNS)
        sheet.paste(cell(example), (column * step, row * step))
    return sheet


def cell(example: Example) -> PIL.Image.Image:
    """The example, drawn, ``CELL`` pixels wide or high."""
    scale = CELL / max(example.image.size)
    width, height = (max(1, round(side * scale)) for side in example.image.size)
    image = example.image.resize((width, height))
    masks = [
        smaller(mask, width, height) for mask in (() if example.masks is None else example.masks)
    ]
    if not masks:
        edge = np.zeros((height, width), bool)
        edge[0] = True
        return draw_overlay(image, [edge], [example.question])
    return draw_overlay(image, masks, [example.question, *[""] * (len(masks) - 1)])


def smaller(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    """bool [H, W] -> bool [height, width]."""
    picture = PIL.Image.fromarray(mask).resize((width, height), PIL.Image.Resampling.NEAREST)
    return np.asarray(picture)


def draw_sheet(results: Sequence[Answered]) -> Image.Image:
    """Overlays side by side, each with its question and answer underneath."""
    rows = -(-len(results) // SHEET_COLUMNS)
    cell = THUMBNAIL + 44
    sheet = Image.new("RGB", (SHEET_COLUMNS * THUMBNAIL, max(1, rows) * cell), "white")
    for n, result in enumerate(results):
        picture = result.overlay()
        picture.thumbnail((THUMBNAIL - 8, THUMBNAIL - 8))
        left, top = n % SHEET_COLUMNS * THUMBNAIL, n // SHEET_COLUMNS * cell
        sheet.paste(picture, (left + 4, top + 4))
        write_caption(sheet, (left + 4, top + THUMBNAIL), [result.question, result.text])
    return sheet


def write_caption(sheet: Image.Image, corner: tuple[int, int], lines: Sequence[str]) -> None:
    """Lines of text, cut where the column ends."""
    draw = ImageDraw.Draw(sheet)
    for n, line in enumerate(lines):
        draw.text((corner[0], corner[1] + 18 * n), line[:52], fill="black" if n else "dimgray")
