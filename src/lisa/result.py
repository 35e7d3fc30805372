"""Result: the answer to a question about a picture, as text and masks.

The value that leaves the package. It draws itself, saves itself, and turns itself into the formats
that annotation tools read. This file knows pixels, polygons and file formats; it knows no model,
no tokens and no data set.
"""

import base64
import functools
import io
import json
import math
import numbers
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from pycocotools import mask as coco_mask

from lisa.errors import DataError, LisaError, OutputError
from lisa.image import write_atomically

if TYPE_CHECKING:
    import supervision

UNNAMED = "object"  # the label of a mask without a phrase in formats that demand one
LABELME_VERSION = "5.5.0"

# Okabe and Ito (2008), "Color Universal Design": told apart by people with any colour vision.
# Black is left out; the order puts colours first that stand out from most photographs.
_COLOURS = (
    (86, 180, 233),  # sky blue
    (230, 159, 0),  # orange
    (204, 121, 167),  # reddish purple
    (240, 228, 66),  # yellow
    (0, 158, 115),  # bluish green
    (213, 94, 0),  # vermilion
    (0, 114, 178),  # blue
)
_TINT = 0.45  # how much of the mask's colour covers the photograph
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)
_SMALLEST_FONT = 11  # pixels; smaller letters cannot be read
_LONGEST_LABEL = 200  # characters
_NO_LETTER = "\U0010ffff"  # a code that Unicode promises never to use
_INSTALLED_FONTS = (  # by operating system and script, the common ones first
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "arial.ttf",
    "msyh.ttc",
    "Nirmala.ttf",
)
_SUPERSAMPLING = 4  # labels are drawn this much larger, then scaled down, for smooth corners

Box = tuple[int, int, int, int]  # x, y, width, height in pixels
Colour = tuple[int, int, int]  # red, green, blue in 0 to 255
Font = PIL.ImageFont.FreeTypeFont | PIL.ImageFont.ImageFont


@dataclass(frozen=True, eq=False)
class Mask:
    """One thing the answer points at.

    Attributes:
        mask: bool [H, W], True on the thing.
        phrase: what the answer calls it; may be "".
        score: the model's own estimate of the mask's IoU, in [0, 1].

    Raises:
        DataError: a field does not have the form above.
    """

    mask: np.ndarray = field(repr=False)
    phrase: str
    score: float

    def __post_init__(self) -> None:
        _expect_type("mask", self.mask, np.ndarray)
        if self.mask.dtype != np.bool_ or self.mask.ndim != 2 or 0 in self.mask.shape:
            actual = f"{self.mask.dtype} {list(self.mask.shape)}"
            raise DataError(f"mask: expected bool [H, W] of at least 1x1, got {actual}")
        _expect_type("phrase", self.phrase, str)
        if not (_is_number(self.score) and 0.0 <= self.score <= 1.0):
            raise DataError(f"score: expected a number in [0, 1], got {self.score!r}")
        object.__setattr__(self, "score", float(self.score))

    @functools.cached_property
    def area(self) -> int:
        """Number of pixels."""
        return int(np.count_nonzero(self.mask))

    @functools.cached_property
    def bbox(self) -> Box:
        """(x, y, width, height) in whole pixels, tight around the mask; zeros when it is empty."""
        columns, rows = np.flatnonzero(self.mask.any(axis=0)), np.flatnonzero(self.mask.any(axis=1))
        if not columns.size:
            return (0, 0, 0, 0)
        x, y = int(columns[0]), int(rows[0])
        return (x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1)

    @functools.cached_property
    def rle(self) -> dict[str, Any]:
        """COCO's compressed run lengths: {"size": [H, W], "counts": str}. Lossless."""
        encoded = coco_mask.encode(np.asfortranarray(self.mask, dtype=np.uint8))
        return {"size": list(self.mask.shape), "counts": encoded["counts"].decode("ascii")}


