"""Masks as GeoJSON: polygons along the pixels' edges, holes included (RFC 7946).

This file knows one mask and its feature; it refuses to know images and questions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lisa.masks import Mask, outlines


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


def geojson_feature(mask: Mask) -> dict[str, Any]:
    x, y, width, height = mask.bbox
    return {
        "type": "Feature",
        "bbox": [x, y, x + width, y + height],
        "geometry": geojson_geometry(mask.mask),
        "properties": {"phrase": mask.phrase, "score": mask.score, "area": mask.area},
    }
