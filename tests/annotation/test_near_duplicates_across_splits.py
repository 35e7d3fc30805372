"""Pictures that two lists have in common: copies are found, likenesses by chance are not."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from lisa.annotation.near_duplicates import Fingerprints, is_copy, shared


def scene(seed: int) -> PIL.Image.Image:
    """A smooth picture that no other seed gives."""
    random = np.random.default_rng(seed)
    coarse = PIL.Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return coarse.resize((160, 120), PIL.Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in range(4):
        scene(seed).save(tmp_path / f"{seed}.png")
    scene(0).resize((80, 60)).save(tmp_path / "smaller.jpg", quality=60)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    return tmp_path


def names(pairs: list[tuple[Path, Path]]) -> list[tuple[str, str]]:
    return [(one.name, other.name) for one, other in pairs]


def test_a_smaller_copy_is_found(folder: Path) -> None:
    trained = [folder / "0.png", folder / "1.png"]
    measured = [folder / "2.png", folder / "smaller.jpg", folder / "3.png"]
    assert names(shared(trained, measured, Fingerprints())) == [("0.png", "smaller.jpg")]


def test_the_same_file_is_found(folder: Path) -> None:
    paths = [folder / "0.png", folder / "1.png"]
    assert names(shared(paths, paths[1:], Fingerprints())) == [("1.png", "1.png")]


def test_each_picture_counts_once(folder: Path) -> None:
    trained = [folder / "0.png", folder / "smaller.jpg", folder / "0.png"]
    assert len(shared(trained, [folder / "0.png", folder / "0.png"], Fingerprints())) == 1


def test_what_cannot_be_read_is_left_out(folder: Path) -> None:
    paths = [folder / "broken.jpg"]
    assert shared(paths, paths, Fingerprints()) == []
    assert shared([], [folder / "0.png"], Fingerprints()) == []


def test_flat_pictures_are_told_apart(tmp_path: Path) -> None:
    for name, grey in {"dark": 20, "light": 220}.items():
        PIL.Image.new("L", (40, 30), grey).save(tmp_path / f"{name}.png")
    dark, light = tmp_path / "dark.png", tmp_path / "light.png"
    marks = Fingerprints()
    assert marks.of(dark) == marks.of(light)
    assert not is_copy(dark, light)
    assert shared([dark], [light], marks) == []
