"""Plots as SVG text: lines over steps, how often a value occurs, values with their intervals, and
how far scores can be relied upon.

Small and plain, so that they can stand in a repository. This file knows numbers and places on a
page; it refuses to know where the numbers come from.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # told apart with any colour vision
SPACE = 'xmlns="http://www.w3.org/2000/svg"'
FONT = 'font-family="sans-serif" font-size="12"'
MARGIN = 40  # pixels around a square plot
BOX = 320  # pixels of its side
PANEL_WIDTH, PANEL_HEIGHT, PANEL_COLUMNS = 560, 140, 2
ROW_HEIGHT, LABEL_WIDTH = 22, 180


def polyline(points: Sequence[tuple[float, float]], width: int = 560, height: int = 140) -> str:
    """An SVG line through points, scaled to fill its box."""
    xs, ys = zip(*points, strict=True)
    span_x, span_y = max(xs) - min(xs) or 1.0, max(ys) - min(ys) or 1.0
    placed = " ".join(
        f"{(x - min(xs)) / span_x * width:.1f},{height - (y - min(ys)) / span_y * height:.1f}"
        for x, y in points
    )
    return (
        f'<svg {SPACE} width="{width}" height="{height}" viewBox="-4 -4 {width + 8} {height + 8}">'
        f'<polyline fill="none" stroke="{COLOURS[0]}" stroke-width="2" points="{placed}"/></svg>'
    )


def panels(curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """A picture of curves under their captions, side by side; at least two points each."""
    width, height = PANEL_WIDTH + 30, PANEL_HEIGHT + 40
    parts = []
    for number, (caption, points) in enumerate(curves.items()):
        row, column = divmod(number, PANEL_COLUMNS)
        values = [y for _, y in points]
        title = f"{caption}: {values[0]:.3g} to {values[-1]:.3g}, step {points[-1][0]:.0f}"
        parts.append(
            f'<g transform="translate({column * width + 10} {row * height + 20})">'
            f"<text {FONT}>{html.escape(title)}</text>"
            f'<g transform="translate(0 10)">'
            f"{polyline(points, PANEL_WIDTH, PANEL_HEIGHT)}</g></g>"
        )
    rows = -(-len(curves) // PANEL_COLUMNS)
    return picture(PANEL_COLUMNS * width, max(1, rows) * height, parts)


def reliability_plot(tables: Mapping[str, Sequence[tuple[float, float, int]]]) -> str:
    """Mean IoU over mean score, a line a model; a dot's area grows with its number of answers.

    Args:
        tables: for each model (score, IoU, number of answers) by bin; scores and IoU in [0, 1].
    """
    side = BOX + 2 * MARGIN
    parts = [
        f'<rect x="{MARGIN}" y="{MARGIN}" width="{BOX}" height="{BOX}" fill="none" stroke="#999"/>',
        line([(0.0, 0.0), (1.0, 1.0)], "#999", dashed=True),
        f'<text {FONT} x="{side / 2}" y="{side - 8}" text-anchor="middle">score</text>',
        f'<text {FONT} x="8" y="{MARGIN - 12}">IoU</text>',
        *(axis_mark(value / 4) for value in range(5)),
    ]
    for number, (name, bins) in enumerate(tables.items()):
        colour = COLOURS[number % len(COLOURS)]
        total = sum(count for *_, count in bins) or 1
        parts.append(line([(score, iou) for score, iou, _ in bins], colour))
        parts += [
            dot(score, iou, 14 * (count / total) ** 0.5, colour) for score, iou, count in bins
        ]
        parts.append(key(name, number, colour))
    return picture(side, side, parts)


def histogram(columns: Mapping[str, Sequence[float]], bins: int = 20) -> str:
    """How many values in [0, 1] lie in each of the bins, the bars of each column side by side.

    A bin holds its lower bound; the last one holds 1, too.
    """
    counts = {
        name: [sum(min(int(value * bins), bins - 1) == n for value in values) for n in range(bins)]
        for name, values in columns.items()
    }
    highest = max((count for one in counts.values() for count in one), default=0) or 1
    width = BOX / bins / max(1, len(counts))
    parts = [line([(0.0, 0.0), (1.0, 0.0)], "#999")]
    parts += [axis_mark(value / 4, both=False) for value in range(5)]
    parts.append(
        f'<text {FONT} x="8" y="{MARGIN - 12}">number of questions, up to {highest}</text>'
    )
    for number, (name, one) in enumerate(counts.items()):
        colour = COLOURS[number % len(COLOURS)]
        for n, count in enumerate(one):
            left, top = place(n / bins, count / highest)
            parts.append(
                f'<rect x="{left + number * width:.1f}" y="{top}" width="{width * 0.9:.1f}" '
                f'height="{MARGIN + BOX - top:.1f}" fill="{colour}"/>'
            )
        parts.append(key(name, number, colour))
    return picture(BOX + 2 * MARGIN, BOX + 2 * MARGIN, parts)


def intervals(rows: Sequence[tuple[str, float, float, float]]) -> str:
    """Values in [0, 1] as bars, a row each: label, value, and the interval around it."""
    parts = []
    for number, (label, value, low, high) in enumerate(rows):
        y, left = number * ROW_HEIGHT + 8, LABEL_WIDTH
        ends = " ".join(f"{left + end * BOX:.1f},{y + 7}" for end in (low, high))
        parts += [
            f'<text {FONT} x="{left - 8}" y="{y + 11}" text-anchor="end">'
            f"{html.escape(label)}</text>",
            f'<rect x="{left}" y="{y}" width="{value * BOX:.1f}" height="14" fill="{COLOURS[0]}"/>',
            f'<polyline points="{ends}" stroke="#222" stroke-width="2" fill="none"/>',
            f'<text {FONT} x="{left + BOX + 8}" y="{y + 11}">{value:.3f}</text>',
        ]
    return picture(LABEL_WIDTH + BOX + 60, len(rows) * ROW_HEIGHT + 16, parts)


def picture(width: int, height: int, parts: Sequence[str]) -> str:
    """An SVG file on white."""
    size = f'width="{width}" height="{height}"'
    view = f'viewBox="0 0 {width} {height}"'
    return f'<svg {SPACE} {size} {view}><rect {size} fill="white"/>{"".join(parts)}</svg>\n'


def place(x: float, y: float) -> tuple[float, float]:
    """Where (x, y) in [0, 1] lies on a square plot; higher is up."""
    return round(MARGIN + x * BOX, 1), round(MARGIN + (1 - y) * BOX, 1)


def line(points: Sequence[tuple[float, float]], colour: str, dashed: bool = False) -> str:
    """A line through points in [0, 1]."""
    placed = " ".join(f"{x},{y}" for x, y in (place(*point) for point in points))
    dashes = ' stroke-dasharray="4 4"' if dashed else ""
    return f'<polyline fill="none" stroke="{colour}"{dashes} points="{placed}"/>'


def dot(x: float, y: float, radius: float, colour: str) -> str:
    """A round mark in [0, 1]."""
    left, top = place(x, y)
    return f'<circle cx="{left}" cy="{top}" r="{radius:.1f}" fill="{colour}" fill-opacity="0.5"/>'


def key(name: str, number: int, colour: str) -> str:
    """What a colour stands for, in the upper left corner of a square plot."""
    y = MARGIN + 18 + 16 * number
    return f'<text {FONT} x="{MARGIN + 8}" y="{y}" fill="{colour}">{html.escape(name)}</text>'


def axis_mark(value: float, both: bool = True) -> str:
    """The number under the plot, and on its left where both axes run from 0 to 1."""
    (x, bottom), (left, y) = place(value, 0), place(0, value)
    below = f'<text {FONT} x="{x}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>'
    beside = f'<text {FONT} x="{left - 6}" y="{y + 4}" text-anchor="end">{value:g}</text>'
    return below + beside if both else below
