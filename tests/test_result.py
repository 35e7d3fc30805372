"""Result and Mask: what is drawn can be seen, and what is written can be read back."""

import base64
import contextlib
import io
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import PIL.ImageFont
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from lisa import result as result_module
from lisa.errors import DataError, LisaError, OutputError
from lisa.result import Mask, Result

SIDES = st.integers(1, 14)
MASKS = arrays.arrays(bool, st.tuples(SIDES, SIDES))


def from_drawing(*rows: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in row] for row in rows])


# A ring with an island in its hole, two pixels that touch at a corner, and one on the border.
RICH = from_drawing(
    "#####...",
    "#...#...",
    "#.#.#.#.",
    "#...#..#",
    "#####...",
)


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


def ellipse(height: int, width: int, centre: tuple[int, int], axes: tuple[int, int]) -> np.ndarray:
    canvas = np.zeros((height, width), np.uint8)
    return cv2.ellipse(canvas, centre, axes, 0, 0, 360, 1, -1).astype(bool)


def without_holes(mask: np.ndarray) -> np.ndarray:
    """Each component, and all that a walk by the four directions cannot reach from outside it."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    filled = np.zeros_like(mask)
    for label in range(1, count):
        around = np.pad((labels == label).astype(np.uint8), 1)
        cv2.floodFill(around, None, (0, 0), 2, flags=4)
        filled |= (around != 2)[1:-1, 1:-1]
    return filled


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
        ({"image": PIL.Image.new("RGBA", (3, 2))}, "image: expected mode RGB, got RGBA"),
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


def test_the_timings_cannot_change_afterwards() -> None:
    seconds = {"load": 1.0}
    answer = result(timings=seconds)
    seconds["load"] = 2.0
    assert answer.timings == {"load": 1.0}
    with pytest.raises(TypeError):
        answer.timings["load"] = 3.0  # type: ignore[index]


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


@given(MASKS)
def test_coco_run_lengths_hold_every_mask(mask: np.ndarray) -> None:
    read = coco_masks(result(mask).to_coco())
    assert len(read) == mask.any()
    assert all(np.array_equal(other, mask) for other in read)


@given(MASKS)
def test_coco_polygons_hold_everything_but_holes(mask: np.ndarray) -> None:
    assume(mask.any())
    (read,) = coco_masks(result(mask).to_coco(polygons=True))
    assert np.array_equal(read, without_holes(mask))


def test_coco_polygons_of_a_large_smooth_mask() -> None:
    mask = ellipse(480, 640, (300, 200), (211, 133)) | ellipse(480, 640, (600, 450), (90, 70))
    (read,) = coco_masks(result(mask).to_coco(polygons=True))
    assert np.array_equal(read, mask)


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


def all_rings(feature: dict[str, Any]) -> list[list[np.ndarray]]:
    """By polygon: the exterior ring and its holes, closed, int [n, 2]."""
    geometry = feature["geometry"]
    several = geometry["type"] == "MultiPolygon"
    polygons = geometry["coordinates"] if several else [geometry["coordinates"]]
    assert len(polygons) > 1 or not several
    return [[np.array(ring) for ring in polygon] for polygon in polygons]


def signed_area(ring: np.ndarray) -> float:
    (x1, y1), (x2, y2) = ring[:-1].T, ring[1:].T
    return float((x1 * y2 - x2 * y1).sum()) / 2


def fill(rings: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Even-odd rule at the pixels' centres, written independently of the code under test."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside = np.zeros(shape, dtype=bool)
    for ring in rings:
        for (x1, y1), (x2, y2) in itertools.pairwise(ring):
            if y1 != y2:
                crosses = (y1 > y) != (y2 > y)
                inside ^= crosses & (x < x1 + (y - y1) * (x2 - x1) / (y2 - y1))
    return inside


@given(MASKS)
def test_geojson_fills_back_to_every_mask(mask: np.ndarray) -> None:
    features = json.loads(json.dumps(result(mask).to_geojson()))["features"]
    assert len(features) == mask.any()
    for feature in features:
        filled = [fill(polygon, mask.shape) for polygon in all_rings(feature)]
        assert np.array_equal(np.sum(filled, axis=0), mask)  # and no pixel is in two polygons


@given(MASKS)
def test_geojson_rings_follow_rfc_7946(mask: np.ndarray) -> None:
    for feature in result(mask).to_geojson()["features"]:
        for exterior, *holes in all_rings(feature):
            assert signed_area(exterior) > 0  # counterclockwise
            assert all(signed_area(hole) < 0 for hole in holes)  # clockwise
            low, high = exterior.min(axis=0), exterior.max(axis=0)
            for ring in (exterior, *holes):
                assert len(ring) >= 5  # four corners, the first repeated
                assert ring[0].tolist() == ring[-1].tolist()
                assert len(np.unique(ring[:-1], axis=0)) == len(ring) - 1  # touches itself nowhere
                steps = np.diff(ring, axis=0)
                assert ((steps == 0).sum(axis=1) == 1).all()  # along the pixels' edges
                assert ((steps[1:] == 0) != (steps[:-1] == 0)).all()  # no superfluous corner
                assert ((ring >= low) & (ring <= high)).all()


def test_geojson_of_a_rich_mask_corner_by_corner() -> None:
    (feature,) = result(RICH, phrases=("cat",)).to_geojson()["features"]
    polygons = [[ring.tolist() for ring in polygon] for polygon in all_rings(feature)]
    assert feature["geometry"]["type"] == "MultiPolygon"
    assert sorted(len(polygon) for polygon in polygons) == [1, 1, 1, 2]
    exterior, hole = max(polygons, key=len)
    assert {tuple(corner) for corner in exterior} == {(0, 0), (5, 0), (5, 5), (0, 5)}
    assert {tuple(corner) for corner in hole} == {(1, 1), (4, 1), (4, 4), (1, 4)}
    assert feature["bbox"] == [0, 0, 8, 5]
    assert feature["properties"] == {"phrase": "cat", "score": 0.75, "area": int(RICH.sum())}


def test_geojson_of_one_pixel_is_a_polygon() -> None:
    (feature,) = result(np.ones((1, 1), bool)).to_geojson()["features"]
    assert feature["geometry"]["type"] == "Polygon"
    ((exterior,),) = all_rings(feature)
    assert {tuple(corner) for corner in exterior.tolist()} == {(0, 0), (1, 0), (1, 1), (0, 1)}


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


def drawn(answer: Result) -> np.ndarray:
    overlay = answer.overlay()
    assert (overlay.mode, overlay.size) == ("RGB", answer.image.size)
    return np.asarray(overlay).astype(int)


def test_overlay_of_nothing_is_a_copy_of_the_picture() -> None:
    answer = result()
    overlay = answer.overlay()
    assert np.array_equal(np.asarray(overlay), np.asarray(answer.image))
    overlay.paste("red", (0, 0, 8, 5))
    assert answer.image.getpixel((0, 0)) == (128, 128, 128)


def test_overlay_tints_the_inside_and_leaves_the_rest_alone() -> None:
    mask = ellipse(300, 400, (200, 150), (80, 60))
    answer = result(mask)
    pixels = drawn(answer)
    assert pixels[150, 200].tolist() == [109, 151, 175]  # 0.55 of grey and 0.45 of sky blue
    far = ~cv2.dilate(mask.astype(np.uint8), np.ones((15, 15))).astype(bool)
    assert (pixels[far] == 128).all()
    assert (np.asarray(answer.image) == 128).all()  # the photograph itself is not drawn on


def test_overlay_draws_the_outline_in_full_colour_around_holes_too() -> None:
    mask = ellipse(300, 400, (200, 150), (120, 90)) & ~ellipse(300, 400, (200, 150), (50, 40))
    pixels = drawn(result(mask))
    full = (np.abs(pixels - result_module._COLOURS[0]).sum(axis=2) == 0).nonzero()
    radius = np.hypot((full[1] - 200) / 120, (full[0] - 150) / 90)
    assert (radius > 0.9).sum() > 100
    assert (radius < 0.6).sum() > 50
    assert pixels[150, 200].tolist() == [128, 128, 128]  # the hole is not tinted


def test_overlay_shows_the_small_thing_on_the_large_one_whatever_their_order() -> None:
    large, small = np.ones((400, 400), bool), ellipse(400, 400, (200, 200), (50, 50))
    for masks in ((large, small), (small, large)):
        pixels = drawn(result(*masks))
        colour = result_module._COLOURS[0 if masks[0] is small else 1]
        outline = pixels[146:156, 200]  # where the small thing begins
        assert (outline == colour).all(axis=1).any()


def label_boxes(answer: Result, phrases: tuple[str, ...]) -> list[tuple[int, int, int, int]]:
    """(left, top, right, bottom) of the labels: where the picture differs with its phrases."""
    unnamed = result(*(mask.mask for mask in answer.masks))
    boxes = []
    for index in range(len(phrases)):
        alone = [phrase if other == index else "" for other, phrase in enumerate(phrases)]
        named = result(*(mask.mask for mask in answer.masks), phrases=tuple(alone))
        rows, columns = (drawn(named) != drawn(unnamed)).any(axis=2).nonzero()
        assert rows.size, f"no label for {phrases[index]!r}"
        boxes.append((columns.min(), rows.min(), columns.max(), rows.max()))
    return boxes


@given(
    st.tuples(st.integers(0, 639), st.integers(0, 479)),
    st.tuples(st.integers(0, 200), st.integers(0, 200)),
    st.sampled_from(["cat", "a rather long phrase about a cat", "w" * 300]),
)
def test_a_label_lies_whole_inside_the_picture(
    centre: tuple[int, int], axes: tuple[int, int], phrase: str
) -> None:
    answer = result(ellipse(480, 640, centre, axes), phrases=(phrase,))
    ((left, top, right, bottom),) = label_boxes(answer, (phrase,))
    assert 0 < left < right < 639  # a margin on every side: nothing is cut off
    assert 0 < top < bottom < 479
    assert bottom - top > 15


def test_a_label_stands_beside_its_thing_and_does_not_hide_it() -> None:
    mask = ellipse(480, 640, (320, 240), (100, 80))
    ((left, top, right, bottom),) = label_boxes(result(mask), ("cat",))
    assert not mask[top : bottom + 1, left : right + 1].any()
    assert 0 < mask.nonzero()[0].min() - bottom < 20
    assert abs((left + right) / 2 - 320) < 3


def test_labels_do_not_cover_each_other() -> None:
    masks = [ellipse(480, 640, (x, 240), (30, 30)) for x in (300, 320, 340)]
    phrases = ("the first thing", "the second thing", "the third thing")
    pixels = drawn(result(*masks, phrases=phrases))
    for index in range(3):
        colour = result_module._COLOURS[index]
        label = (pixels == colour).all(axis=2)
        label &= ~cv2.dilate(masks[index].astype(np.uint8), np.ones((9, 9))).astype(bool)
        rows, columns = label.nonzero()
        size = (int(np.ptp(columns)) + 1) * (int(np.ptp(rows)) + 1)
        assert label.sum() > 0.6 * size  # nearly whole: only its letters are of another colour


def test_each_label_has_ink_that_can_be_read_on_it() -> None:
    for colour in result_module._COLOURS:
        paper, ink = (luminance(c) for c in (colour, result_module._ink(colour)))
        contrast = (max(paper, ink) + 0.05) / (min(paper, ink) + 0.05)
        assert contrast >= 4.5  # WCAG 2.2, level AA


def luminance(colour: tuple[int, int, int]) -> float:
    """Relative luminance in WCAG 2.2, with its linear part."""
    scaled = [channel / 255 for channel in colour]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in scaled]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 50), (50, 1), (64, 43), (4000, 20), (20, 4000), (2000, 1500)]
)
@pytest.mark.parametrize("phrase", ["", "cat", "two\nlines", "ü咖啡\udcff", "w" * 5000])
def test_any_size_and_phrase_can_be_drawn(size: tuple[int, int], phrase: str) -> None:
    width, height = size
    mask = np.zeros((height, width), bool)
    mask[: (height + 1) // 2] = True
    pixels = drawn(result(mask, phrases=(phrase,)))
    assert (pixels[mask] != 128).any()


def test_letters_grow_with_the_picture() -> None:
    heights = []
    for scale in (1, 4):
        mask = ellipse(300 * scale, 400 * scale, (200 * scale, 150 * scale), (40, 40))
        ((_, top, _, bottom),) = label_boxes(result(mask), ("cat",))
        heights.append(bottom - top + 1)
    assert 3 < heights[1] / heights[0] < 5


def test_a_font_is_chosen_that_has_the_letters() -> None:
    built_in = PIL.ImageFont.load_default(20)
    assert isinstance(built_in, PIL.ImageFont.FreeTypeFont)
    assert result_module._has_letters(built_in, "plain English?")
    assert not result_module._has_letters(built_in, "caf\ue000")  # private use: no letter at all


def test_there_are_more_masks_than_colours() -> None:
    masks = [ellipse(100, 900, (50 + 80 * index, 50), (20, 20)) for index in range(10)]
    pixels = drawn(result(*masks))
    assert (pixels[50, 50] == pixels[50, 50 + 80 * 7]).all()
    assert len({tuple(pixels[50, 50 + 80 * index]) for index in range(7)}) == 7
