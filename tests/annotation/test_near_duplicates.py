"""Fingerprints of pictures: copies agree, other pictures do not."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from helpers.paths import EXAMPLES
from lisa.annotation.near_duplicates import NEAR, STAMP, alike, fingerprint, groups_of, stamp

PHOTOGRAPHS = sorted(EXAMPLES.glob("*.jpg"))


def photo(path: Path) -> PIL.Image.Image:
    return PIL.Image.open(path).convert("RGB")


@pytest.mark.parametrize("path", PHOTOGRAPHS, ids=lambda path: path.stem)
def test_a_retouched_copy_has_nearly_the_same_fingerprint(path: Path) -> None:
    image = photo(path)
    small = image.resize((image.width // 3, image.height // 3))
    darker = image.point(lambda value: value * 0.8 + 10)
    trimmed = image.crop((4, 4, image.width - 4, image.height - 4))
    for copy in (small, darker, trimmed):
        assert alike(fingerprint(image), fingerprint(copy))
        assert grouped([image, copy]) == [[0, 1]]


def test_different_photographs_are_not_alike() -> None:
    assert grouped([photo(path) for path in PHOTOGRAPHS]) == [[0], [1], [2], [3]]


def test_flat_pictures_with_different_things_are_not_alike() -> None:
    """Their fingerprints are: most places are as dark as the next one."""
    pictures = []
    for place in ((2, 2), (40, 30), (20, 50)):
        picture = PIL.Image.new("RGB", (80, 80), "white")
        picture.paste("black", (*place, place[0] + 12, place[1] + 12))
        pictures.append(picture)
    prints = [fingerprint(picture) for picture in pictures]
    assert alike(prints[0], prints[1]) and alike(prints[1], prints[2])
    assert grouped(pictures) == [[0], [1], [2]]
    assert grouped([pictures[0], pictures[0].copy()]) == [[0, 1]]


def test_groups_join_what_lies_between() -> None:
    near = (1 << NEAR) - 1
    chain = [0, near << 30, (near << 30) | near, (1 << 64) - 1]
    same = np.full(STAMP * STAMP, 1 / STAMP, np.float16)
    assert groups_of(chain, [same] * 4) == [[0, 1, 2], [3]]
    assert groups_of([], []) == []


def grouped(pictures: list[PIL.Image.Image]) -> list[list[int]]:
    return groups_of([fingerprint(one) for one in pictures], [stamp(one) for one in pictures])
