"""Annotations of other tools: what is recognised, and what is said of files that are broken."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from helpers.own_files import (
    HEIGHT,
    MAKERS,
    WIDTH,
    boxes,
    coco_content,
    corners,
    make_coco,
    make_jsonl,
    make_labelme,
    make_masks,
    make_yolo,
    mask,
    picture,
    save_pictures,
    shape,
    write_json,
)
from lisa.annotation.formats.coco import split_of
from lisa.annotation.formats.source import Source
from lisa.annotation.formats.table import FORMATS, format_of
from lisa.data.annotated import MarkedPicture
from lisa.data.records import BadRecords
from lisa.errors import DataError
from lisa.masks import decode_rle

BOX = boxes(0)[0]


def read(form: str, path: Path, skip: bool = False, **source: Any) -> list[MarkedPicture]:
    return list(FORMATS[form].read(Source(path, **source), BadRecords(skip)))


def error(form: str, path: Path, **source: Any) -> str:
    """What is said of the first broken record: one line."""
    with pytest.raises(DataError) as caught:
        read(form, path, **source)
    message = str(caught.value)
    assert "\n" not in message
    return message


def skipped(form: str, path: Path) -> tuple[int, list[str]]:
    """How many pictures are left, and what was skipped."""
    bad = BadRecords(skip=True)
    return len(list(FORMATS[form].read(Source(path), bad))), bad.messages


@pytest.mark.parametrize("form", list(MAKERS))
def test_every_format_is_recognised(form: str, tmp_path: Path) -> None:
    assert format_of(Source(MAKERS[form](tmp_path / "source", 2))) == form


def test_a_single_file_is_recognised(tmp_path: Path) -> None:
    coco = make_coco(tmp_path / "coco", 2) / "annotations.json"
    labelme = make_labelme(tmp_path / "labelme", 2) / "p00.json"
    jsonl = make_jsonl(tmp_path / "jsonl", 2) / "questions.jsonl"
    assert [format_of(Source(path)) for path in (coco, labelme, jsonl)] == [
        "coco",
        "labelme",
        "jsonl",
    ]


def test_what_is_not_recognised_is_told(tmp_path: Path) -> None:
    save_pictures(tmp_path / "pictures", 1)
    with pytest.raises(DataError, match=r"cannot tell the format of .*; --format names it"):
        format_of(Source(tmp_path / "pictures"))
    with pytest.raises(DataError, match="no format 'voc'; expected one of yolo-seg"):
        format_of(Source(tmp_path / "pictures"), "voc")
    for form in FORMATS:
        assert "expected" in error(form, tmp_path / "pictures")


# COCO ---------------------------------------------------------------------------------------------


def coco(folder: Path, **changes: Any) -> Path:
    make_coco(folder, 2)
    write_json(folder / "annotations.json", coco_content(2) | changes)
    return folder


def annotation(**changes: Any) -> dict[str, Any]:
    return coco_content(1)["annotations"][0] | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": [annotation(segmentation=[[1, 1, 2, 2]])]}, "annotation 0 of .*polygon 0"),
        ({"annotations": [annotation(segmentation=None)]}, "annotation 0 of .*segmentation"),
        ({"annotations": [annotation(segmentation=[])]}, "annotation 0 of .*covers no pixel"),
        ({"annotations": [annotation(segmentation=[[1, 1, 9, 9, float("nan"), 3]])]}, "NaN"),
        (
            {"annotations": [annotation(segmentation={"size": [9, 9], "counts": "Q3"})]},
            "annotation 0 of ",
        ),
        ({"annotations": [annotation(image_id=7)]}, "image_id 7 is not among"),
        ({"annotations": [annotation(category_id=7)]}, "category_id 7 is not among"),
        ({"annotations": ["what"]}, "annotation 0 of .*'image_id' is missing"),
        ({"annotations": {}}, "'annotations' is a dict"),
        ({"categories": [{"id": 1}]}, "category 0 of .*'name' is missing"),
        (
            {"images": [{"id": 0, "file_name": name} for name in ("p00.png", "p01.png")]},
            "image 1 of .*the id 0 is that of an earlier image",
        ),
        ({"images": [{"id": 0, "file_name": "none.png"}]}, "image 0 of .*no picture 'none.png'"),
        (
            {"images": [{"id": 0, "file_name": "p00.png", "height": 9, "width": 9}]},
            r"said to be \[9, 9\], and is \[40, 60\]",
        ),
    ],
)
def test_a_broken_coco_record_is_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    import re

    assert re.search(message, error("coco", coco(tmp_path / "a", **changes)))


def test_a_truncated_coco_file_is_named(tmp_path: Path) -> None:
    folder = make_coco(tmp_path / "a", 2)
    text = (folder / "annotations.json").read_text()
    (folder / "annotations.json").write_text(text[: len(text) // 2])
    assert "annotations.json' is not valid JSON" in error("coco", folder)


def test_broken_coco_records_are_skipped_and_counted(tmp_path: Path) -> None:
    content = coco_content(3)
    content["images"][2]["file_name"] = "none.png"
    content["annotations"][0]["segmentation"] = [[1, 1]]
    folder = make_coco(tmp_path / "a", 3)
    write_json(folder / "annotations.json", content)
    pictures, messages = skipped("coco", folder)
    assert (pictures, len(messages)) == (2, 2)
    complete = [one.complete for one in read("coco", folder, skip=True)]
    assert complete == [False, True]


def test_a_crowd_is_where_no_score_is_taken(tmp_path: Path) -> None:
    folder = coco(tmp_path / "a", annotations=[annotation(iscrowd=1)])
    (first, _) = read("coco", folder)
    assert not first.things and not first.complete
    assert first.ignore is not None
    np.testing.assert_array_equal(decode_rle(first.ignore), mask(BOX))


def test_files_for_each_split_keep_it(tmp_path: Path) -> None:
    for folder in ("train", "valid"):
        save_pictures(tmp_path / "a" / folder, 2)
        write_json(tmp_path / "a" / folder / "_annotations.coco.json", coco_content(2))
    assert format_of(Source(tmp_path / "a")) == "coco"
    assert [one.split for one in read("coco", tmp_path / "a")] == ["train"] * 2 + ["val"] * 2
    assert split_of(Path("annotations/instances_val2017.json")) == "val"
    assert split_of(Path("mine/annotations.json")) is None


def test_pictures_elsewhere_are_found_when_told(tmp_path: Path) -> None:
    save_pictures(tmp_path / "pictures", 2)
    path = write_json(tmp_path / "mine.json", coco_content(2))
    assert "looked in" in error("coco", path)
    assert len(read("coco", path, images=tmp_path / "pictures")) == 2


# labelme ------------------------------------------------------------------------------------------


def labelme(folder: Path, *shapes: Any, **changes: Any) -> Path:
    make_labelme(folder, 1)
    content = json.loads((folder / "p00.json").read_text()) | changes
    write_json(folder / "p00.json", content | ({"shapes": list(shapes)} if shapes else {}))
    return folder


@pytest.mark.parametrize(
    ("shapes", "changes", "message"),
    [
        ([shape(BOX) | {"points": [[1, 1], [2, 2]]}], {}, "shape 0: polygon 0"),
        ([shape(BOX) | {"points": [[1, 1], [2, 2], [3]]}], {}, "shape 0: a corner is not"),
        ([shape(BOX), shape(BOX) | {"label": " "}], {}, "shape 1: the name ' ' is empty"),
        ([shape(BOX) | {"shape_type": "line"}], {}, "shape 0: a 'line' covers no area"),
        ([shape(BOX) | {"shape_type": "circle"}], {}, "shape 0: a circle has 4 points"),
        ([shape(BOX) | {"points": [[float("nan"), 1], [2, 2], [3, 9]]}], {}, "NaN"),
        (["what"], {}, "shape 0: 'label' is missing"),
        ([], {"imagePath": "none.png"}, "no picture 'none.png'"),
        ([], {"imagePath": "none.png", "imageData": "%"}, "'imageData' is not base64"),
        ([], {"imageHeight": 7}, r"said to be \[7, 60\], and is \[40, 60\]"),
        ([], {"shapes": None}, "'shapes' is missing"),
    ],
)
def test_a_broken_labelme_file_is_named(
    tmp_path: Path, shapes: list[Any], changes: dict[str, Any], message: str
) -> None:
    import re

    said = error("labelme", labelme(tmp_path / "a", *shapes, **changes))
    assert "p00.json" in said and re.search(message, said)


def test_rectangles_circles_and_drawn_masks_are_shapes(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.full((5, 4), 255, np.uint8)).save(buffer, "PNG")
    drawn = base64.b64encode(buffer.getvalue()).decode()
    shapes = [
        {"label": "a", "points": [[30, 20], [10, 5]], "shape_type": "rectangle"},
        {"label": "b", "points": [[30, 20], [40, 20]], "shape_type": "circle"},
        {"label": "c", "points": [[7, 3], [10, 7]], "shape_type": "mask", "mask": drawn},
    ]
    (one,) = read("labelme", labelme(tmp_path / "a", *shapes))
    found = {thing.name: decode_rle(thing.mask) for thing in one.things}
    assert found["a"].sum() == 20 * 15 and found["a"][5, 10] and found["a"][19, 29]
    assert abs(found["b"].sum() - np.pi * 100) < 12
    assert found["c"].sum() == 20 and found["c"][3, 7] and found["c"][7, 10]


def test_shapes_of_one_group_are_one_thing(tmp_path: Path) -> None:
    other = boxes(1)[1]
    parts = [shape(BOX) | {"group_id": 4}, shape(other) | {"label": BOX[0], "group_id": 4}]
    (one,) = read("labelme", labelme(tmp_path / "a", *parts, shape(BOX)))
    assert [thing.name for thing in one.things] == ["zarp", "zarp"]
    np.testing.assert_array_equal(decode_rle(one.things[0].mask), mask(BOX) | mask(other))


# YOLO-seg -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.1 0.1 0.2 0.2", "it is a box"),
        ("0 0.1 0.1 0.2", "expected pairs"),
        ("0 0.1 0.1", "polygon 0"),
        ("7 0.1 0.1 0.2 0.2 0.3 0.1", "class 7 has no name"),
        ("zarp 0.1 0.1 0.2 0.2 0.3 0.1", "is not all numbers"),
        ("0 nan 0.1 0.2 0.2 0.3 0.1", "NaN"),
        ("0 10 10 20 20 30 10", "far outside"),
    ],
)
def test_a_broken_yolo_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    folder = make_yolo(tmp_path / "a", 4)
    path = folder / "labels" / "train" / "p01.txt"
    path.write_text(path.read_text() + line + "\n")
    said = error("yolo-seg", folder)
    assert "line 3 of" in said and "p01.txt" in said and message in said
    assert skipped("yolo-seg", folder)[0] == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a\n", "is not YAML"),
        ("names: {}\ntrain: images/train\n", "'names' of .* are missing"),
        ("names: [a, b]\n", "leads to no pictures"),
        ("names: [a, b]\ntrain: none\n", "'train: none' of .* is not there"),
        ("- a\n", "holds no settings"),
    ],
)
def test_broken_yolo_settings_are_named(tmp_path: Path, text: str, message: str) -> None:
    import re

    folder = make_yolo(tmp_path / "a", 4)
    (folder / "data.yaml").write_text(text)
    assert re.search(message, error("yolo-seg", folder))


def test_a_yolo_picture_without_a_text_file_shows_nothing(tmp_path: Path) -> None:
    folder = make_yolo(tmp_path / "a", 4)
    (folder / "labels" / "train" / "p01.txt").unlink()
    second = read("yolo-seg", folder)[1]
    assert not second.things and second.complete


# Masks --------------------------------------------------------------------------------------------


def test_broken_masks_are_named(tmp_path: Path) -> None:
    folder = make_masks(tmp_path / "a", 3)
    PIL.Image.new("L", (9, 9)).save(folder / "masks" / "p00.png")
    assert "is [9, 9], its picture [40, 60]" in error("masks", folder)
    PIL.Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "masks" / "p00.png")
    assert "mode RGB" in error("masks", folder)
    PIL.Image.new("L", (WIDTH, HEIGHT), 9).save(folder / "masks" / "p00.png")
    assert "value 9 of" in error("masks", folder)
    (folder / "masks" / "p00.png").write_bytes(b"no picture")
    assert "cannot read mask" in error("masks", folder)
    (folder / "masks" / "p00.png").unlink()
    assert "there is no mask of it" in error("masks", folder)
    assert skipped("masks", folder)[0] == 2
    (folder / "classes.txt").unlink()
    assert "no names for the values" in error("masks", folder)


def test_text_that_is_no_text_is_named(tmp_path: Path) -> None:
    folder = make_masks(tmp_path / "masks", 1)
    (folder / "classes.txt").write_bytes(b"\xff\xfe\x00")
    assert "expected text in UTF-8" in error("masks", folder)
    folder = make_yolo(tmp_path / "yolo", 4)
    (folder / "labels" / "train" / "p00.txt").write_bytes(b"\xff\xfe\x00")
    assert "expected text in UTF-8" in error("yolo-seg", folder)


def test_black_and_white_masks_take_the_name_that_is_given(tmp_path: Path) -> None:
    folder = make_masks(tmp_path / "a", 2)
    white = mask(BOX).astype(np.uint8) * 255
    PIL.Image.fromarray(white).save(folder / "masks" / "p00.png")
    first = read("masks", folder, name="crack")[0]
    assert [thing.name for thing in first.things] == ["crack"] and first.ignore is None
    np.testing.assert_array_equal(decode_rle(first.things[0].mask), mask(BOX))


def test_the_value_255_is_ignored(tmp_path: Path) -> None:
    folder = make_masks(tmp_path / "a", 1)
    values = mask(BOX).astype(np.uint8)
    values[0] = 255
    PIL.Image.fromarray(values).save(folder / "masks" / "p00.png")
    (one,) = read("masks", folder)
    assert one.ignore is not None and decode_rle(one.ignore).sum() == WIDTH


def test_names_of_values_may_stand_in_json(tmp_path: Path) -> None:
    folder = make_masks(tmp_path / "a", 2)
    write_json(folder / "names.json", {"1": "big_thing", "2": "other"})
    assert read("masks", folder)[0].things[0].name == "big thing"
    write_json(folder / "names.json", ["a"])
    assert "names.json' is not {value: name}" in error("masks", folder)


# JSONL --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": "none.png"}, "no picture 'none.png'"),
        ({"image": None}, "'image' is missing"),
        ({"question": " "}, "is empty"),
        ({"question": None}, "there is no question"),
        ({"questions": ["b"]}, "'question' and 'questions'"),
        ({"question": None, "questions": []}, "'questions' is empty"),
        ({"masks": 3}, "'masks' is a int"),
        ({"masks": [[[1, 1], [2, 2]]]}, "polygon 0"),
        ({"masks": "none.png"}, "there is no mask file"),
        ({"masks": {"size": [3, 3], "counts": "9"}}, "mask of"),
        ({"answer": 3}, "'answer' is a int"),
        ({"colour": "red"}, "'colour' is unknown"),
        ({"split": "some"}, "'split' is 'some'"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = make_jsonl(tmp_path / "a", 1)
    line = {"image": "p00.png", "question": "what glows?"} | changes
    (folder / "questions.jsonl").write_text('{"image": "p00.png", "question": "a"}\n\n')
    with (folder / "questions.jsonl").open("a") as stream:
        stream.write(json.dumps(line) + "\n")
    said = error("jsonl", folder)
    assert "line 3 of" in said and message in said
    assert skipped("jsonl", folder)[0] == 1


def test_a_truncated_line_is_named(tmp_path: Path) -> None:
    folder = make_jsonl(tmp_path / "a", 1)
    (folder / "questions.jsonl").write_text('{"image": "p00.png", "quest')
    assert "line 1 of" in error("jsonl", folder)


def test_lines_about_one_picture_are_joined(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    save_pictures(folder, 1)
    lines = [
        {"image": "p00.png", "question": "what is it?"},
        {"image": "p00.png", "name": "zarp", "masks": [corners(BOX)], "split": "validation"},
        {"image": "p00.png", "question": "and what else?", "masks": []},
    ]
    (folder / "a.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    (one,) = read("jsonl", folder)
    assert [asked.masks for asked in one.written] == [None, ()]
    assert [thing.name for thing in one.things] == ["zarp"] and one.split == "val"


def test_an_upright_size_is_what_counts(tmp_path: Path) -> None:
    """A photograph that a camera took on its side has its masks as people see it."""
    folder = labelme(tmp_path / "a", imagePath="p00.jpg")
    turned = picture(0).transpose(PIL.Image.Transpose.ROTATE_90)
    exif = PIL.Image.Exif()
    exif[274] = 6  # turn it to the right
    turned.save(folder / "p00.jpg", exif=exif)
    (one,) = read("labelme", folder)
    assert (one.height, one.width) == (HEIGHT, WIDTH)
