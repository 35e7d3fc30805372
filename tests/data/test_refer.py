"""Referring expressions: sentences and their masks, what training draws, and broken files."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.picture_files import HEIGHT, WIDTH, polygon, square, write_json, write_picture
from lisa.data.prompts import PAPER_ANSWERS, PAPER_PHRASE_QUESTIONS
from lisa.data.refer import COCO_PHOTOS, GREFCOCO, REFCLEF, REFCOCO, Refer, Referring
from lisa.errors import DataError, ImageError
from lisa.example import SEG_TOKEN
from lisa.masks import run_lengths

Change = Callable[[list[Any], dict[str, Any]], Any]


def ref(number: int, image: int, annotation: Any, split: str, *texts: str) -> dict[str, Any]:
    sentences = [{"sent": text, "sent_id": 10 * number + n} for n, text in enumerate(texts)]
    return {"ref_id": number, "image_id": image, "ann_id": annotation, "split": split} | {
        "sentences": sentences
    }


def refs() -> list[Any]:
    return [
        ref(1, 100, 1, "train", " The LEFT one ", "a cat"),
        ref(2, 100, 2, "train", "the right one", "dog"),
        ref(3, 200, 3, "train", "cup"),
        ref(4, 300, 4, "testA", "the plate"),
    ]


def instances() -> dict[str, Any]:
    squares = {1: (100, 1), 2: (100, 7), 3: (200, 2), 4: (300, 4)}
    return {
        "images": [
            {"id": image, "file_name": f"{image}.jpg", "height": HEIGHT, "width": WIDTH}
            for image in (100, 200, 300)
        ],
        "annotations": [
            {"id": number, "image_id": image, "segmentation": [polygon(x, 2, 4)]}
            for number, (image, x) in squares.items()
        ],
    }


def write(
    root: Path, kind: Referring = REFCOCO, change: Change = lambda refs, instances: None
) -> Path:
    """The folder of a data set, with changes to what its files hold."""
    found, content = refs(), instances()
    change(found, content)
    folder = root / "refer_seg" / kind.folder
    write_json(folder / "instances.json", content)
    (folder / f"{kind.stem}({kind.splitter}).p").write_bytes(pickle.dumps(found, 2))
    for image in content["images"]:
        write_picture(root / "refer_seg" / kind.photos / image["file_name"])
    return root


def test_each_sentence_is_an_example(tmp_path: Path) -> None:
    dataset = Refer(REFCOCO, write(tmp_path), "train")
    assert [example.question for example in dataset] == [
        *("the left one", "a cat", "the right one", "dog", "cup"),
    ]
    example = dataset[0]
    assert np.array_equal(example.masks, square(1, 2, 4)[np.newaxis])
    assert (example.name, example.phrase, example.tags) == (
        *("100.jpg#10", "the left one", {"short"}),
    )
    assert (example.answer, example.ignore) == (None, None)
    assert (dataset.name, dataset.split) == ("refcoco", "train")


def test_the_root_may_be_the_folder_of_the_sets(tmp_path: Path) -> None:
    assert len(Refer(REFCOCO, write(tmp_path) / "refer_seg", "testA")) == 1


def test_the_sentences_of_a_picture_share_it(tmp_path: Path) -> None:
    dataset = Refer(REFCOCO, write(tmp_path), "train")
    assert dataset[0].image is dataset[3].image
    assert dataset[4].image is not dataset[3].image


def test_training_draws_up_to_three_sentences_of_a_picture(tmp_path: Path) -> None:
    dataset = Refer(REFCOCO, write(tmp_path), "train")
    assert [path.name for path in dataset.photos] == ["100.jpg", "200.jpg"]
    drawn = dataset.draw(0, np.random.default_rng(0))
    assert len({example.phrase for example in drawn}) == 3
    assert len({id(example.image) for example in drawn}) == 1
    for example in drawn:
        asked = {template.format(example.phrase) for template in PAPER_PHRASE_QUESTIONS}
        assert example.question in asked
        assert example.answer in {answer.format(SEG_TOKEN) for answer in PAPER_ANSWERS}
    assert len(dataset.draw(1, np.random.default_rng(0))) == 1


def test_the_same_generator_draws_the_same(tmp_path: Path) -> None:
    dataset = Refer(REFCOCO, write(tmp_path), "train")
    one, other = (dataset.draw(0, np.random.default_rng(7)) for _ in range(2))
    assert [e.question for e in one] == [e.question for e in other]


def several(refs: list[Any], instances: dict[str, Any]) -> None:
    refs[0]["ann_id"], refs[2]["ann_id"] = [1, 2], [-1]


@pytest.mark.parametrize("as_json", [False, True])
def test_several_things_are_one_mask_and_none_is_no_mask(tmp_path: Path, as_json: bool) -> None:
    write(tmp_path, GREFCOCO, several)
    if as_json:
        path = tmp_path / "refer_seg" / "grefcoco" / "grefs(unc).p"
        path.with_suffix(".json").write_text(json.dumps(pickle.loads(path.read_bytes())))
        path.unlink()
    dataset = Refer(GREFCOCO, tmp_path, "train")
    assert np.array_equal(dataset[0].masks, (square(1, 2, 4) | square(7, 2, 4))[np.newaxis])
    assert dataset[4].masks.shape == (0, HEIGHT, WIDTH)
    (drawn,) = dataset.draw(1, np.random.default_rng(0))
    assert drawn.answer == "There is no cup in this picture."


def test_run_lengths_of_refclef(tmp_path: Path) -> None:
    def change(refs: list[Any], instances: dict[str, Any]) -> None:
        instances["annotations"][0]["segmentation"] = [run_lengths(square(3, 3, 5))]

    dataset = Refer(REFCLEF, write(tmp_path, REFCLEF, change), "train")
    assert np.array_equal(dataset[0].mask, square(3, 3, 5))


def test_an_unknown_split_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no split 'val' in .*; expected one of testA, train"):
        Refer(REFCOCO, write(tmp_path), "val")


def in_polygon(*values: float) -> Change:
    def change(refs: list[Any], instances: dict[str, Any]) -> None:
        instances["annotations"][1]["segmentation"] = [list(values)]

    return change


def in_ref(**values: Any) -> Change:
    return lambda refs, instances: refs[1].update(values)


BROKEN = {
    "2 points": (in_polygon(1, 2, 3, 4), r"annotation 2 of '.*instances\.json': polygon 0 has"),
    "NaN": (in_polygon(1, 2, float("nan"), 4, 5, 6), r"annotation 2 of .*: a corner is NaN"),
    "no image": (in_ref(image_id=9), r"sentence 20 of '.*refs\(unc\)\.p': image 9 is not in"),
    "no mask": (in_ref(ann_id=9), r"sentence 20 of .*: annotation 9 is not in"),
    "no sentences": (in_ref(sentences=None), r"expression 1 of .*: 'sentences' is missing"),
    "a name": (in_ref(ann_id="two"), r"expression 1 of .*: 'ann_id' is 'two'"),
    "no words": (in_ref(sentences=[{"sent": " ", "sent_id": 1}]), r"expression 1 of .* is empty"),
}


@pytest.mark.parametrize(("change", "message"), BROKEN.values(), ids=list(BROKEN))
def test_a_broken_record_is_named_or_left_out(tmp_path: Path, change: Change, message: str) -> None:
    write(tmp_path, change=change)
    with pytest.raises(DataError, match=message) as caught:
        Refer(REFCOCO, tmp_path, "train")
    assert "\n" not in str(caught.value)
    kept = Refer(REFCOCO, tmp_path, "train", skip_bad=True)
    assert [example.question for example in kept] == ["the left one", "a cat", "cup"]
    assert kept.skipped


def test_a_missing_picture_is_named_or_left_out(tmp_path: Path) -> None:
    path = write(tmp_path) / "refer_seg" / COCO_PHOTOS / "200.jpg"
    path.unlink()
    with pytest.raises(DataError, match=r"image 200 of .*: picture '.*200\.jpg' is missing"):
        Refer(REFCOCO, tmp_path, "train")
    assert len(Refer(REFCOCO, tmp_path, "train", skip_bad=True)) == 4


def test_a_broken_picture_is_an_image_error(tmp_path: Path) -> None:
    path = write(tmp_path) / "refer_seg" / COCO_PHOTOS / "200.jpg"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ImageError, match=r"200\.jpg"):
        Refer(REFCOCO, tmp_path, "train")[4]


def test_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    dataset = Refer(REFCOCO, write(tmp_path), "train")
    write_picture(dataset.photos[1], (WIDTH, HEIGHT + 1))
    with pytest.raises(DataError, match=r"image 200 of .* is of \[12, 16\] pixels; expected \[13"):
        dataset[4]


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path) / "refer_seg" / "refcoco" / "instances.json"
    path.write_text(path.read_text()[:50])
    with pytest.raises(DataError, match=r"instances\.json' is not valid JSON"):
        Refer(REFCOCO, tmp_path, "train")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder with 'refcoco'; expected"):
        Refer(REFCOCO, tmp_path, "train")
    (tmp_path / "refcoco").mkdir()
    with pytest.raises(DataError, match=r"no expressions in .*; expected 'refs\(unc\)\.p' or"):
        Refer(REFCOCO, tmp_path, "train")
