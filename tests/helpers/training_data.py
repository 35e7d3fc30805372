"""A training folder in miniature: 64 px pictures of coloured shapes under everyday names.

photos/SOURCE                  three sources with masks (one photo in six is held out)
photos/imagelevel_imagenet1000 labels without masks
photos/stamps                  one cut-out
reasonseg_nano/{train239,val}  two questions each
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from lisa.example import Example
from lisa.masks import run_lengths
from lisa.training.loop import Task

SIDE = 64
PHOTOS_A_SOURCE = 6
COLOURS = {"cat": (220, 60, 40), "dog": (40, 80, 220), "horse": (150, 90, 30)}
SOURCES = {
    "coco_union": ("cat", "dog", "cup"),
    "voc_animals": ("cat", "dog", "horse"),
    "ccp": ("dress", "bag", "belt"),
}
EVERYDAY = (  # enough for composite scenes of eight things; the last three are held out
    *("cat", "dog", "banana", "hammer", "trumpet", "spoon", "camel", "cello", "ostrich"),
)
IMPLICIT = {
    "train239": ("Which of the two shapes would a matador choose?", "What is not made of corners?"),
    "val": ("Which shape would roll?", "What stands on a side?"),
}


def write_training_data(root: Path) -> Path:
    """All of the folder above; returns ``root``."""
    for number, (source, names) in enumerate(SOURCES.items()):
        write_photos(root / "photos" / source, names, seed=number)
    write_labelled(root / "photos" / "imagelevel_imagenet1000", ("cat", "banana"))
    write_stamps(root / "photos" / "stamps")
    for split, questions in IMPLICIT.items():
        write_reasonseg(root / "reasonseg_nano" / split, questions)
    return root


def write_photos(folder: Path, names: tuple[str, ...], seed: int = 0) -> None:
    """Photographs with two of the names each, in COCO format."""
    random = np.random.default_rng(seed)
    images, annotations = [], []
    for number in range(PHOTOS_A_SOURCE):
        pixels, regions = draw_photo(random, [names[number % 3], names[(number + 1) % 3]])
        images.append({"id": number, "file_name": f"{number}.png"})
        save(pixels, folder / "images" / f"{number}.png")
        annotations += [annotation(number, names.index(name), mask) for name, mask in regions]
    content = {
        "info": {"masks": "instances"},
        "images": images,
        "annotations": [{"id": n, **record} for n, record in enumerate(annotations)],
        "categories": [{"id": n, "name": name} for n, name in enumerate(names)],
    }
    (folder / "annotations.json").write_text(json.dumps(content))


def draw_photo(
    random: np.random.Generator, names: list[str]
) -> tuple[np.ndarray, list[tuple[str, np.ndarray]]]:
    """A round thing on the left and a square one on the right: uint8 [H, W, 3], names and masks."""
    pixels = random.integers(90, 130, (SIDE, SIDE, 3)).astype(np.uint8)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    top, radius = int(random.integers(20, 44)), int(random.integers(8, 14))
    round_thing = (rows - top) ** 2 + (columns - 16) ** 2 <= radius**2
    square_thing = (abs(rows - top) <= radius) & (abs(columns - 46) <= radius)
    regions = list(zip(names, (round_thing, square_thing), strict=True))
    for name, mask in regions:
        pixels[mask] = COLOURS.get(name, (230, 200, 60))
    return pixels, regions


def annotation(image: int, category: int, mask: np.ndarray) -> dict[str, Any]:
    """One COCO record of a mask, as run lengths."""
    return {"image_id": image, "category_id": category, "segmentation": run_lengths(mask)}


def write_labelled(folder: Path, labels: tuple[str, ...]) -> None:
    """One plain picture for each label."""
    records = [{"file_name": f"{label}.png", "label": label} for label in labels]
    for label in labels:
        save(
            np.full((SIDE, SIDE, 3), COLOURS.get(label, (230, 220, 40)), np.uint8),
            folder / "images" / f"{label}.png",
        )
    (folder / "annotations.json").write_text(json.dumps({"images": records}))


def write_stamps(folder: Path) -> None:
    """A trumpet with a transparent border."""
    write_stamps_of(folder, ("trumpet",))


def write_stamps_of(folder: Path, names: tuple[str, ...]) -> None:
    """A cut-out for each of the names, all alike."""
    pixels = np.zeros((24, 24, 4), np.uint8)
    pixels[4:20, 4:20] = (250, 210, 0, 255)
    for name in names:
        save(pixels, folder / f"{name}.png")
    entries = [{"file": f"{name}.png", "text": f"A {name}."} for name in names]
    (folder / "index.json").write_text(json.dumps(entries))


def write_reasonseg(folder: Path, questions: tuple[str, ...]) -> None:
    """For each question a photograph whose target is the square on its right."""
    random = np.random.default_rng(7)
    for number, question in enumerate(questions):
        pixels, _ = draw_photo(random, ["cat", "dog"])
        save(pixels, folder / f"{number}.jpg")
        corners = [[34, 20], [58, 20], [58, 44], [34, 44]]
        content = {
            "text": [question],
            "is_sentence": True,
            "shapes": [{"label": "target", "points": corners}],
            "target_name": "dog",
        }
        (folder / f"{number}.json").write_text(json.dumps(content))


def save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)


def content(example: Example) -> tuple[str, str | None, bytes, bytes]:
    """Everything in an example, in a form that can be compared."""
    mask = b"unknown" if example.masks is None else example.mask.tobytes()
    return example.question, example.answer, example.image.tobytes(), mask


def learn(task: Task, batch: Any, steps: int, learning_rate: float) -> list[float]:
    """AdamW on one batch; the total loss before each step."""
    optimizer = torch.optim.AdamW(task.parameter_groups(learning_rate))
    losses = []
    for _ in range(steps):
        loss = sum(task(batch).values(), torch.zeros(()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def write_state(checkpoint: Path, log: list[dict[str, float]], written_at: int = 0) -> None:
    checkpoint.mkdir(parents=True)
    path = checkpoint / "trainer_state.json"
    path.write_text(json.dumps({"log_history": log}))
    os.utime(path, (written_at, written_at))
