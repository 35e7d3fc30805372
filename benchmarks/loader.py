"""How many examples a second one core reads, beside decoding the photos and nothing else.

    python benchmarks/loader.py [--root ReasonSeg --split train]

Without a folder, photos of the size of ReasonSeg's are made: camera-like noise on a scene, 1,024 by
768 pixels, JPEG of quality 90, with three polygons of forty corners each. Decoding alone is
Pillow's ``open`` and ``load`` of the same files. Both are read from a warm cache, in turns, and the
best of the rounds counts: the machine may have other work.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import PIL.Image

from lisa.data.reasonseg import ReasonSeg

WIDTH, HEIGHT, CORNERS = 1024, 768, 40
MOST_SLOWER = 0.2  # than decoding alone, that the loader may be
LEAST = 50.0  # examples a second, that are enough in any case


def main() -> None:
    """Measure, and say whether it is enough."""
    parser = argparse.ArgumentParser(description="Throughput of the ReasonSeg loader on one core.")
    parser.add_argument("--root", type=Path, help="a folder in the layout of ReasonSeg")
    parser.add_argument("--split", help="the folder inside it")
    parser.add_argument("--photos", type=int, default=40, help="how many are read in a round")
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = chosen.root or make_folder(Path(folder), chosen.photos)
        measure(ReasonSeg(root, chosen.split), chosen.photos, chosen.rounds)


def measure(dataset: ReasonSeg, most: int, rounds: int) -> None:
    """Print examples a second of three ways of reading the same photos."""
    photos = list(dataset.photos[:most])
    generator = np.random.default_rng(0)
    ways: dict[str, Callable[[], None]] = {
        "decoding alone": lambda: drain(decode(photo) for photo in photos),
        "dataset[i]": lambda: drain(dataset[index] for index in range(len(photos))),
        "dataset.draw(i)": lambda: drain(
            dataset.draw(index, generator) for index in range(len(photos))
        ),
    }
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            best[name] = min(best[name], processor_seconds(way))
    alone = best["decoding alone"]
    for name, seconds in best.items():
        slower = seconds / alone - 1
        print(f"{name:16} {len(photos) / seconds:7.1f} a second a core  {slower:+6.1%}")
    seconds = max(best.values())
    enough = len(photos) / seconds >= LEAST or seconds <= alone * (1 + MOST_SLOWER)
    print(
        "enough" if enough else "not enough", f"({LEAST:.0f} a second, or {MOST_SLOWER:.0%} slower)"
    )


def processor_seconds(way: Callable[[], None]) -> float:
    """Of this process: what others do at the same time is not counted."""
    start = time.process_time()
    way()
    return time.process_time() - start


def decode(photo: Path) -> PIL.Image.Image:
    with PIL.Image.open(photo) as image:
        image.load()
        return image


def drain(values: Iterable[object]) -> None:
    for _ in values:
        pass


def make_folder(folder: Path, count: int) -> Path:
    """Photos and annotations like ReasonSeg's."""
    random = np.random.default_rng(0)
    for number in range(count):
        photo(random).save(folder / f"{number:03}.jpg", quality=90)
        shapes = [{"label": "target", "points": outline(random)} for _ in range(3)]
        shapes[2]["label"] = "ignore"
        texts = ["what keeps the coffee warm?", "the one to drink from", "something to pour"]
        content = {"text": texts, "is_sentence": True, "shapes": shapes}
        (folder / f"{number:03}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def photo(random: np.random.Generator) -> PIL.Image.Image:
    coarse = PIL.Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), PIL.Image.Resampling.BICUBIC), np.float32)
    noisy = smooth + random.normal(0, 6, smooth.shape)
    return PIL.Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def outline(random: np.random.Generator) -> list[list[float]]:
    """A star-shaped polygon somewhere in the photo."""
    centre = random.uniform([200, 200], [WIDTH - 200, HEIGHT - 200])
    angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    radii = random.uniform(80, 200, CORNERS)
    points = centre + np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)
    return [[float(x), float(y)] for x, y in points]


if __name__ == "__main__":
    main()
