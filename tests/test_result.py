"""Result and Mask: what is drawn can be seen, and what is written can be read back."""

import base64
import contextlib
import io
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from helpers.masks import MASKS, RICH, from_drawing, without_holes
from lisa.draw.overlay import draw_overlay
from lisa.errors import DataError, LisaError, OutputError
from lisa.export.geojson import geojson_geometry
from lisa.masks import Mask
from lisa.result import Result


def result(*masks: np.ndarray, phrases: tuple[str, ...] = (), **fields: Any) -> Result:
    height, width = masks[0].shape if masks else (5, 8)
    named = [*phrases, *[""] * len(masks)]
    return Result(
        image=PIL.Image.new("RGB", (width, height), "grey"),
        question="which one purrs?",
        text="The cat.",
        masks=tuple(Mask(mask, named[index], 0.75) for index, mask in enumerate(masks)),
        **fields,
    )


# Mask


def test_a_mask_measures_itself() -> None:
    mask = Mask(from_drawing("....", ".##.", "..#."), "cat", 0.5)
    assert mask.area == 3
    assert mask.bbox == (1, 1, 2, 2)
    assert mask.rle["size"] == [3, 4]
    assert isinstance(mask.rle["counts"], str)


def test_an_empty_mask_has_no_box() -> None:
    mask = Mask(np.zeros((3, 4), bool), "", 0.0)
    assert (mask.area, mask.bbox) == (0, (0, 0, 0, 0))
    assert not coco_mask.decode(mask.rle).any()


@settings(deadline=None)
@given(MASKS)
def test_area_box_and_rle_agree_with_pycocotools(values: np.ndarray) -> None:
    mask = Mask(values, "", 1.0)
    assert np.array_equal(coco_mask.decode(mask.rle).astype(bool), values)
    assert mask.area == coco_mask.area(mask.rle) == values.sum()
    assert list(mask.bbox) == coco_mask.toBbox(mask.rle).tolist()
    x, y, width, height = mask.bbox
    assert values[y : y + height, x : x + width].sum() == mask.area


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([[True]], "mask: expected ndarray, got list"),
        (np.ones((2, 2), np.uint8), "mask: expected bool [H, W] of at least 1x1, got uint8 [2, 2]"),
        (np.ones((1, 2, 2), bool), "got bool [1, 2, 2]"),
        (np.ones((0, 2), bool), "got bool [0, 2]"),
    ],
)
def test_a_mask_is_bool_of_two_axes(values: Any, said: str) -> None:
    with pytest.raises(DataError) as caught:
        Mask(values, "cat", 0.5)
    assert said in str(caught.value)


@pytest.mark.parametrize("score", [-0.01, 1.01, float("nan"), "0.5", None, True])
def test_a_score_is_a_number_from_0_to_1(score: Any) -> None:
    with pytest.raises(DataError, match=r"score: expected a number in \[0, 1\], got"):
        Mask(np.ones((1, 1), bool), "cat", score)


def test_a_score_becomes_a_plain_float() -> None:
    assert type(Mask(np.ones((1, 1), bool), "", np.float32(0.5)).score) is float
    assert type(Mask(np.ones((1, 1), bool), "", 1).score) is float


def test_a_phrase_is_text() -> None:
    with pytest.raises(DataError, match="phrase: expected str, got NoneType"):
        Mask(np.ones((1, 1), bool), None, 0.5)  # type: ignore[arg-type]


# Result


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"image": np.zeros((2, 3, 3))}, "image: expected Image, got ndarray"),
        ({"image": PIL.Image.new("RGBA", (3, 2))}, "image: expected RGB of at least 1x1, got RGBA"),
        ({"image": PIL.Image.new("RGB", (3, 0))}, "got RGB 3x0"),
        ({"question": None}, "question: expected str, got NoneType"),
        ({"text": 7}, "text: expected str, got int"),
        ({"name": Path("x")}, f"name: expected str, got {type(Path()).__name__}"),
        ({"model": b"nano"}, "model: expected str, got bytes"),
        ({"masks": []}, "masks: expected tuple, got list"),
        ({"masks": (np.ones((2, 3), bool),)}, "masks[0]: expected Mask, got ndarray"),
        (
            {"masks": (Mask(np.ones((2, 3), bool), "", 1), Mask(np.ones((3, 2), bool), "", 1))},
            "masks[1]: expected the image's [2, 3], got [3, 2]",
        ),
        ({"timings": {"load": -1.0}}, "timings['load']: expected seconds >= 0, got -1.0"),
        ({"timings": {"load": float("nan")}}, "got nan"),
        ({"timings": {"load": "fast"}}, "got 'fast'"),
        ({"timings": None}, "timings: expected Mapping, got NoneType"),
    ],
)
def test_a_bad_field_is_named_with_expected_and_actual(fields: dict[str, Any], said: str) -> None:
    good = {"image": PIL.Image.new("RGB", (3, 2)), "question": "q", "text": "a", "masks": ()}
    with pytest.raises(DataError) as caught:
        Result(**{**good, **fields})
    assert said in str(caught.value)


