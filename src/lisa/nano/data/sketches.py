"""Things of simple shape that the photographs hardly show, drawn by a program.

A rocket, a lattice tower, a street lamp, a traffic cone, a ladder, a wind turbine: a few polygons
each, shaded and coloured at random, in the form of a cut-out. This file knows shapes; it refuses to
know what they are put on, and how often.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from PIL import Image

HEIGHT = 300  # pixels of a drawing, before its empty borders are cut off
FINER = 2  # times larger is it painted
VARIANTS = 400  # of each thing
GRAIN = 6.0  # grey values of noise, so that nothing is perfectly smooth

Points = Sequence[tuple[float, float]]


class Canvas:
    """A picture to draw on from the back to the front; units are shares of its height."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random = random
        self.size = HEIGHT * FINER
        self.colours = np.zeros((self.size, self.size, 3), np.float32)
        self.alpha = np.zeros((self.size, self.size), np.uint8)
        self.beam = np.zeros(3, np.float32)  # colour of lines
        self.light = random.uniform(-0.8, 0.8)  # where a round thing is brightest, across it

    def area(self, corners: Points, colour: np.ndarray, round_across: bool = False) -> None:
        """Fill a polygon; ``round_across`` shades it like a column."""
        points = np.round(np.array(corners) * self.size).astype(np.int32)
        mask = cv2.fillPoly(np.zeros_like(self.alpha), [points], 255) > 0
        shade = np.ones(self.size, np.float32)
        if round_across:
            left, right = points[:, 0].min(), points[:, 0].max()
            across = (np.arange(self.size) - left) / max(1, right - left) * 2 - 1
            shade = 1.05 - 0.5 * np.abs(across - self.light).clip(0, 1.6) ** 1.5
        painted = np.broadcast_to(shade[None, :, None] * colour, self.colours.shape)
        self.colours[mask] = painted[mask]
        self.alpha[mask] = 255

    def line(self, start: tuple[float, float], end: tuple[float, float], width: float) -> None:
        """A beam as wide as ``width``."""
        (x, y), (u, v) = start, end
        length = max(float(np.hypot(u - x, v - y)), 1e-6)
        dx, dy = (y - v) / length * width / 2, (u - x) / length * width / 2
        corners = [(x + dx, y + dy), (u + dx, v + dy), (u - dx, v - dy), (x - dx, y - dy)]
        self.area(corners, self.beam)

    def cut_out(self) -> np.ndarray:
        """uint8 [h, w, 4] without empty borders."""
        noise = self.random.normal(0, GRAIN, self.alpha.shape)[..., None]
        pixels = np.dstack([(self.colours + noise).clip(0, 255).astype(np.uint8), self.alpha])
        rows, columns = np.flatnonzero(self.alpha.any(1)), np.flatnonzero(self.alpha.any(0))
        part = Image.fromarray(pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
        size = (max(1, part.width // FINER), max(1, part.height // FINER))
        return np.asarray(part.resize(size, Image.Resampling.BOX))


def some_colour(random: np.random.Generator, *choices: tuple[int, int, int]) -> np.ndarray:
    """One of the colours, a little off."""
    chosen = np.array(choices[int(random.integers(len(choices)))], np.float32)
    return (chosen * random.uniform(0.8, 1.1) + random.normal(0, 8, 3)).clip(0, 255)


WHITE, GREY, BLACK = (235, 232, 225), (150, 150, 155), (40, 40, 45)
RED, ORANGE, GREEN, STEEL = (190, 40, 35), (220, 110, 40), (60, 90, 60), (110, 115, 120)


def rocket(canvas: Canvas) -> None:
    """A column with a pointed nose; fins, boosters, bands and an engine in some."""
    random = canvas.random
    half, nose, foot = random.uniform(0.02, 0.07), random.uniform(0.05, 0.25), 0.95
    body = some_colour(random, *[WHITE] * 5, GREY, ORANGE, BLACK, GREEN)
    other = some_colour(random, WHITE, BLACK, RED, GREY)
    if random.random() < 0.35:
        for x in (0.5 - 1.8 * half, 0.5 + 1.8 * half):
            column(canvas, x, 0.8 * half, random.uniform(0.35, 0.6), 0.08, foot, body)
    if random.random() < 0.4:
        wide, top = half * random.uniform(1.5, 2.6), foot - random.uniform(0.08, 0.2)
        canvas.area([(0.5 - wide, foot), (0.5, top), (0.5 + wide, foot)], other)
    canvas.area([(0.5 - half * 0.6, 0.98), (0.5, 0.9), (0.5 + half * 0.6, 0.98)], other * 0.5)
    bulge = random.uniform(1.1, 1.5) if random.random() < 0.4 else 1.0
    column(canvas, 0.5, half * bulge, 0.03, nose, 0.03 + nose * random.uniform(1.2, 1.8), body)
    column(canvas, 0.5, half, 0.03 + nose, 0.0, foot, body)
    for _ in range(int(random.integers(4))):
        top, tall = random.uniform(0.1 + nose, 0.85), random.uniform(0.005, 0.05)
        sides = [(0.5 - half, top), (0.5 + half, top)]
        canvas.area([*sides, *((x, y + tall) for x, y in reversed(sides))], other, True)


def column(
    canvas: Canvas, x: float, half: float, top: float, nose: float, foot: float, colour: np.ndarray
) -> None:
    """A round column with a rounded point of height ``nose``; its middle is at ``x``."""
    rise = np.linspace(0, 1, 8)
    edge = [(half * float(np.sqrt(t)), top + nose * float(t)) for t in rise] if nose else []
    right = [*((x + w, y) for w, y in edge), (x + half, top + nose), (x + half, foot)]
    left = [(2 * x - u, v) for u, v in reversed(right)]
    canvas.area([*right, *left], colour, round_across=True)


def tower(canvas: Canvas) -> None:
    """A lattice of beams that gets narrower towards its top, in some with a mast."""
    random = canvas.random
    canvas.beam = some_colour(random, STEEL, BLACK, GREY, RED)
    low, high = random.uniform(0.05, 0.16), random.uniform(0.01, 0.05)
    width, floors = random.uniform(0.006, 0.014), int(random.integers(6, 14))
    top = random.uniform(0.05, 0.25)
    levels = np.linspace(0.98, top, floors + 1)
    halves = np.linspace(low, high, floors + 1)
    for n in range(floors):
        (a, b), (y, v) = halves[n : n + 2], levels[n : n + 2]
        for side in (-1, 1):
            canvas.line((0.5 + side * a, y), (0.5 + side * b, v), width)
            canvas.line((0.5 + side * a, y), (0.5 - side * b, v), width * 0.7)
        canvas.line((0.5 - b, v), (0.5 + b, v), width * 0.7)
    if random.random() < 0.5:
        canvas.line((0.5, top), (0.5, 0.02), width * 1.5)


def street_lamp(canvas: Canvas) -> None:
    """A pole with a lamp on it, or at the end of an arm."""
    random = canvas.random
    canvas.beam = some_colour(random, STEEL, BLACK, GREY, GREEN)
    width = random.uniform(0.015, 0.03)
    glass = some_colour(random, (255, 240, 190), WHITE, GREY)
    canvas.line((0.5, 0.98), (0.5, 0.12), width)
    canvas.line((0.5, 0.98), (0.5, 0.9), width * 2)
    arm = random.choice([0.0, 0.12, 0.2])
    canvas.line((0.5, 0.12), (0.5 + arm, 0.09), width)
    wide, tall = (0.06, 0.03) if arm else (0.04, 0.09)
    head = [(-wide, 0), (wide, 0), (wide * 0.6, -tall), (-wide * 0.6, -tall)]
    canvas.area([(0.5 + arm + x, 0.12 + y) for x, y in head], glass)


def traffic_cone(canvas: Canvas) -> None:
    """An orange cone with bright bands on a flat foot."""
    random = canvas.random
    orange, band = some_colour(random, ORANGE, (225, 70, 30)), some_colour(random, WHITE)
    wide, tip = random.uniform(0.2, 0.3), random.uniform(0.02, 0.05)
    foot = wide * random.uniform(1.2, 1.5)
    canvas.area(
        [(0.5 - foot, 0.95), (0.5 + foot, 0.95), (0.5 + wide, 0.88), (0.5 - wide, 0.88)],
        orange * 0.8,
    )

    def part(upper: float, lower: float, colour: np.ndarray) -> None:
        half = {y: tip + (wide * 0.85 - tip) * (y - 0.1) / 0.8 for y in (upper, lower)}
        top, low = half[upper], half[lower]
        canvas.area(
            [(0.5 - low, lower), (0.5 + low, lower), (0.5 + top, upper), (0.5 - top, upper)],
            colour,
            True,
        )

    part(0.1, 0.9, orange)
    for upper in (0.35, 0.6)[: int(random.integers(1, 3))]:
        part(upper, upper + random.uniform(0.1, 0.15), band)


def ladder(canvas: Canvas) -> None:
    """Two rails and the rungs between them, upright or leaning."""
    random = canvas.random
    canvas.beam = some_colour(random, (170, 120, 70), GREY, (200, 200, 205), ORANGE)
    half, lean = random.uniform(0.06, 0.12), random.uniform(-0.2, 0.2)
    width = random.uniform(0.015, 0.03)
    for y in np.linspace(0.92, 0.08, int(random.integers(6, 14))):
        middle = 0.5 + lean * (0.5 - y)
        canvas.line((middle - half, y), (middle + half, y), width * 0.8)
    for side in (-half, half):
        canvas.line((0.5 - lean / 2 + side, 1.0), (0.5 + lean / 2 + side, 0.0), width)


def wind_turbine(canvas: Canvas) -> None:
    """A slender mast and three blades."""
    random = canvas.random
    white = some_colour(random, WHITE, (215, 215, 220))
    hub, reach = random.uniform(0.3, 0.4), random.uniform(0.24, 0.3)
    half = random.uniform(0.008, 0.016)
    mast = [(0.5 - half * 1.4, 0.99), (0.5 + half * 1.4, 0.99), (0.5 + half * 0.7, hub)]
    canvas.area([*mast, (0.5 - half * 0.7, hub)], white, True)
    turned = random.uniform(0, 2 * np.pi / 3)
    for angle in turned + np.arange(3) * 2 * np.pi / 3:
        x, y = float(np.cos(angle)), float(np.sin(angle))
        wide = half * 1.3
        near = (0.5 + x * reach * 0.25, hub + y * reach * 0.25)
        corners = [(0.5, hub), (near[0] - y * wide, near[1] + x * wide)]
        corners += [(0.5 + x * reach, hub + y * reach), (near[0] + y * wide, near[1] - x * wide)]
        canvas.area(corners, white * 0.95)


SKETCHES: dict[str, Callable[[Canvas], None]] = {
    "rocket": rocket,
    "tower": tower,
    "street lamp": street_lamp,
    "traffic cone": traffic_cone,
    "ladder": ladder,
    "wind turbine": wind_turbine,
}


class Sketches(Sequence[tuple[np.ndarray, str]]):
    """Drawn things: index in, (uint8 [h, w, 4], name) out; the same drawing each time.

    Args:
        variants: drawings of each thing.
    """

    def __init__(self, variants: int = VARIANTS) -> None:
        self.names = [name for name in SKETCHES for _ in range(variants)]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:  # type: ignore[override]  # no slices
        canvas = Canvas(np.random.default_rng(index))
        SKETCHES[self.names[index]](canvas)
        return canvas.cut_out(), self.names[index]
