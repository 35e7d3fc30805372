"""A folder of masks: one picture file of masks for each photograph, or a folder for each class.

    images/A.jpg   masks/A.png          the value of a pixel is a class: 1, 2, …; 0 is nothing
    images/A.jpg   masks/CLASS/A.png    what is not 0 is of the class

Names of the values stand in ``classes.txt`` (a name a line; the first is the value 1, or 0 if it is
"background") or in ``names.json`` ({"1": "cup"}). With one name, given by the person, what is not 0
is of that name. Otherwise 255 is where no score is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image

from lisa.annotation.formats.source import Source, pictures_in, read_text
from lisa.data.annotated import (
    MarkedPicture,
    RunLengths,
    Thing,
    packed,
    plain_words,
)
from lisa.data.records import BadRecords, read_json
from lisa.errors import DataError
from lisa.image import upright_size

IGNORE = 255
BACKGROUNDS = ("background", "_background_", "__background__")
ENDINGS = ("", "_mask", "-mask", ".mask")
DEEP = ("I", "I;16", "I;16B", "L", "P", "1")  # modes of Pillow with one value a pixel


def recognise(source: Source) -> bool:
    """Whether there are a folder of pictures and one of masks."""
    return (source.path / "images").is_dir() and (source.path / "masks").is_dir()


def read(source: Source, bad: BadRecords) -> Iterator[MarkedPicture]:
    """The pictures that have a mask; a picture without any is an error."""
    folder = source.path / "masks"
    if not recognise(source):
        raise DataError(f"'{source.path}' lacks images/ or masks/; expected both")
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    values = {} if classes or source.name else read_values(source.path)
    for image in pictures_in(source.images or source.path / "images"):
        made = None
        with bad.of(f"'{image}'"):
            if classes:
                made = by_folder(image, classes)
            else:
                made = by_value(image, folder, values, source.name)
        if made:
            yield made


def read_values(root: Path) -> dict[int, str]:
    """Names by value."""
    if (root / "names.json").is_file():
        content = read_json(root / "names.json")
        try:
            return {int(value): plain_words(str(name)) for value, name in content.items()}
        except (AttributeError, ValueError) as error:
            raise DataError(f"'{root / 'names.json'}' is not {{value: name}} ({error})") from error
    path = root / "classes.txt"
    if not path.is_file():
        raise DataError(
            f"no names for the values in '{root / 'masks'}'; expected classes.txt, names.json, "
            "a folder for each class, or --name NAME"
        )
    lines = [line.strip() for line in read_text(path).splitlines()]
    lines = [line for line in lines if line]
    first = 0 if lines and lines[0].lower() in BACKGROUNDS else 1
    return {value: plain_words(line) for value, line in enumerate(lines, start=first) if value > 0}


def by_folder(image: Path, classes: list[Path]) -> MarkedPicture:
    """A picture whose masks lie in a folder for each class; a class without a file is absent."""
    width, height = upright_size(image)
    things = []
    for folder in classes:
        path = mask_of(image, folder)
        if path is not None:
            shown = read_mask(path, height, width) > 0
            if shown.any():
                things.append(Thing(plain_words(folder.name), packed(shown)))
    return marked(image, height, width, things)


def by_value(image: Path, folder: Path, values: dict[int, str], name: str | None) -> MarkedPicture:
    """A picture whose mask tells the class by its values."""
    width, height = upright_size(image)
    path = mask_of(image, folder)
    if path is None:
        raise DataError(f"there is no mask of it in '{folder}'; expected {image.stem}.png")
    mask = read_mask(path, height, width)
    if name is not None:
        things = [Thing(plain_words(name), packed(mask > 0))] if mask.any() else []
        return marked(image, height, width, things)
    found = [int(value) for value in np.unique(mask) if value]
    unknown = [value for value in found if value not in values and value != IGNORE]
    if unknown:
        raise DataError(f"value {unknown[0]} of '{path}' has no name; expected {sorted(values)}")
    things = [Thing(values[value], packed(mask == value)) for value in found if value in values]
    ignored = IGNORE in found and IGNORE not in values
    return marked(image, height, width, things, packed(mask == IGNORE) if ignored else None)


def marked(
    image: Path, height: int, width: int, things: list[Thing], ignore: RunLengths | None = None
) -> MarkedPicture:
    return MarkedPicture(
        image,
        image.name,
        height,
        width,
        tuple(things),
        ignore=ignore,
        complete=ignore is None,
        instances=False,
    )


def mask_of(image: Path, folder: Path) -> Path | None:
    """The mask's file: named like its picture, with or without "_mask"."""
    named = (folder / f"{image.stem}{ending}.png" for ending in ENDINGS)
    return next((path for path in named if path.is_file()), None)


def read_mask(path: Path, height: int, width: int) -> np.ndarray:
    """Whole numbers [H, W]."""
    try:
        with PIL.Image.open(path) as picture:
            mode, mask = picture.mode, np.asarray(picture)
    except OSError as error:
        raise DataError(f"cannot read mask '{path}' ({error}); expected a PNG") from error
    if mode not in DEEP:
        raise DataError(f"mask '{path}' has mode {mode}; expected one channel: grey or a palette")
    if mask.shape != (height, width):
        raise DataError(
            f"mask '{path}' is {list(mask.shape)}, its picture {[height, width]}; "
            "expected the same height and width"
        )
    return mask.astype(np.int64)