def test_the_timings_are_a_copy_in_plain_floats() -> None:
    seconds = {"load": np.float32(0.5)}
    answer = result(timings=seconds)
    seconds["load"] = np.float32(2.0)
    assert answer.timings == {"load": 0.5}
    assert type(answer.timings["load"]) is float


def test_a_result_travels_between_processes() -> None:
    answer = result(RICH, phrases=("cat",), timings={"load": 0.5})
    assert pickle.loads(pickle.dumps(answer)).to_dict() == answer.to_dict()


def test_a_result_prints_on_a_line_without_its_pixels() -> None:
    printed = repr(result(RICH, phrases=("cat",)))
    assert "cat" in printed
    assert "array" not in printed
    assert len(printed) < 300


def test_the_union_of_the_masks() -> None:
    left, right = from_drawing("#..", "..."), from_drawing("#..", "..#")
    assert np.array_equal(result(left, right).mask, left | right)
    assert not result().mask.any()
    assert result().mask.shape == (5, 8)


def test_the_union_is_a_new_array() -> None:
    answer = result(RICH.copy())
    answer.mask[:] = False
    assert np.array_equal(answer.mask, RICH)


# to_dict


def test_to_dict_has_exactly_these_keys() -> None:
    answer = result(RICH, phrases=("cat",), name="x.jpg", model="nano", timings={"load": 0.5})
    content = answer.to_dict()
    assert list(content) == ["image", "question", "answer", "model", "masks", "timings"]
    assert content["image"] == "x.jpg"
    assert content["question"] == "which one purrs?"
    assert content["answer"] == "The cat."
    assert content["model"] == "nano"
    assert content["timings"] == {"load": 0.5}
    (mask,) = content["masks"]
    assert list(mask) == ["rle", "phrase", "score", "area", "bbox"]
    assert mask["phrase"] == "cat"
    assert mask["score"] == 0.75
    assert mask["area"] == int(RICH.sum())
    assert mask["bbox"] == [0, 0, 8, 5]
    assert list(mask["rle"]) == ["size", "counts"]


@settings(deadline=None)
@given(MASKS)
def test_to_dict_survives_json(mask: np.ndarray) -> None:
    content = json.loads(json.dumps(result(mask).to_dict()))
    assert np.array_equal(coco_mask.decode(content["masks"][0]["rle"]).astype(bool), mask)


# COCO


