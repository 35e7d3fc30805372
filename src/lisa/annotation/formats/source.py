"""Where annotations come from, and what the readers of all formats share.

This file knows paths; it refuses to know any one format.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lisa.data.records import read_json
from lisa.errors import DataError

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".jp2")
SPLITS = {  # what tools call them -> what we call them
    "train": "train",
    "training": "train",
    "valid": "val",
    "validation": "val",
    "val": "val",
    "test": "test",
}


@dataclass(frozen=True)
class Source:
    """What a person wants to read.

    Attributes:
        path: a file or a folder.
        images: where the pictures are, if the annotations do not tell.
        name: what the masks show, if their files do not tell.
    """

    path: Path
    images: Path | None = None
    name: str | None = None


def load_or_none(path: Path) -> Any:
    """The content of a JSON file; None where there is none: for guessing what a file is."""
    try:
        return read_json(path)
    except DataError:
        return None


def read_text(path: Path) -> str:
    """The content of a text file.

    Raises:
        DataError: it cannot be read, or is not in UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read '{path}' ({error}); expected text in UTF-8") from error


def find_picture(name: str, folders: Iterable[Path | None]) -> Path:
    """The file of that name, or of its last part, in the first of the folders that has one.

    Raises:
        DataError: none has it.
    """
    relative = Path(name.replace("\\", "/"))
    places = [folder for folder in folders if folder is not None]
    for part in (relative, Path(relative.name)):
        for folder in places:
            if (folder / part).is_file():
                return folder / part
    looked = ", ".join(f"'{folder}'" for folder in dict.fromkeys(places))
    raise DataError(f"there is no picture '{name}'; looked in {looked}")


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder, by name."""
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in PICTURES)
