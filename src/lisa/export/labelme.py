"""Masks as labelme 5 shapes of type "mask", which hold holes and several components exactly.

This file knows one mask and its shape; it refuses to know the document around them.
"""

from __future__ import annotations

from typing import Any

from lisa.image import base64_image
from lisa.masks import UNNAMED, Mask, grey

LABELME_VERSION = "5.5.0"


def labelme_shape(mask: Mask, question: str) -> dict[str, Any]:
    x, y, width, height = mask.bbox
    return {
        "label": mask.phrase or UNNAMED,
        "points": [[x, y], [x + width - 1, y + height - 1]],
        "group_id": None,
        "description": question,
        "shape_type": "mask",
        "flags": {},
        "mask": base64_image(grey(mask.mask[y : y + height, x : x + width], 1), "PNG"),
        "score": mask.score,
    }


def is_jpeg(name: str) -> bool:
    return name.lower().endswith((".jpg", ".jpeg"))