@dataclass(frozen=True, eq=False)
class Result:
    """The answer to one question about one picture.

    Attributes:
        image: RGB, at its original size.
        question: as it was asked.
        text: the answer as a person reads it.
        masks: one for each thing that the answer points at, all of the image's size. None: the
            answer points at nothing.
        name: the picture's file name, or "".
        model: the name of the model that answered, or "".
        timings: seconds by step: load, image, answer, mask.

    Raises:
        DataError: a field does not have the form above.
    """

    image: PIL.Image.Image = field(repr=False)
    question: str
    text: str
    masks: tuple[Mask, ...]
    name: str = ""
    model: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _expect_type("image", self.image, PIL.Image.Image)
        if self.image.mode != "RGB":
            raise DataError(f"image: expected mode RGB, got {self.image.mode}")
        for name in ("question", "text", "name", "model"):
            _expect_type(name, getattr(self, name), str)
        self._check_masks()
        self._check_timings()

    def _check_masks(self) -> None:
        _expect_type("masks", self.masks, tuple)
        expected = [self.image.height, self.image.width]
        for index, mask in enumerate(self.masks):
            _expect_type(f"masks[{index}]", mask, Mask)
            if list(mask.mask.shape) != expected:
                actual = list(mask.mask.shape)
                raise DataError(f"masks[{index}]: expected the image's {expected}, got {actual}")

    def _check_timings(self) -> None:
        _expect_type("timings", self.timings, Mapping)
        for step, seconds in self.timings.items():
            if not (_is_number(seconds) and 0.0 <= seconds < math.inf):
                raise DataError(f"timings[{step!r}]: expected seconds >= 0, got {seconds!r}")
        timings = {str(step): float(seconds) for step, seconds in self.timings.items()}
        object.__setattr__(self, "timings", MappingProxyType(timings))

    @property
    def mask(self) -> np.ndarray:
        """bool [H, W]: everything the answer points at; all False when it points at nothing."""
        union = np.zeros((self.image.height, self.image.width), dtype=bool)
        for mask in self.masks:
            union |= mask.mask
        return union

    def overlay(self) -> PIL.Image.Image:
        """The picture (RGB, original size) with each mask tinted, outlined and named.

        Colours can be told apart with any colour vision. Each phrase stands beside its mask, in a
        box that never leaves the picture; one too long for the picture is cut, and a picture too
        small for legible letters gets none. Letters beyond English need a font that has them to
        be installed; otherwise they show as empty boxes.
        """
        pixels = np.array(self.image)
        largest_first = sorted(range(len(self.masks)), key=lambda index: -self.masks[index].area)
        for index in largest_first:  # so that a small thing on a large one stays visible
            _draw_mask(pixels, self.masks[index].mask, _colour(index))
        picture = PIL.Image.fromarray(pixels)
        _draw_labels(picture, self.masks, self.mask)
        return picture

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the result in the format that the end of the file name asks for.

        ============================ ========================================================
        `photo.png`                  the picture with masks and phrases, see `overlay`
        `photo.mask.png`             all masks in one: 8-bit grey, 255 on the things, 0 elsewhere
        `photo.json`                 everything but the pixels of the picture, see `to_dict`
        `photo.coco.json`            see `to_coco` (run lengths)
        `photo.labelme.json`         see `to_labelme`
        `photo.geojson`              see `to_geojson`
        ============================ ========================================================

        The three `json` formats and `geojson` keep the masks apart. Case does not matter, and a
        bare `mask.png` counts as `.mask.png`. Returns the path written.

        Raises:
            OutputError: another ending, or the file cannot be written; nothing is left behind.
        """
        target = Path(path)
        for suffix, encode in _ENCODERS.items():
            if f".{target.name}".lower().endswith(suffix):
                write_atomically(target, encode(self))
                return target
        raise OutputError(
            f"cannot write '{path}': expected a name that ends in one of {', '.join(_ENCODERS)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything but the picture's pixels, ready for JSON. Masks are lossless run lengths."""
        return {
            "image": self.name,
            "question": self.question,
            "answer": self.text,
            "model": self.model,
            "masks": [
                {
                    "rle": mask.rle,
                    "phrase": mask.phrase,
                    "score": mask.score,
                    "area": mask.area,
                    "bbox": list(mask.bbox),
                }
                for mask in self.masks
            ],
            "timings": dict(self.timings),
        }

    def to_coco(self, *, polygons: bool = False) -> dict[str, Any]:
        """A COCO instances data set of this one picture, as `pycocotools.coco.COCO` reads it.

        Args:
            polygons: give outlines along the pixels' edges instead of run lengths. Run lengths
                hold every mask exactly. Polygons hold several components, but COCO has no way to
                say that a ring is a hole: **holes are filled** when they are read back. `area`
                stays that of the mask.

        The phrases become the categories; a mask without one is an "object". Empty masks are left
        out. Question and answer are under "info". Format: https://cocodataset.org/#format-data
        """
        categories = {name: index for index, name in enumerate(self._names(), start=1)}
        annotations = [
            {
                "id": index,
                "image_id": 1,
                "category_id": categories[mask.phrase or UNNAMED],
                "segmentation": _coco_polygons(mask.mask) if polygons else mask.rle,
                "area": mask.area,
                "bbox": list(mask.bbox),
                "iscrowd": 0,
                "score": mask.score,
            }
            for index, mask in enumerate(self._present(), start=1)
        ]
        width, height = self.image.size
        return {
            "info": {"question": self.question, "answer": self.text, "model": self.model},
            "licenses": [],
            "images": [{"id": 1, "file_name": self.name, "width": width, "height": height}],
            "annotations": annotations,
            "categories": [
                {"id": index, "name": name, "supercategory": ""}
                for name, index in categories.items()
            ],
        }

    def to_labelme(self) -> dict[str, Any]:
        """A labelme 5 file: one shape of type "mask" for each mask.

        labelme's polygons can hold neither holes nor several components; its "mask" shapes (a
        0/1 picture of the bounding box, and the box's first and last pixel) hold every mask
        exactly. The picture travels inside the file, as labelme itself writes it, so the file
        opens wherever it lies. Empty masks are left out. Needs labelme 5.3 or newer.
        """
        width, height = self.image.size
        return {
            "version": LABELME_VERSION,
            "flags": {},
            "shapes": [_labelme_shape(mask, self.question) for mask in self._present()],
            "imagePath": self.name,
            "imageData": _base64(self.image, "JPEG" if _is_jpeg(self.name) else "PNG"),
            "imageHeight": height,
            "imageWidth": width,
        }

    def to_geojson(self) -> dict[str, Any]:
        """A GeoJSON FeatureCollection: a Polygon or MultiPolygon for each mask, holes included.

        The outlines follow the pixels' edges, so that filling them gives back every mask exactly.
        Coordinates are pixels from the picture's upper left corner, x to the right and y down,
        and not longitude and latitude. The right-hand rule of RFC 7946, section 3.1.6, holds for
        these numbers: the signed area is positive for exterior rings and negative for holes.
        Empty masks are left out. Question and answer are members of the collection.
        """
        return {
            "type": "FeatureCollection",
            "image": self.name,
            "question": self.question,
            "answer": self.text,
            "features": [_geojson_feature(mask) for mask in self._present()],
        }

    def to_supervision(self) -> "supervision.Detections":
        """`supervision.Detections` with masks [N, H, W], boxes, scores and class names.

        Class ids number the phrases in order of appearance, from 0.

        Raises:
            LisaError: the package `supervision` is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise LisaError(
                "to_supervision needs the package 'supervision'; "
                "install it with: pip install 'lisa-seg[supervision]'"
            ) from error
        masks, names = self._present(), self._names()
        phrases = [mask.phrase or UNNAMED for mask in masks]
        boxes = np.array([mask.bbox for mask in masks], dtype=np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]  # x, y, width, height -> x1, y1, x2, y2
        size = (self.image.height, self.image.width)
        return supervision.Detections(
            xyxy=boxes,
            mask=np.array([mask.mask for mask in masks], dtype=bool).reshape(-1, *size),
            confidence=np.array([mask.score for mask in masks], dtype=np.float32),
            class_id=np.array([names.index(phrase) for phrase in phrases], dtype=int),
            data={"class_name": np.array(phrases, dtype=str)},
        )

    def _present(self) -> list[Mask]:
        """The masks that cover at least one pixel: those an annotation can describe."""
        return [mask for mask in self.masks if mask.area]

    def _names(self) -> list[str]:
        """The different phrases of the present masks, in order of appearance."""
        return list(dict.fromkeys(mask.phrase or UNNAMED for mask in self._present()))


# Checks


def _expect_type(field_name: str, value: object, expected: type) -> None:
    if not isinstance(value, expected):
        actual = type(value).__name__
        raise DataError(f"{field_name}: expected {expected.__name__}, got {actual}")


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


# Files


def _json_bytes(content: dict[str, Any]) -> bytes:
    """UTF-8; half characters, which a file name may hold, become JSON escapes."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=2) + "\n"
    return text.encode("utf-8", "backslashreplace")


