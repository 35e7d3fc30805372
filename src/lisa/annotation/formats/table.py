"""The formats that can be read, by name; and which one a file or a folder has.

This file knows the table; what a format is stands in the format's own file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from lisa.annotation.formats import coco, jsonl, labelme, masks, yolo
from lisa.annotation.formats.source import Source
from lisa.data.annotated import MarkedPicture
from lisa.data.records import BadRecords
from lisa.errors import DataError


@dataclass(frozen=True)
class Format:
    """How to recognise and how to read one format."""

    recognise: Callable[[Source], bool]
    read: Callable[[Source, BadRecords], Iterator[MarkedPicture]]
    summary: str  # one line


FORMATS: Mapping[str, Format] = {  # the surest signs first
    "yolo-seg": Format(yolo.recognise, yolo.read, "data.yaml and labels/*.txt"),
    "masks": Format(masks.recognise, masks.read, "images/ and masks/"),
    "jsonl": Format(jsonl.recognise, jsonl.read, "a JSONL file with questions"),
    "coco": Format(coco.recognise, coco.read, "a COCO json"),
    "labelme": Format(labelme.recognise, labelme.read, "a labelme file for each picture"),
}


def format_of(source: Source, name: str | None = None) -> str:
    """The name of the format of a source.

    Raises:
        DataError: there is nothing at the path, ``name`` is unknown, or no format is recognised.
    """
    if not source.path.exists():
        raise DataError(f"there is nothing at '{source.path}'; expected a file or a folder")
    if name is not None:
        if name not in FORMATS:
            raise DataError(f"there is no format '{name}'; expected one of {', '.join(FORMATS)}")
        return name
    for known, form in FORMATS.items():
        if form.recognise(source):
            return known
    expected = ", ".join(form.summary for form in FORMATS.values())
    raise DataError(
        f"cannot tell the format of '{source.path}'; expected {expected}; --format names it"
    )
