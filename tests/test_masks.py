"""The forms of masks and pictures: what is written can be read back, by other programs too."""

import base64
import io
import itertools
import json
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import assume, given, settings
from pycocotools import mask as coco_mask

from helpers.masks import MASKS, RICH, ellipse, without_holes
from lisa.export.geojson import geojson_geometry
from lisa.files import json_bytes
from lisa.image import base64_image, image_bytes
from lisa.masks import coco_polygons, grey, outlines, run_lengths

# Run lengths and polygons of COCO


@settings(deadline=None)
@given(MASKS)
def test_run_lengths_hold_every_mask(mask: np.ndarray) -> None:
    rle = json.loads(json.dumps(run_lengths(mask)))
    assert rle["size"] == list(mask.shape)
    assert np.array_equal(coco_mask.decode(rle).astype(bool), mask)


def read_polygons(polygons: list[list[int]], shape: tuple[int, int]) -> np.ndarray:
    """bool [H, W], by pycocotools."""
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *shape))).astype(bool)


@settings(deadline=None)
@given(MASKS)
def test_coco_polygons_hold_everything_but_holes(mask: np.ndarray) -> None:
    assume(mask.any())
    assert np.array_equal(read_polygons(coco_polygons(mask), mask.shape), without_holes(mask))


def test_coco_polygons_of_a_large_smooth_mask() -> None:
    mask = ellipse(480, 640, (300, 200), (211, 133)) | ellipse(480, 640, (600, 450), (90, 70))
    assert len(coco_polygons(mask)) == 2
    assert np.array_equal(read_polygons(coco_polygons(mask), mask.shape), mask)


# Outlines


@settings(deadline=None)
@given(MASKS)
def test_there_are_as_many_outlines_as_components(mask: np.ndarray) -> None:
    """Counted by a walk over the pixels, written independently of OpenCV."""
    left = {tuple(pixel) for pixel in np.argwhere(mask).tolist()}
    components = 0
    while left:
        components += 1
        reached = [left.pop()]
        while reached:
            y, x = reached.pop()
            near = left & {(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)}
            left -= near
            reached += near
    assert len(outlines(mask)) == components


# GeoJSON


def all_rings(geometry: dict[str, Any]) -> list[list[np.ndarray]]:
    """By polygon: the exterior ring and its holes, closed, int [n, 2]."""
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


@settings(deadline=None)
@given(MASKS)
def test_geojson_fills_back_to_every_mask(mask: np.ndarray) -> None:
    assume(mask.any())
    polygons = all_rings(json.loads(json.dumps(geojson_geometry(mask))))
    filled = [fill(polygon, mask.shape) for polygon in polygons]
    assert np.array_equal(np.sum(filled, axis=0), mask)  # and no pixel is in two polygons


@settings(deadline=None)
@given(MASKS)
def test_geojson_rings_follow_rfc_7946(mask: np.ndarray) -> None:
    assume(mask.any())
    for exterior, *holes in all_rings(geojson_geometry(mask)):
        assert signed_area(exterior) > 0  # counterclockwise
        assert all(signed_area(hole) < 0 for hole in holes)  # clockwise
        for ring in (exterior, *holes):
            assert ((ring >= exterior.min(axis=0)) & (ring <= exterior.max(axis=0))).all()
            check_ring(ring)


def check_ring(ring: np.ndarray) -> None:
    """Closed, along the pixels' edges, no superfluous corner, and it touches itself nowhere."""
    assert len(ring) >= 5  # four corners, the first repeated
    assert ring[0].tolist() == ring[-1].tolist()
    assert len(np.unique(ring[:-1], axis=0)) == len(ring) - 1
    steps = np.diff(ring, axis=0)
    assert ((steps == 0).sum(axis=1) == 1).all()
    assert ((steps[1:] == 0) != (steps[:-1] == 0)).all()


def test_geojson_of_a_rich_mask_corner_by_corner() -> None:
    geometry = geojson_geometry(RICH)
    polygons = [[ring.tolist() for ring in polygon] for polygon in all_rings(geometry)]
    assert geometry["type"] == "MultiPolygon"
    assert sorted(len(polygon) for polygon in polygons) == [1, 1, 1, 2]
    exterior, hole = max(polygons, key=len)
    assert {tuple(corner) for corner in exterior} == {(0, 0), (5, 0), (5, 5), (0, 5)}
    assert {tuple(corner) for corner in hole} == {(1, 1), (4, 1), (4, 4), (1, 4)}


def test_geojson_of_one_pixel_is_a_polygon() -> None:
    geometry = geojson_geometry(np.ones((1, 1), bool))
    assert geometry["type"] == "Polygon"
    ((exterior,),) = all_rings(geometry)
    assert {tuple(corner) for corner in exterior.tolist()} == {(0, 0), (1, 0), (1, 1), (0, 1)}


# Pictures and JSON


def test_a_mask_becomes_a_grey_picture() -> None:
    picture = grey(RICH, 255)
    assert (picture.mode, picture.size) == ("L", (8, 5))
    assert np.array_equal(np.asarray(picture), np.where(RICH, 255, 0))


@pytest.mark.parametrize(("kind", "tolerance"), [("PNG", 0), ("JPEG", 2)])
def test_a_picture_is_read_back_from_its_bytes(kind: str, tolerance: int) -> None:
    picture = PIL.Image.linear_gradient("L").convert("RGB")
    read = PIL.Image.open(io.BytesIO(image_bytes(picture, kind)))
    assert read.format == kind
    difference = np.asarray(read, dtype=int) - np.asarray(picture, dtype=int)
    assert np.abs(difference).max() <= tolerance
    assert base64.b64decode(base64_image(picture, kind)) == image_bytes(picture, kind)


def test_json_keeps_letters_as_they_are_and_escapes_half_ones() -> None:
    content = json_bytes({"name": "caf\udce9 咖啡"})
    assert "咖啡".encode() in content
    assert json.loads(content.decode("utf-8")) == {"name": "caf\udce9 咖啡"}


def test_json_refuses_what_is_not_json() -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_bytes({"score": float("nan")})