def _image_bytes(image: PIL.Image.Image, format_name: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_name, quality=95)  # quality: of JPEG; PNG is lossless and ignores it
    return stream.getvalue()


def _base64(image: PIL.Image.Image, format_name: str) -> str:
    return base64.b64encode(_image_bytes(image, format_name)).decode("ascii")


def _grey(mask: np.ndarray, value: int) -> PIL.Image.Image:
    """bool [H, W] -> 8-bit grey with `value` on the mask and 0 elsewhere."""
    return PIL.Image.fromarray(mask.astype(np.uint8) * np.uint8(value))


def _is_jpeg(name: str) -> bool:
    return name.lower().endswith((".jpg", ".jpeg"))


# Longer endings first: the first that fits is taken.
_ENCODERS: Mapping[str, Callable[[Result], bytes]] = {
    ".mask.png": lambda result: _image_bytes(_grey(result.mask, 255), "PNG"),
    ".png": lambda result: _image_bytes(result.overlay(), "PNG"),
    ".geojson": lambda result: _json_bytes(result.to_geojson()),
    ".labelme.json": lambda result: _json_bytes(result.to_labelme()),
    ".coco.json": lambda result: _json_bytes(result.to_coco()),
    ".json": lambda result: _json_bytes(result.to_dict()),
}


