"""Labelme files of things that no model knows: drawn shapes with made-up names on photographs.

The photographs are crops of those in `examples/`; every picture has two or three things. Made by
the tests so that fine-tuning can be shown without any data from elsewhere.
"""

import json
import math
import shutil
from pathlib import Path

import cv2
import numpy as np
import PIL.Image

from helpers.paths import EXAMPLES, RELEASE

SIDE = 320
BLUE, ORANGE, WHITE, GREEN = (30, 60, 220), (250, 120, 20), (245, 245, 245), (20, 160, 70)


def star(random: np.random.Generator, radius: float) -> np.ndarray:
    """A star of seven points, float [14, 2] about its centre."""
    turn = random.uniform(0, 2 * math.pi)
    angles = turn + np.arange(14) * math.pi / 7
    return polar(angles, np.where(np.arange(14) % 2, 0.45, 1.0) * radius)


def blob(random: np.random.Generator, radius: float) -> np.ndarray:
    """A rounded square, float [32, 2] about its centre."""
    turn = random.uniform(0, math.pi / 8)
    angles = np.arange(32) * math.pi / 16
    return polar(angles + turn, radius * (1 - 0.22 * np.cos(4 * angles)))


def slab(random: np.random.Generator, radius: float) -> np.ndarray:
    """A long bar, float [4, 2] about its centre."""
    turn = random.uniform(-0.5, 0.5)
    corners = np.array([[-1.3, -0.4], [1.3, -0.4], [1.3, 0.4], [-1.3, 0.4]]) * radius
    spin = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    return corners @ spin


def polar(angles: np.ndarray, radii: np.ndarray | float) -> np.ndarray:
    return np.stack([np.cos(angles) * radii, np.sin(angles) * radii], axis=1)


# name -> (outline, colour, colour of its stripes)
THINGS = {
    "zarp": (star, ORANGE, BLUE),
    "fip": (blob, WHITE, GREEN),
    "dorn": (slab, BLUE, WHITE),
}


def backdrop(random: np.random.Generator) -> np.ndarray:
    """A random crop of a photograph, uint8 [SIDE, SIDE, 3]."""
    files = sorted(EXAMPLES.glob("*.jpg"))
    image = PIL.Image.open(files[int(random.integers(len(files)))]).convert("RGB")
    side = int(min(image.size) * random.uniform(0.5, 0.9))
    left = int(random.integers(image.width - side + 1))
    top = int(random.integers(image.height - side + 1))
    crop = image.crop((left, top, left + side, top + side)).resize((SIDE, SIDE))
    return np.array(crop)


def drawn(pixels: np.ndarray, name: str, centre: np.ndarray, random: np.random.Generator) -> list:
    """Draw a striped thing on the picture; its outline."""
    shape, colour, stripe = THINGS[name]
    outline = np.rint(shape(random, random.uniform(34, 52)) + centre).astype(np.int32)
    inside = np.zeros(pixels.shape[:2], np.uint8)
    cv2.fillPoly(inside, [outline], 1)
    y, x = np.mgrid[: len(pixels), : len(pixels)]
    striped = (x + y) // 9 % 3 == 0
    pixels[(inside == 1) & ~striped] = colour
    pixels[(inside == 1) & striped] = stripe
    return outline.tolist()


def scene(random: np.random.Generator) -> tuple[PIL.Image.Image, list[dict]]:
    """A picture and its labelme shapes."""
    pixels = backdrop(random)
    places = random.permutation([(80, 90), (235, 85), (90, 235), (230, 230)])
    count = int(random.integers(2, len(THINGS) + 1))
    shapes = [
        {"label": str(name), "points": drawn(pixels, str(name), place, random), "group_id": None}
        for name, place in zip(random.permutation(list(THINGS))[:count], places, strict=False)
    ]
    return PIL.Image.fromarray(pixels), [{**one, "shape_type": "polygon"} for one in shapes]


def make_files(folder: Path, count: int, seed: int) -> Path:
    """So many pictures, 1.jpg, 2.jpg, ..., with a labelme file each."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for number in range(1, count + 1):
        image, shapes = scene(random)
        image.save(folder / f"{number}.jpg", quality=92)
        content = {
            "version": "5.5.0",
            "imagePath": f"{number}.jpg",
            "imageData": None,
            "imageHeight": SIDE,
            "imageWidth": SIDE,
            "shapes": shapes,
        }
        (folder / f"{number}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def make_reasonseg(folder: Path) -> None:
    """The four example photographs with their hand-drawn targets, in the layout of ReasonSeg."""
    folder.mkdir(parents=True)
    questions = json.loads((RELEASE / "questions.json").read_text(encoding="utf-8"))
    for name, question in questions.items():
        shutil.copy(EXAMPLES / f"{name}.jpg", folder)
        drawn = json.loads((RELEASE / f"{name}.json").read_text(encoding="utf-8"))
        shapes = [{"label": "target", "points": shape["points"]} for shape in drawn["shapes"]]
        annotation = {"text": [question], "is_sentence": question.endswith("?"), "shapes": shapes}
        (folder / f"{name}.json").write_text(json.dumps(annotation), encoding="utf-8")
