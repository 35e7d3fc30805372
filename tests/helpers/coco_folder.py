"""A COCO-format folder of three small photographs whose regions have a colour for each name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lisa.masks import run_lengths

HEIGHT, WIDTH = 60, 80
COLOURS = {"cat": (250, 10, 10), "dog": (10, 250, 10), "cup": (10, 10, 250)}
BACKGROUND = (120, 120, 120)
THINGS = {  # by photograph: (name, left, top, width, height)
    "a.png": [("cat", 5, 10, 20, 30), ("cat", 50, 20, 24, 34), ("dog", 30, 2, 12, 16)],
    "b.png": [("dog", 40, 30, 30, 24), ("cup", 4, 4, 14, 14)],
    "c.png": [("cup", 20, 20, 40, 20)],
}


def rectangle(left: int, top: int, width: int, height: int) -> np.ndarray:
    """bool [HEIGHT, WIDTH]."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top : top + height, left : left + width] = True
    return mask


def painted(things: list[tuple[str, int, int, int, int]]) -> np.ndarray:
    """uint8 [HEIGHT, WIDTH, 3]: each thing a rectangle in the colour of its name."""
    pixels = np.full((HEIGHT, WIDTH, 3), BACKGROUND, np.uint8)
    for name, *box in things:
        pixels[rectangle(*box)] = COLOURS[name]
    return pixels


def content() -> dict[str, Any]:
    """What `annotations.json` holds."""
    ids = {name: number for number, name in enumerate(COLOURS, start=1)}
    images = [{"id": n, "file_name": name} for n, name in enumerate(THINGS, start=10)]
    annotations = [
        {
            "image_id": image["id"],
            "category_id": ids[name],
            "segmentation": run_lengths(rectangle(*box)),
        }
        for image in images
        for name, *box in THINGS[str(image["file_name"])]
    ]
    return {
        "info": {"masks": "instances"},
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
        "images": images[::-1],  # a folder is sorted by file name, whatever the order in the file
        "annotations": [
            {"id": number, **annotation} for number, annotation in enumerate(annotations, start=1)
        ],
    }


def make_folder(folder: Path, annotations: Any = None) -> Path:
    """Write the folder; `annotations` takes the place of the right ones."""
    (folder / "images").mkdir(parents=True)
    for name, things in THINGS.items():
        Image.fromarray(painted(things)).save(folder / "images" / name)
    text = json.dumps(content() if annotations is None else annotations)
    (folder / "annotations.json").write_text(text, encoding="utf-8")
    return folder


def make_cutouts(folder: Path) -> Path:
    """Two cut-outs: a magenta disc with a plain name, and one whose text is more than a name."""
    folder.mkdir(parents=True)
    y, x = np.mgrid[:40, :40]
    disc = np.zeros((40, 40, 4), np.uint8)
    disc[(x - 20) ** 2 + (y - 20) ** 2 < 18**2] = (255, 0, 255, 255)
    Image.fromarray(disc).save(folder / "disc.png")
    entries = [
        {"file": "disc.png", "text": "A very small plate."},
        {"file": "none.png", "text": "A plate, also called a dish."},
    ]
    (folder / "index.json").write_text(json.dumps(entries), encoding="utf-8")
    return folder
