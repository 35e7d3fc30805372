"""The parts that HTML pages share: style sheets, images inside the page, a curve with a caption.

This file knows HTML; it refuses to know what a page is about.
"""

from __future__ import annotations

from collections.abc import Sequence

import PIL.Image
from PIL import Image

from lisa.draw.plots import polyline
from lisa.image import base64_image

SIDE = 440  # pixels, at most, of a picture's longer side
STYLE = """
body { font: 15px/1.45 sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em }
pre { overflow-x: auto; background: #f5f5f5; padding: 1em }
figure { margin: 0 0 2.5em } figcaption { margin-bottom: .4em }
img { max-width: 49%; vertical-align: top }
.contaminated { background: #d55e00; color: white; padding: .6em 1em; font-weight: bold }
"""

PAGE_STYLE = (
    "<style>body{font:15px sans-serif;max-width:1240px;margin:2em auto}img{max-width:100%}</style>"
)


def as_data_url(picture: Image.Image) -> str:
    """A picture inside a page."""
    return f"data:image/png;base64,{base64_image(picture, 'PNG')}"


def curve(caption: str, points: Sequence[tuple[float, float]]) -> str:
    """A line through points, and what it is, as HTML."""
    return f"<figure><figcaption>{caption}</figcaption>{polyline(points)}</figure>"


def embedded(picture: PIL.Image.Image) -> str:
    """A picture as a part of the page."""
    picture.thumbnail((SIDE, SIDE))
    return f'<img alt="" src="data:image/jpeg;base64,{base64_image(picture, "JPEG")}">'
