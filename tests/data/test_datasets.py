"""The table of data sets: names, splits, finding them, and leaving out what is broken."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.commands import parse
from helpers.paths import DOCS
from helpers.picture_files import polygon, write_json, write_picture
from lisa.data.datasets import DATASETS, Drawable, open_dataset
from lisa.errors import DataError

FAMILIES = {"semantic", "refer", "vqa", "reason", "own"}
SQUARE = [[1, 1], [5, 1], [5, 5], [1, 5]]


def write_reasonseg(folder: Path, *names: str, points: Any = SQUARE) -> Path:
    for name in names:
        write_picture(folder / f"{name}.jpg")
        shapes = [{"label": "target", "points": points}]
        content = {"text": ["what?"], "is_sentence": True, "shapes": shapes}
        write_json(folder / f"{name}.json", content)
    return folder


def test_every_data_set_belongs_to_a_family_of_the_mixture() -> None:
    assert {kind.family for kind in DATASETS.values()} == FAMILIES


def test_the_page_lists_every_data_set_with_its_splits() -> None:
    page = (DOCS / "data-sets.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\S+)` \| (.*?) ?\|", page, re.MULTILINE))
    assert list(rows) == list(DATASETS)
    for name, splits in rows.items():
        assert all(split in splits for split in DATASETS[name].splits)


def test_the_commands_of_the_page_can_be_parsed() -> None:
    page = (DOCS / "data-sets.md").read_text(encoding="utf-8")
    commands = re.findall(r"^lisa .*$", page, re.MULTILINE)
    assert commands
    for command in commands:
        parse(shlex.split(command)[1:])


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown data set 'coco'; expected one of reasonseg, ref"):
        open_dataset("coco", tmp_path)


@pytest.mark.parametrize("name", DATASETS)
def test_an_empty_folder_holds_no_data_set(tmp_path: Path, name: str) -> None:
    kind = DATASETS[name]
    assert list(kind.find(tmp_path)) == []
    with pytest.raises(DataError) as caught:
        open_dataset(name, tmp_path, kind.splits[0] if kind.splits else None)
    assert "\n" not in str(caught.value)


def test_what_is_opened_can_be_drawn_from(tmp_path: Path) -> None:
    write_reasonseg(tmp_path / "train", "a", "b")
    dataset = open_dataset("reasonseg", str(tmp_path), "train")
    assert isinstance(dataset, Drawable)
    assert len(dataset.draw(1, np.random.default_rng(0))) == 1
    assert (dataset.name, dataset.split, len(dataset.photos)) == ("reasonseg", "train", 2)


def test_broken_records_and_broken_pictures_are_left_out(tmp_path: Path) -> None:
    folder = write_reasonseg(tmp_path / "val", "good", "cut")
    write_reasonseg(folder, "two", points=SQUARE[:2])
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:200])
    with pytest.raises(DataError, match=r"two\.json': shape 0: its points form \[2, 2\]"):
        open_dataset("reasonseg", tmp_path, "val")
    dataset = open_dataset("reasonseg", tmp_path, "val", skip_bad=True)
    assert [example.name for example in dataset] == ["good.jpg"]
    assert len(dataset.skipped) == 2


def write_refs(root: Path, *splits: str) -> None:
    refs = [{"split": split} for split in splits]
    write_json(root / "grefcoco" / "grefs(unc).json", refs)


FOUND = {  # what lies in a folder, and what is found in it
    "refer": (lambda root: write_refs(root / "refer_seg", "val", "train"), "grefcoco"),
    "ade": (lambda root: (root / "ade20k/annotations/training").mkdir(parents=True), "ade20k"),
    "ade itself": (lambda root: (root / "annotations/training").mkdir(parents=True), "ade20k"),
    "stuff": (lambda root: (root / "cocostuff/train2017").mkdir(parents=True), "coco-stuff"),
    "streets": (lambda root: (root / "training/v2.0/labels").mkdir(parents=True), "mapillary"),
    "paco": (
        lambda root: write_json(root / "vlpart/paco/annotations/paco_lvis_v1_train.json", {}),
        "paco-lvis",
    ),
    "parts": (lambda root: write_json(root / "pascal_part/train.json", {}), "pascal-part"),
    "talks": (lambda root: write_json(root / "llava_instruct_150k.json", []), "llava-instruct"),
    "muse": (lambda root: write_json(root / "MUSE_train.json", []), "muse"),
    "plus": (lambda root: write_json(root / "lisa_plus/data.json", []), "lisa++"),
    "photos": (lambda root: write_reasonseg(root / "train", "a"), "reasonseg"),
    "photos below": (
        lambda root: write_reasonseg(root / "reason_seg/ReasonSeg/train", "a"),
        "reasonseg",
    ),
}


@pytest.mark.parametrize(("write", "name"), FOUND.values(), ids=list(FOUND))
def test_a_layout_is_recognised(tmp_path: Path, write: Any, name: str) -> None:
    write(tmp_path)
    found = {other: list(kind.find(tmp_path)) for other, kind in DATASETS.items()}
    splits = found.pop(name)
    assert "train" in splits if DATASETS[name].splits else splits == [None]
    assert not any(found.values())


def test_the_splits_of_expressions_are_those_in_the_file(tmp_path: Path) -> None:
    write_refs(tmp_path, "val", "train", "val")
    assert list(DATASETS["grefcoco"].find(tmp_path)) == ["train", "val"]


def test_expressions_that_cannot_be_read_are_found_and_then_refused(tmp_path: Path) -> None:
    write_refs(tmp_path, "val")
    (tmp_path / "grefcoco" / "grefs(unc).json").write_text("[")
    (split,) = DATASETS["grefcoco"].find(tmp_path)
    with pytest.raises(DataError, match="is not valid JSON"):
        open_dataset("grefcoco", tmp_path, split)


def test_annotations_without_questions_are_not_reasonseg(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.jpg")
    (tmp_path / "a.json").write_text(json.dumps({"shapes": [{"points": polygon(1, 1, 2)}]}))
    assert DATASETS["reasonseg"].find(tmp_path) == []
