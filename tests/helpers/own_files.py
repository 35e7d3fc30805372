"""Small annotated pictures of one's own, in each format that can be imported.

Every picture shows rectangles in the colour of their name; each maker writes the same ones.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from lisa.masks import run_lengths

HEIGHT, WIDTH = 40, 60
COLOURS = {"zarp": (250, 60, 20), "blue_fip": (20, 60, 250)}
NAMES = list(COLOURS)
Box = tuple[str, int, int, int, int]  # name, left, top, width, height


def boxes(number: int) -> list[Box]:
    """The things of a picture: always a zarp; every other picture has a blue fip, too."""
    things: list[Box] = [("zarp", 3 + 2 * (number % 5), 4 + number % 7, 20, 15)]
    return [*things, ("blue_fip", 35, 20 - number % 6, 14, 12)] if number % 2 else things


def mask(box: Box) -> np.ndarray:
    """bool [HEIGHT, WIDTH]."""
    _, left, top, width, height = box
    found = np.zeros((HEIGHT, WIDTH), bool)
    found[top : top + height, left : left + width] = True
    return found


def corners(box: Box) -> list[list[float]]:
    """The outline [[x, y], ...] along the pixels' edges."""
    _, left, top, width, height = box
    right, bottom = left + width, top + height
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def picture(number: int) -> PIL.Image.Image:
    """Noise that differs from picture to picture, with the things on it."""
    random = np.random.default_rng(number)
    coarse = random.integers(60, 190, (5, 6, 3), np.uint8)
    pixels = coarse.repeat(8, axis=0).repeat(10, axis=1)
    for box in boxes(number):
        pixels[mask(box)] = COLOURS[box[0]]
    return PIL.Image.fromarray(pixels)


def save_pictures(folder: Path, count: int) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"p{number:02}.png" for number in range(count)]
    for number, name in enumerate(names):
        picture(number).save(folder / name)
    return names


def write_json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def shape(box: Box) -> dict[str, Any]:
    return {"label": box[0], "points": corners(box), "shape_type": "polygon", "group_id": None}


def make_labelme(folder: Path, count: int = 10) -> Path:
    for number, name in enumerate(save_pictures(folder, count)):
        content = {
            "version": "5.0.1",
            "imagePath": name,
            "imageData": None,
            "imageHeight": HEIGHT,
            "imageWidth": WIDTH,
            "shapes": [shape(box) for box in boxes(number)],
        }
        write_json(folder / f"{Path(name).stem}.json", content)
    return folder


def coco_content(count: int) -> dict[str, Any]:
    """Polygons for zarps, run lengths for fips."""
    annotations = []
    for number in range(count):
        for box in boxes(number):
            flat = [value for corner in corners(box) for value in corner]
            held: Any = [flat] if box[0] == "zarp" else run_lengths(mask(box))
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": NAMES.index(box[0]) + 1,
                    "segmentation": held,
                    "iscrowd": 0,
                }
            )
    return {
        "images": [
            {"id": n, "file_name": f"p{n:02}.png", "height": HEIGHT, "width": WIDTH}
            for n in range(count)
        ],
        "categories": [{"id": n, "name": name} for n, name in enumerate(NAMES, start=1)],
        "annotations": annotations,
    }


def make_coco(folder: Path, count: int = 10) -> Path:
    save_pictures(folder / "images", count)
    write_json(folder / "annotations.json", coco_content(count))
    return folder


def make_yolo(folder: Path, count: int = 10) -> Path:
    """Eight in ten for training, the last ones for validation."""
    for split, numbers in (("train", range(count - 2)), ("val", range(count - 2, count))):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for number in numbers:
            picture(number).save(folder / "images" / split / f"p{number:02}.png")
            (folder / "labels" / split / f"p{number:02}.txt").write_text(yolo_lines(number))
    text = "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: zarp\n  1: blue_fip\n"
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    return folder


def yolo_lines(number: int) -> str:
    lines = []
    for box in boxes(number):
        shares = [f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in corners(box)]
        lines.append(" ".join([str(NAMES.index(box[0])), *shares]))
    return "\n".join(lines) + "\n"


def make_masks(folder: Path, count: int = 10) -> Path:
    """One mask file a picture; values 1 and 2 are named by ``classes.txt``."""
    (folder / "masks").mkdir(parents=True)
    for number, name in enumerate(save_pictures(folder / "images", count)):
        values = np.zeros((HEIGHT, WIDTH), np.uint8)
        for box in boxes(number):
            values[mask(box)] = NAMES.index(box[0]) + 1
        PIL.Image.fromarray(values).save(folder / "masks" / name)
    (folder / "classes.txt").write_text("\n".join(NAMES), encoding="utf-8")
    return folder


def make_class_folders(folder: Path, count: int = 10) -> Path:
    """A folder of masks for each class."""
    for number, name in enumerate(save_pictures(folder / "images", count)):
        for box in boxes(number):
            (folder / "masks" / box[0]).mkdir(parents=True, exist_ok=True)
            white = mask(box).astype(np.uint8) * 255
            PIL.Image.fromarray(white).save(folder / "masks" / box[0] / name)
    return folder


def make_jsonl(folder: Path, count: int = 10) -> Path:
    """A question a picture, with polygons, run lengths or a mask file in turn."""
    (folder / "masks").mkdir(parents=True)
    lines = []
    for number, name in enumerate(save_pictures(folder, count)):
        box = boxes(number)[0]
        PIL.Image.fromarray(mask(box).astype(np.uint8)).save(folder / "masks" / name)
        forms: list[Any] = [[corners(box)], run_lengths(mask(box)), f"masks/{name}"]
        wordings = [f"what glows in {number}?", f"which one glows in {number}?"]
        lines.append(
            {
                "image": name,
                "questions": wordings,
                "answer": "The zarp.",
                "masks": forms[number % 3],
                "name": "zarp",
                "kind": "attribute",
            }
        )
    lines.append({"image": "p00.png", "question": "where is the fip?", "masks": []})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "questions.jsonl").write_text(text, encoding="utf-8")
    return folder


MAKERS = {
    "labelme": make_labelme,
    "coco": make_coco,
    "yolo-seg": make_yolo,
    "masks": make_masks,
    "jsonl": make_jsonl,
}
