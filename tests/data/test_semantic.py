"""Label maps: classes and what is ignored, what training draws, and broken files."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from helpers.picture_files import HEIGHT, WIDTH, square, write_json, write_picture
from lisa.data.prompts import PAPER_PHRASE_QUESTIONS
from lisa.data.semantic import ade20k, class_names, coco_stuff, mapillary
from lisa.errors import DataError

UP, DOWN = square(0, 0, 5), square(0, 6, 5)


def write_labels(path: Path, *values: int, rest: int = 0) -> Path:
    """A label map whose squares ``UP`` and ``DOWN`` have these values."""
    label_map = np.full((HEIGHT, WIDTH), rest, np.uint8)
    for region, value in zip((UP, DOWN), values, strict=False):
        label_map[region] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(label_map).save(path)
    return path


def write_ade(root: Path) -> Path:
    """b.jpg shows a wall (1) and the flag (150), a.jpg a building (2); 0 is nothing."""
    folder = root / "ade20k"
    for name, values in {"b": (1, 150), "a": (2,)}.items():
        write_picture(folder / "images" / "training" / f"{name}.jpg")
        write_labels(folder / "annotations" / "training" / f"{name}.png", *values)
    return root


def test_classes_of_ade20k(tmp_path: Path) -> None:
    dataset = ade20k(write_ade(tmp_path), "train")
    assert [path.name for path in dataset.photos] == ["a.jpg", "b.jpg"]
    assert len(dataset) == 2
    example = dataset[0]
    assert (example.question, example.phrase, example.name) == (
        *("building", "building", "a.jpg#1"),
    )
    assert np.array_equal(example.masks, UP[np.newaxis])
    assert np.array_equal(example.ignore, ~UP)
    assert dataset[1].question in {"wall", "flag"}
    assert dataset[1].question == dataset[1].question


def test_the_folder_may_be_the_data_set_itself(tmp_path: Path) -> None:
    assert len(ade20k(write_ade(tmp_path) / "ade20k", "train")) == 2


def test_training_draws_classes(tmp_path: Path) -> None:
    dataset = ade20k(write_ade(tmp_path), "train")
    drawn = dataset.draw(1, np.random.default_rng(0))
    assert [example.phrase for example in drawn] == ["wall", "flag"]
    assert np.array_equal(drawn[1].masks, DOWN[np.newaxis])
    for example in drawn:
        asked = {template.format(example.phrase) for template in PAPER_PHRASE_QUESTIONS}
        assert example.question in asked


def test_coco_stuff_leaves_out_hyphens(tmp_path: Path) -> None:
    names = class_names("coco-stuff")
    brick, sky = names.index("wall-brick"), names.index("wall-concrete")
    cat = names.index("cat")
    write_picture(tmp_path / "coco" / "train2017" / "1.jpg")
    write_labels(tmp_path / "cocostuff" / "train2017" / "1.png", cat, brick, rest=sky)
    dataset = coco_stuff(tmp_path, "train")
    assert dataset[0].question == "cat"
    assert np.array_equal(dataset[0].ignore, ~UP)


def test_a_picture_without_classes_asks_nothing(tmp_path: Path) -> None:
    write_picture(tmp_path / "coco" / "val2017" / "1.jpg")
    write_labels(tmp_path / "cocostuff" / "val2017" / "1.png", rest=255)
    dataset = coco_stuff(tmp_path, "val")
    assert dataset.draw(0, np.random.default_rng(0)) == []
    with pytest.raises(DataError, match=r"no class in '.*1\.png'; expected at least one"):
        dataset[0]


def test_names_of_mapillary_come_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "mapillary"
    labels = [{"readable": "Bird"}, {"readable": "Car (Ego)"}]
    write_json(folder / "config_v2.0.json", {"labels": labels})
    write_picture(folder / "training" / "images" / "m.jpg")
    write_labels(folder / "training" / "v2.0" / "labels" / "m.png", 1)
    drawn = mapillary(tmp_path, "train").draw(0, np.random.default_rng(0))
    assert [example.phrase for example in drawn] == ["bird", "car (ego)"]


def test_palette_pictures_give_their_places(tmp_path: Path) -> None:
    path = write_ade(tmp_path) / "ade20k" / "annotations" / "training" / "a.png"
    picture = PIL.Image.open(path).convert("P")
    picture.putdata([5] * (WIDTH * HEIGHT))
    picture.save(path)
    assert ade20k(tmp_path, "train")[0].question == class_names("ade20k")[4]


@pytest.mark.parametrize(
    ("split", "known"), [(None, "train, val"), ("test", "expected one of train, val")]
)
def test_an_unknown_split(tmp_path: Path, split: str | None, known: str) -> None:
    with pytest.raises(DataError, match=rf"unknown split '{split}'; .*{known}"):
        ade20k(write_ade(tmp_path), split)


def test_a_missing_partner_is_named_or_left_out(tmp_path: Path) -> None:
    (write_ade(tmp_path) / "ade20k" / "annotations" / "training" / "a.png").unlink()
    with pytest.raises(DataError, match=r"'ade20k': picture '.*a\.png' is missing"):
        ade20k(tmp_path, "train")
    kept = ade20k(tmp_path, "train", skip_bad=True)
    assert ([path.name for path in kept.photos], len(kept.skipped)) == (["b.jpg"], 1)


def test_a_label_map_of_another_size_is_named(tmp_path: Path) -> None:
    dataset = ade20k(write_ade(tmp_path), "train")
    write_picture(dataset.photos[0], (WIDTH, HEIGHT + 1))
    with pytest.raises(DataError, match=r"a\.png' is of \[12, 16\] pixels; expected \[13, 16\]"):
        dataset[0]


def test_an_unknown_value_is_named(tmp_path: Path) -> None:
    dataset = ade20k(write_ade(tmp_path), "train")
    write_labels(dataset.pairs[0][1], 200)
    with pytest.raises(DataError, match=r"class 199 in label map '.*'; expected at most 149"):
        dataset[0]


@pytest.mark.parametrize("content", ["damaged", "colours"])
def test_what_is_no_label_map_is_named(tmp_path: Path, content: str) -> None:
    dataset = ade20k(write_ade(tmp_path), "train")
    path = dataset.pairs[0][1]
    if content == "damaged":
        path.write_bytes(path.read_bytes()[:40])
    else:
        PIL.Image.new("RGB", (WIDTH, HEIGHT)).save(path)
    with pytest.raises(DataError, match=r"label map '.*a\.png'") as caught:
        dataset[0]
    assert "\n" not in str(caught.value)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \*\.jpg in '.*training'; expected at least one"):
        ade20k(tmp_path, "train")
    with pytest.raises(DataError, match="no folder with label maps of COCO-Stuff"):
        coco_stuff(tmp_path, "train")


def test_the_lists_of_classes_are_whole() -> None:
    for name, count in {"ade20k": 150, "coco-stuff": 182}.items():
        names = class_names(name)
        assert len(names) == count
        assert all(word == word.strip() for word in names)
