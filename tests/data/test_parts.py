"""Things and their parts: names, masks, what training draws, and broken files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.picture_files import HEIGHT, WIDTH, polygon, square, write_json, write_picture
from lisa.data.parts import Category, category_of, paco_category, paco_lvis, pascal_part
from lisa.errors import DataError

Change = Callable[[dict[str, Any]], Any]


def content() -> dict[str, Any]:
    """Two mugs, one with a handle, in the first picture; nothing in the second."""
    squares = [(1, 1), (1, 7), (2, 11)]
    return {
        "images": [
            {"id": n, "file_name": f"{n}.jpg", "height": HEIGHT, "width": WIDTH} for n in (1, 2)
        ],
        "categories": [
            {"id": 1, "name": "mug_(drinkware)"},
            {"id": 2, "name": "mug_(drinkware):handle_(part)"},
        ],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": category, "segmentation": [polygon(x, 2, 3)]}
            for n, (category, x) in enumerate(squares, start=10)
        ],
    }


def write(root: Path, change: Change = lambda content: None) -> Path:
    made = content()
    change(made)
    write_json(root / "vlpart" / "paco" / "annotations" / "paco_lvis_v1_train.json", made)
    for n in (1, 2):
        write_picture(root / "coco" / f"{n}.jpg")
    return root


def test_an_example_asks_for_all_of_a_category(tmp_path: Path) -> None:
    dataset = paco_lvis(write(tmp_path), "train")
    assert [example.question for example in dataset] == ["mug", "mug handle"]
    assert np.array_equal(dataset[0].masks, (square(1, 2, 3) | square(7, 2, 3))[np.newaxis])
    assert dataset[0].name == "1.jpg#mug"
    assert [path.name for path in dataset.photos] == ["1.jpg"]


def test_training_asks_for_single_annotations(tmp_path: Path) -> None:
    dataset = paco_lvis(write(tmp_path), "train")
    drawn = [e for seed in range(20) for e in dataset.draw(0, np.random.default_rng(seed))]
    masks = {"mug": [square(1, 2, 3), square(7, 2, 3)]}
    masks |= {name: [square(11, 2, 3)] for name in ("mug handle", "the handle of the mug")}
    assert {example.phrase for example in drawn} == masks.keys()
    for example in drawn:
        assert example.phrase in example.question
        assert any(np.array_equal(example.mask, mask) for mask in masks[example.phrase])


def test_names() -> None:
    assert category_of("dog:left ear") == Category("dog", "left ear")
    assert category_of("dog") == Category("dog")
    assert paco_category("mug_(drinkware):handle_(part)") == Category("mug", "handle")
    assert paco_category("cellular_telephone").name == "cellular_telephone"


def test_pascal_part(tmp_path: Path) -> None:
    write_json(tmp_path / "vlpart" / "pascal_part" / "train.json", content())
    photos = tmp_path / "vlpart" / "pascal_part" / "VOCdevkit" / "VOC2010" / "JPEGImages"
    write_picture(photos / "1.jpg")
    dataset = pascal_part(tmp_path, "train")
    assert (dataset.name, dataset[0].question) == ("pascal-part", "mug_(drinkware)")


def in_annotation(**values: Any) -> Change:
    return lambda content: content["annotations"][2].update(values)


BROKEN = {
    "2 points": (in_annotation(segmentation=[[1, 2, 3, 4]]), "polygon 0 has"),
    "NaN": (
        in_annotation(segmentation=[[1, 2, 3, 4, 5, float("nan")]]),
        "polygon 0: a corner is NaN",
    ),
    "category": (in_annotation(category_id=9), "category 9 is not among the categories"),
    "no image": (in_annotation(image_id=None), "'image_id' is missing"),
}


@pytest.mark.parametrize(("change", "message"), BROKEN.values(), ids=list(BROKEN))
def test_a_broken_record_is_named_or_left_out(tmp_path: Path, change: Change, message: str) -> None:
    write(tmp_path, change)
    with pytest.raises(DataError, match=rf"annotation 12 of '.*train\.json': {message}"):
        paco_lvis(tmp_path, "train")
    kept = paco_lvis(tmp_path, "train", skip_bad=True)
    assert ([example.question for example in kept], len(kept.skipped)) == (["mug"], 1)


def test_run_lengths_of_another_size_are_named(tmp_path: Path) -> None:
    small = {"size": [2, 2], "counts": [0, 4]}
    dataset = paco_lvis(write(tmp_path, in_annotation(segmentation=small)), "train")
    with pytest.raises(DataError, match=r"annotation 12 of '.*': .* mask of \[2, 2\]; expected"):
        dataset[1]


def test_a_picture_of_another_size_is_named(tmp_path: Path) -> None:
    dataset = paco_lvis(write(tmp_path), "train")
    write_picture(dataset.photos[0], (WIDTH + 1, HEIGHT))
    with pytest.raises(DataError, match=r"image '1\.jpg' of '.*train\.json' is of \[12, 16\]"):
        dataset[0]


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    (write(tmp_path) / "coco" / "1.jpg").unlink()
    with pytest.raises(DataError, match=r"image 1 of '.*': picture '.*1\.jpg' is missing"):
        paco_lvis(tmp_path, "train")


def test_a_file_without_annotations_is_named(tmp_path: Path) -> None:
    write(tmp_path, lambda content: content["annotations"].clear())
    with pytest.raises(DataError, match="nothing is annotated in"):
        paco_lvis(tmp_path, "train")
