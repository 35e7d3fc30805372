"""Answers with several masks: MUSE, LISA++, and broken files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.picture_files import HEIGHT, WIDTH, polygon, square, write_json, write_picture
from lisa.data.multi_target import LisaPlusInstances, Muse
from lisa.errors import DataError

CUP = {"segmentation": [polygon(1, 2, 4)], "category_name": "cup", "rephrased_name": "Red cup"}
PLATE = {"segmentation": [polygon(8, 2, 4)], "category_name": "plate"}


def muse_record(**changes: Any) -> dict[str, Any]:
    return {
        "file_name": "1.jpg",
        "height": HEIGHT,
        "width": WIDTH,
        "questions": ["what is laid for tea?", "what is it drunk from?"],
        "answers": [[CUP, PLATE], [CUP]],
        "text_answers": ["A cup {seg} on a plate {seg}.", "It is drunk."],
    } | changes


def write_muse(root: Path, *records: Any) -> Path:
    write_json(root / "muse" / "MUSE_train.json", list(records))
    write_picture(root / "coco" / "train2014" / "1.jpg")
    write_picture(root / "coco" / "val2017" / "2.jpg")
    return root


def test_a_mask_for_each_target_in_the_order_of_the_answer(tmp_path: Path) -> None:
    dataset = Muse(write_muse(tmp_path, muse_record()), "train")
    both, cup = dataset
    assert np.array_equal(both.masks, [square(1, 2, 4), square(8, 2, 4)])
    assert both.answer == "A cup [SEG] on a plate [SEG]."
    assert (both.question, both.phrase) == ("what is laid for tea?", "red cup and plate")
    assert (both.name, both.tags) == ("1.jpg#0", {"long"})
    assert np.array_equal(cup.masks, [square(1, 2, 4)])


def test_an_answer_without_places_becomes_one_of_names(tmp_path: Path) -> None:
    plain = Muse(write_muse(tmp_path, muse_record()), "train")
    assert plain[1].answer == "The red cup [SEG]."
    record = muse_record()
    del record["text_answers"]
    unsaid = Muse(write_muse(tmp_path, record), "train")
    assert unsaid[0].answer == "The red cup [SEG] and the plate [SEG]."


def test_pictures_of_2017_are_named_by_their_address(tmp_path: Path) -> None:
    record = muse_record(coco_url="http://images.cocodataset.org/val2017/2.jpg")
    del record["file_name"]
    dataset = Muse(write_muse(tmp_path, record), "train")
    assert [path.name for path in dataset.photos] == ["2.jpg"]


def test_training_draws_questions_of_a_picture(tmp_path: Path) -> None:
    dataset = Muse(write_muse(tmp_path, muse_record(), muse_record()), "train")
    drawn = dataset.draw(0, np.random.default_rng(0))
    assert (len(dataset), len(dataset.photos), len(drawn)) == (4, 1, 3)
    assert len({id(example.image) for example in drawn}) == 1
    assert all("segmentation mask" in example.question for example in drawn)


BROKEN = {
    "2 points": ({"answers": [[{**CUP, "segmentation": [[1, 2, 3, 4]]}], [CUP]]}, "polygon 0 has"),
    "lengths": ({"questions": ["one"]}, "'questions', 'answers' and 'text_answers' differ"),
    "nothing": ({"answers": [[], [CUP]]}, "an answer points at nothing"),
    "no picture": ({"file_name": "9.jpg"}, r"picture '.*9\.jpg' is missing"),
    "no folder": ({"file_name": None, "coco_url": "a/b"}, "'file_name' is missing"),
    "no name": ({"answers": [[{"segmentation": []}], [CUP]]}, "'category_name' is missing"),
}


@pytest.mark.parametrize(("changes", "message"), BROKEN.values(), ids=list(BROKEN))
def test_a_broken_record_is_named_or_left_out(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    write_muse(tmp_path, muse_record(), muse_record(**changes))
    with pytest.raises(DataError, match=rf"record 1 of '.*MUSE_train\.json': {message}"):
        Muse(tmp_path, "train")
    kept = Muse(tmp_path, "train", skip_bad=True)
    assert (len(kept), len(kept.skipped)) == (2, 1)


def test_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    dataset = Muse(write_muse(tmp_path, muse_record(height=99)), "train")
    with pytest.raises(DataError, match=r"record 0 of '.*' is of \[99, 16\] pixels; expected"):
        dataset[0]


def test_a_split_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no MUSE_test_many\.json in"):
        Muse(write_muse(tmp_path), "test_many")


def write_plus(root: Path, *records: Any) -> Path:
    write_json(root / "data.json", list(records))
    write_picture(root / "coco" / "train2017" / "1.jpg")
    annotations = [
        {"id": 5, "category_id": 1, "segmentation": [polygon(1, 2, 4)]},
        {"id": 6, "category_id": 1, "segmentation": [polygon(8, 2, 4)]},
        {"id": 7, "category_id": 1, "segmentation": [[1, 2]]},
    ]
    content = {"categories": [{"id": 1, "name": "cup"}], "annotations": annotations}
    write_json(root / "coco" / "annotations" / "instances_train2017.json", content)
    return root


def plus_record(*numbers: Any, image: str = "1.jpg") -> dict[str, Any]:
    return {"English Question": "what holds tea?", "img_path": image, "ID": list(numbers)}


def test_instances_of_lisa_plus(tmp_path: Path) -> None:
    (example,) = LisaPlusInstances(write_plus(tmp_path, plus_record(6, "5")))
    assert np.array_equal(example.masks, [square(8, 2, 4), square(1, 2, 4)])
    assert (example.question, example.phrase) == ("what holds tea?", "cup")
    assert example.answer == "Sure, [SEG] and [SEG]."


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (plus_record(9), r"'ID' is \[9\]; expected annotations of COCO 2017"),
        (plus_record("x"), r"'ID' is \['x'\]"),
        (plus_record(), "'ID' is empty"),
        (plus_record(7), "polygon 0 has"),
        (plus_record(5, image="2.jpg"), r"picture '.*2\.jpg' is missing"),
        ({"img_path": "1.jpg", "ID": [5]}, "'English Question' is missing"),
    ],
)
def test_a_broken_record_of_lisa_plus(tmp_path: Path, record: Any, message: str) -> None:
    write_plus(tmp_path, plus_record(5), record)
    with pytest.raises(DataError, match=rf"record 1 of '.*data\.json': {message}"):
        LisaPlusInstances(tmp_path)
    assert len(LisaPlusInstances(tmp_path, skip_bad=True)) == 1


def test_lisa_plus_has_no_splits(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'lisa\+\+' has no splits; got 'val'"):
        LisaPlusInstances(write_plus(tmp_path), "val")