# Outlines


def _rings(mask: np.ndarray) -> list[list[np.ndarray]]:
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


def _coco_polygons(mask: np.ndarray) -> list[list[int]]:
    """The exterior rings as [x1, y1, x2, y2, ...]."""
    return [exterior.ravel().tolist() for exterior, *_ in _rings(mask)]


def _geojson_feature(mask: Mask) -> dict[str, Any]:
    components = [
        [[*ring.tolist(), ring[0].tolist()] for ring in component]
        for component in _rings(mask.mask)
    ]
    several = len(components) > 1
    x, y, width, height = mask.bbox
    return {
        "type": "Feature",
        "bbox": [x, y, x + width, y + height],
        "geometry": {
            "type": "MultiPolygon" if several else "Polygon",
            "coordinates": components if several else components[0],
        },
        "properties": {"phrase": mask.phrase, "score": mask.score, "area": mask.area},
    }


def _labelme_shape(mask: Mask, question: str) -> dict[str, Any]:
    x, y, width, height = mask.bbox
    return {
        "label": mask.phrase or UNNAMED,
        "points": [[x, y], [x + width - 1, y + height - 1]],
        "group_id": None,
        "description": question,
        "shape_type": "mask",
        "flags": {},
        "mask": _base64(_grey(mask.mask[y : y + height, x : x + width], 1), "PNG"),
        "score": mask.score,
    }


# Drawing


def _colour(index: int) -> Colour:
    return _COLOURS[index % len(_COLOURS)]


def _scale(width: int, height: int) -> float:
    """A length in pixels that line widths and letters are proportional to."""
    return min(math.sqrt(width * height), 3.0 * min(width, height))


def _draw_mask(pixels: np.ndarray, mask: np.ndarray, colour: Colour) -> None:
    """Tint the mask and draw its outline, in a white casing, into uint8 [H, W, 3]."""
    for channel, value in zip(np.moveaxis(pixels, 2, 0), colour, strict=True):
        tinted = np.rint(np.arange(256) * (1.0 - _TINT) + value * _TINT).astype(np.uint8)
        channel[mask] = tinted[channel[mask]]
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    height, width = mask.shape
    line = max(1, round(_scale(width, height) / 260 + 0.5))
    casing = round(line / 3)  # on either side; too much for a line of one pixel
    cv2.drawContours(pixels, contours, -1, _WHITE, line + 2 * casing, cv2.LINE_AA)
    cv2.drawContours(pixels, contours, -1, colour, line, cv2.LINE_AA)


def _draw_labels(picture: PIL.Image.Image, masks: tuple[Mask, ...], covered: np.ndarray) -> None:
    """Write the phrases; `covered` is bool [H, W], the union of the masks."""
    taken: list[Box] = []
    for index, mask in enumerate(masks):
        label = _label(mask.phrase, _colour(index), picture.size) if mask.area else None
        if label is None:
            continue
        box = _place(label.size, mask.bbox, covered, taken)
        picture.paste(label, box[:2], label)
        taken.append(box)