def coco_of(content: dict[str, Any], folder: Path) -> COCO:
    path = folder / "coco.json"
    path.write_text(json.dumps(content))
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def coco_masks(content: dict[str, Any]) -> list[np.ndarray]:
    """What pycocotools reads from a data set in memory."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = content
        coco.createIndex()
    return [coco.annToMask(coco.anns[key]).astype(bool) for key in sorted(coco.anns)]


@pytest.mark.parametrize("polygons", [False, True])
def test_pycocotools_reads_the_file(polygons: bool, tmp_path: Path) -> None:
    masks = (RICH, from_drawing("........", ".##.....", *["........"] * 3), RICH)
    content = result(*masks, phrases=("cat", "", "cat"), name="x.jpg").to_coco(polygons=polygons)
    coco = coco_of(content, tmp_path)
    (image,) = coco.loadImgs(coco.getImgIds())
    assert (image["file_name"], image["width"], image["height"]) == ("x.jpg", 8, 5)
    names = {category["id"]: category["name"] for category in coco.loadCats(coco.getCatIds())}
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
    assert [names[annotation["category_id"]] for annotation in annotations] == [
        "cat",
        "object",
        "cat",
    ]
    assert [annotation["area"] for annotation in annotations] == [mask.sum() for mask in masks]
    assert annotations[1]["bbox"] == [1, 1, 2, 1]
    assert {annotation["iscrowd"] for annotation in annotations} == {0}
    assert {annotation["score"] for annotation in annotations} == {0.75}
    for annotation, mask in zip(annotations, masks, strict=True):
        expected = without_holes(mask) if polygons else mask
        assert np.array_equal(coco.annToMask(annotation), expected)


@settings(deadline=None)
@given(MASKS)
def test_coco_run_lengths_hold_every_mask(mask: np.ndarray) -> None:
    read = coco_masks(result(mask).to_coco())
    assert len(read) == mask.any()
    assert all(np.array_equal(other, mask) for other in read)


def test_coco_says_what_was_asked_and_leaves_out_what_is_empty() -> None:
    content = result(np.zeros((2, 2), bool), phrases=("ghost",), model="nano").to_coco()
    assert content["info"] == {
        "question": "which one purrs?",
        "answer": "The cat.",
        "model": "nano",
    }
    assert content["annotations"] == content["categories"] == []


# labelme


def read_labelme(content: dict[str, Any]) -> list[np.ndarray]:
    """The masks, by the rule of labelme 5 (`utils/shape.py`): both corners belong to the box."""
    masks = []
    for shape in content["shapes"]:
        assert shape["shape_type"] == "mask"
        (x1, y1), (x2, y2) = shape["points"]
        crop = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(shape["mask"]))))
        mask = np.zeros((content["imageHeight"], content["imageWidth"]), dtype=bool)
        mask[y1 : y2 + 1, x1 : x2 + 1] = crop.astype(bool)
        masks.append(mask)
    return masks


@settings(deadline=None)
@given(MASKS)
def test_labelme_holds_every_mask(mask: np.ndarray) -> None:
    read = read_labelme(json.loads(json.dumps(result(mask).to_labelme())))
    assert len(read) == mask.any()
    assert all(np.array_equal(other, mask) for other in read)


def test_labelme_has_the_fields_of_version_5() -> None:
    content = result(RICH, RICH, phrases=("cat",), name="x.png").to_labelme()
    assert set(content) == {
        "version",
        "flags",
        "shapes",
        "imagePath",
        "imageData",
        "imageHeight",
        "imageWidth",
    }
    assert content["version"].startswith("5.")
    assert (content["imagePath"], content["imageHeight"], content["imageWidth"]) == ("x.png", 5, 8)
    assert [shape["label"] for shape in content["shapes"]] == ["cat", "object"]
    required = {"label", "points", "group_id", "description", "shape_type", "flags", "mask"}
    assert required <= set(content["shapes"][0])


@pytest.mark.parametrize(("name", "kind"), [("x.JPG", "JPEG"), ("x.png", "PNG"), ("", "PNG")])
def test_labelme_carries_the_picture_as_labelme_does(name: str, kind: str) -> None:
    content = result(RICH, name=name).to_labelme()
    picture = PIL.Image.open(io.BytesIO(base64.b64decode(content["imageData"])))
    assert (picture.format, picture.size) == (kind, (8, 5))
    assert np.abs(np.asarray(picture, dtype=int) - 128).max() <= 1


# GeoJSON


def test_a_geojson_feature_tells_what_is_known_of_its_mask() -> None:
    (feature,) = result(RICH, phrases=("cat",)).to_geojson()["features"]
    assert list(feature) == ["type", "bbox", "geometry", "properties"]
    assert feature["geometry"] == geojson_geometry(RICH)
    assert feature["bbox"] == [0, 0, 8, 5]
    assert feature["properties"] == {"phrase": "cat", "score": 0.75, "area": int(RICH.sum())}


def test_geojson_collection() -> None:
    content = result(RICH, np.zeros_like(RICH), RICH, name="x.jpg").to_geojson()
    assert content["type"] == "FeatureCollection"
    assert [feature["type"] for feature in content["features"]] == ["Feature"] * 2
    assert (content["image"], content["answer"]) == ("x.jpg", "The cat.")
    assert content["question"] == "which one purrs?"


# supervision


def test_supervision_detections() -> None:
    pytest.importorskip("supervision")
    small = from_drawing("........", ".##.....", *["........"] * 3)
    detections = result(RICH, small, RICH, phrases=("cat", "dog", "cat")).to_supervision()
    assert len(detections) == 3
    assert np.array_equal(np.asarray(detections.mask), np.stack([RICH, small, RICH]))
    assert detections.xyxy.tolist() == [[0, 0, 8, 5], [1, 1, 3, 2], [0, 0, 8, 5]]
    assert np.asarray(detections.confidence).tolist() == [0.75] * 3
    assert np.asarray(detections.class_id).tolist() == [0, 1, 0]
    assert np.asarray(detections["class_name"]).tolist() == ["cat", "dog", "cat"]


def test_supervision_of_no_masks_is_empty() -> None:
    pytest.importorskip("supervision")
    assert len(result().to_supervision()) == 0
    assert len(result(np.zeros((2, 2), bool)).to_supervision()) == 0


def test_supervision_is_named_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(LisaError, match=r"pip install 'lisa-seg\[supervision\]'"):
        result(RICH).to_supervision()


# save


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("x.json", Result.to_dict),
        ("x.coco.json", Result.to_coco),
        ("x.labelme.json", Result.to_labelme),
        ("x.geojson", Result.to_geojson),
        ("X.GeoJSON", Result.to_geojson),
        ("coco.json", Result.to_coco),
        ("x.coco.backup.json", Result.to_dict),
    ],
)
def test_save_chooses_the_json_by_the_ending(
    name: str, method: Callable[[Result], Any], tmp_path: Path
) -> None:
    answer = result(RICH, phrases=("le café 咖啡",), name="x.jpg")
    assert answer.save(tmp_path / name) == tmp_path / name
    assert read_json(tmp_path / name) == method(answer)
    assert "café" in (tmp_path / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["photo.lisa.png", "PHOTO.PNG"])
def test_save_png_is_the_overlay(name: str, tmp_path: Path) -> None:
    answer = result(RICH)
    saved = PIL.Image.open(answer.save(str(tmp_path / name)))
    assert (saved.format, saved.mode) == ("PNG", "RGB")
    assert np.array_equal(np.asarray(saved), np.asarray(answer.overlay()))


@pytest.mark.parametrize("name", ["photo.mask.png", "mask.png", "photo.MASK.png"])
def test_save_mask_png_is_the_union_in_one_channel(name: str, tmp_path: Path) -> None:
    other = np.flipud(np.fliplr(RICH))
    saved = PIL.Image.open(result(RICH, other).save(tmp_path / name))
    assert (saved.format, saved.mode) == ("PNG", "L")
    assert np.array_equal(np.asarray(saved), np.where(RICH | other, 255, 0))


@pytest.mark.parametrize("name", ["photo.jpg", "photo", "photo.json.gz"])
def test_save_names_the_endings_it_knows(name: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        result(RICH).save(tmp_path / name)
    message = str(caught.value)
    assert str(tmp_path / name) in message
    for ending in (".png", ".mask.png", ".json", ".coco.json", ".labelme.json", ".geojson"):
        assert f" {ending}" in message
    assert not list(tmp_path.iterdir())


def test_save_into_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"nowhere.x\.png"):
        result(RICH).save(tmp_path / "nowhere" / "x.png")


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    answer = result(RICH, phrases=("cat",))
    for ending in (".png", ".mask.png", ".json", ".coco.json", ".labelme.json", ".geojson"):
        one, two = answer.save(tmp_path / f"1{ending}"), answer.save(tmp_path / f"2{ending}")
        assert one.read_bytes() == two.read_bytes()


def test_a_file_name_that_is_not_unicode_can_be_written_and_read(tmp_path: Path) -> None:
    path = result(RICH, name="caf\udce9.jpg").save(tmp_path / "x.json")
    assert read_json(path)["image"] == "caf\udce9.jpg"


# overlay


def test_the_overlay_draws_each_mask_with_its_phrase() -> None:
    left, right = np.zeros((2, 240, 320), bool)
    left[80:160, 40:120], right[80:160, 200:280] = True, True
    answer = result(left, right, phrases=("cat", "dog"))
    expected = draw_overlay(answer.image, [left, right], ["cat", "dog"])
    assert np.array_equal(np.asarray(answer.overlay()), np.asarray(expected))
    unnamed = draw_overlay(answer.image, [left, right], ["", ""])
    assert not np.array_equal(np.asarray(unnamed), np.asarray(expected))
