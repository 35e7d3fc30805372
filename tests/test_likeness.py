"""Fingerprints of pictures: copies agree, other pictures do not."""

from pathlib import Path

import PIL.Image
import pytest

from lisa.data.likeness import NEAR, alike, fingerprint, groups_of

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.jpg"))


def photo(path: Path) -> PIL.Image.Image:
    return PIL.Image.open(path).convert("RGB")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_retouched_copy_has_nearly_the_same_fingerprint(path: Path) -> None:
    image = photo(path)
    small = image.resize((image.width // 3, image.height // 3))
    darker = image.point(lambda value: value * 0.8 + 10)
    trimmed = image.crop((4, 4, image.width - 4, image.height - 4))
    for copy in (small, darker, trimmed):
        assert alike(fingerprint(image), fingerprint(copy))


def test_different_photographs_are_not_alike() -> None:
    prints = [fingerprint(photo(path)) for path in EXAMPLES]
    assert groups_of(prints) == [[0], [1], [2], [3]]


def test_groups_join_what_lies_between() -> None:
    near = (1 << NEAR) - 1
    chain = [0, near << 30, (near << 30) | near, (1 << 64) - 1]
    assert groups_of(chain) == [[0, 1, 2], [3]]
    assert groups_of([]) == []