def _label(phrase: str, colour: Colour, picture_size: tuple[int, int]) -> PIL.Image.Image | None:
    """The phrase in a rounded box, RGBA; None when it has no room or there is no phrase."""
    width, height = picture_size
    font_size = max(_SMALLEST_FONT, round(_scale(width, height) / 32))
    padding, box_height = font_size // 2, round(1.6 * font_size)
    font = _font(phrase, font_size * _SUPERSAMPLING)
    room = width - 2 * padding - 2 * _gap(box_height)
    text = _shorten(phrase, font, room * _SUPERSAMPLING)
    if not text or 4 * box_height > height:
        return None
    size = (math.ceil(font.getlength(text) / _SUPERSAMPLING) + 2 * padding, box_height)
    large_width, large_height = (length * _SUPERSAMPLING for length in size)
    label = PIL.Image.new("RGBA", (large_width, large_height), (*colour, 0))
    draw = PIL.ImageDraw.Draw(label)
    corners = (0, 0, large_width - 1, large_height - 1)
    draw.rounded_rectangle(corners, large_height // 4, colour)
    draw.text((large_width / 2, large_height / 2), text, _ink(colour), font, anchor="mm")
    return label.resize(size, PIL.Image.Resampling.BOX)


def _ink(colour: Colour) -> Colour:
    """Black or white, whichever has more contrast (WCAG 2.2, relative luminance) on the colour."""
    linear = [((channel / 255 + 0.055) / 1.055) ** 2.4 for channel in colour]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return _BLACK if luminance > 0.18 else _WHITE


def _font(text: str, size: int) -> Font:
    """Pillow's own font, or the first installed one that has every letter Pillow's lacks."""
    built_in = PIL.ImageFont.load_default(size)
    if text.isascii():
        return built_in
    for name in _INSTALLED_FONTS:
        try:
            font = PIL.ImageFont.truetype(name, size)
        except OSError:
            continue
        if _has_letters(font, text):
            return font
    return built_in


def _has_letters(font: PIL.ImageFont.FreeTypeFont, text: str) -> bool:
    """Whether each letter looks different from the sign that stands for a missing letter."""
    missing = bytes(font.getmask(_NO_LETTER))
    return all(bytes(font.getmask(letter)) != missing for letter in set(text) if letter.strip())


def _shorten(phrase: str, font: Font, room: float) -> str:
    """The phrase on one line, cut with an ellipsis to `room` pixels; "" when nothing fits."""
    text = " ".join(phrase.encode("utf-8", "replace").decode("utf-8").split())
    if font.getlength(text) <= room:
        return text
    for end in range(min(len(text), _LONGEST_LABEL), 0, -1):
        shorter = text[:end].rstrip() + "..."
        if font.getlength(shorter) <= room:
            return shorter
    return ""


def _gap(label_height: int) -> int:
    """Pixels between a label and its thing, and between a label and the picture's edge."""
    return label_height // 4


def _place(size: tuple[int, int], thing: Box, covered: np.ndarray, taken: list[Box]) -> Box:
    """Where a label goes: beside its thing, inside the picture, off other labels and masks.

    Of the places above, below, right of, left of and on the thing, the first that hides least.
    """
    width, height = size
    x, y, thing_width, thing_height = thing
    gap = _gap(height)
    centre_x, centre_y = x + (thing_width - width) // 2, y + (thing_height - height) // 2
    corners = [
        (centre_x, y - height - gap),
        (centre_x, y + thing_height + gap),
        (x + thing_width + gap, centre_y),
        (x - width - gap, centre_y),
        (centre_x, centre_y),
    ]
    rows, columns = covered.shape
    right_most, lowest = columns - width - gap, rows - height - gap
    places = [
        (min(max(left, gap), right_most), min(max(top, gap), lowest), width, height)
        for left, top in corners
    ]
    return min(places, key=lambda box: (_hidden_labels(box, taken), _hidden_pixels(box, covered)))


def _hidden_labels(box: Box, taken: list[Box]) -> int:
    """Pixels of other labels under the box."""
    x, y, width, height = box
    hidden = 0
    for other_x, other_y, other_width, other_height in taken:
        overlap_x = min(x + width, other_x + other_width) - max(x, other_x)
        overlap_y = min(y + height, other_y + other_height) - max(y, other_y)
        hidden += max(0, overlap_x) * max(0, overlap_y)
    return hidden


def _hidden_pixels(box: Box, covered: np.ndarray) -> int:
    """Pixels of masks under the box."""
    x, y, width, height = box
    return int(np.count_nonzero(covered[y : y + height, x : x + width]))
