"""Small files for the tests of data sets: pictures, JSON, and squares as COCO has them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

HEIGHT, WIDTH = 12, 16


def write_picture(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """A grey picture of (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", size, "gray").save(path)
    return path


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def polygon(x: int, y: int, side: int) -> list[int]:
    """A square as [x1, y1, ...]; its mask is ``square``."""
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def square(x: int, y: int, side: int) -> np.ndarray:
    """bool [HEIGHT, WIDTH]."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + side, x : x + side] = True
    return mask
