"""Masks and pictures in the forms that files and annotation tools hold them in.

Run lengths, polygons along the pixels' edges, pictures and JSON as bytes. This file knows one mask
at a time and the forms; it knows no question, no answer and no model.
"""

import base64
import io
import json
from typing import Any

import cv2
import numpy as np
import PIL.Image
from pycocotools import mask as coco_mask


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """bool [H, W] -> COCO's compressed run lengths {"size": [H, W], "counts": str}. Lossless."""
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode("ascii")}


def coco_polygons(mask: np.ndarray) -> list[list[int]]:
    """bool [H, W] -> COCO's polygons [x1, y1, x2, y2, ...], one a component; holes are lost."""
    return [exterior.ravel().tolist() for exterior, *_ in outlines(mask)]


def geojson_geometry(mask: np.ndarray) -> dict[str, Any]:
    """bool [H, W] with at least one pixel -> a Polygon, or a MultiPolygon of several components.

    Coordinates are pixels, x to the right and y down. Rings are closed and follow the pixels'
    edges, so that filling them gives the mask back; holes are interior rings. The signed area is
    positive for exterior rings and negative for holes (RFC 7946, section 3.1.6).
    """
    components = [
        [[*ring.tolist(), ring[0].tolist()] for ring in component] for component in outlines(mask)
    ]
    several = len(components) > 1
    return {
        "type": "MultiPolygon" if several else "Polygon",
        "coordinates": components if several else components[0],
    }


def outlines(mask: np.ndarray) -> list[list[np.ndarray]]:
    """The outlines of a mask along its pixels' edges.

    Returns for each 4-connected component its exterior ring and then its holes, each int [n, 2] of
    (x, y) corners, open (the first corner is not repeated). Exterior rings have a positive signed
    area, holes a negative one. A ring never touches itself.
    """
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=4, ltype=cv2.CV_32S
    )
    components = []
    for label in range(1, count):
        x, y, width, height = (int(value) for value in boxes[label, :4])
        component = labels[y : y + height, x : x + width] == label
        components.append([ring + np.array([x, y]) for ring in _component_rings(component)])
    return components


def _component_rings(component: np.ndarray) -> list[np.ndarray]:
    """bool [H, W] of one 4-connected component -> its exterior ring, then its holes.

    OpenCV's contours run through the centres of border pixels. With every pixel doubled, the
    border pixels 2x and 2x + 1 lie on either side of a pixel, and rounding half their coordinate
    up gives the pixel's edges, x and x + 1.
    """
    doubled = component.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = []
    for contour, (*_, parent) in zip(contours, hierarchy[0], strict=True):
        corners = (contour[:, 0].astype(np.int64) + 1) // 2
        corners = corners[(corners != np.roll(corners, 1, axis=0)).any(axis=1)]
        is_exterior = parent < 0
        rings.append(corners if (_signed_area(corners) > 0) == is_exterior else corners[::-1])
    return sorted(rings, key=_signed_area, reverse=True)  # the one positive area comes first


def _signed_area(ring: np.ndarray) -> float:
    """Shoelace formula: positive when a ring turns from the x axis towards the y axis."""
    x, y = ring[:, 0], ring[:, 1]
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2.0


def grey(mask: np.ndarray, value: int) -> PIL.Image.Image:
    """bool [H, W] -> 8-bit grey with `value` on the mask and 0 elsewhere."""
    return PIL.Image.fromarray(mask.astype(np.uint8) * np.uint8(value))


def image_bytes(image: PIL.Image.Image, format_name: str) -> bytes:
    """The picture as a file of the format "PNG" (lossless) or "JPEG"."""
    stream = io.BytesIO()
    image.save(stream, format_name, quality=95)  # quality: of JPEG; PNG is lossless and ignores it
    return stream.getvalue()


def base64_image(image: PIL.Image.Image, format_name: str) -> str:
    """The same file as text."""
    return base64.b64encode(image_bytes(image, format_name)).decode("ascii")


def json_bytes(content: dict[str, Any]) -> bytes:
    """UTF-8; half characters, which a file name may hold, become JSON escapes."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=2) + "\n"
    return text.encode("utf-8", "backslashreplace")
