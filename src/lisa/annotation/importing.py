"""From annotations of any known format to an own-data folder, whole or not at all.

Pictures are hard-linked where the file system allows it, else copied. Nearly equal pictures never
lie on both sides of a split. This file knows the order of the work; the formats and the folder
stand in their own files.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from lisa.annotation.formats.source import Source
from lisa.annotation.formats.table import FORMATS, format_of
from lisa.annotation.near_duplicates import fingerprint, groups_of, stamp
from lisa.data.annotated import MarkedPicture
from lisa.data.own import FORMAT, SETTINGS, SPLITS, VERSION, record_of
from lisa.data.records import BadRecords
from lisa.errors import DataError, OutputError
from lisa.files import json_bytes
from lisa.image import load_image

FEWEST = 2  # pictures that can be split


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        out: the folder.
        format: of the source.
        recognised: the format was told by the files and not by the person.
        names: of the things, sorted.
        pictures: how many are in each split.
        things: how many are marked.
        questions: how many are written.
        alike: pictures that are nearly equal to an earlier one, and lie in its split.
        skipped: a message for each record that was left out.
    """

    out: Path
    format: str
    recognised: bool
    names: list[str]
    pictures: dict[str, int]
    things: int
    questions: int
    alike: int
    skipped: list[str]

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON can hold it."""
        return {**asdict(self), "out": str(self.out)}


def import_data(
    source: Source,
    out: Path,
    format_name: str | None = None,
    share: float = 0.8,
    seed: int = 0,
    skip_bad: bool = False,
) -> Imported:
    """Read annotations and write them as own data to ``out``, which must not exist yet.

    Args:
        source: what to read.
        out: the folder; it appears when everything is in it.
        format_name: one of ``FORMATS``; None: as its files look.
        share: of the pictures that are trained on, in [0, 1]; the others are "val". Pictures whose
            source puts them in a split stay there.
        seed: decides which.
        skip_bad: leave out records that cannot be read, instead of stopping at the first.

    Raises:
        DataError: the source is not in a known format, a record is malformed, or nothing is left.
        OutputError: ``out`` exists or cannot be written.
    """
    if not 0 <= share <= 1:
        raise DataError(f"the share of training is {share}; expected 0 to 1")
    name = format_of(source, format_name)
    with new_folder(out) as folder:
        bad = BadRecords(skip_bad)
        kept, prints, stamps = [], [], []
        for picture in FORMATS[name].read(source, bad):
            with bad.of(f"'{picture.name}'"):
                taken, image = take(picture, folder)
                kept.append(taken)
                prints.append(fingerprint(image))
                stamps.append(stamp(image))
        if not kept:
            raise DataError(f"no picture of '{source.path}' can be used; expected at least one")
        groups = groups_of(prints, stamps)
        splits = divide(kept, groups, share, np.random.default_rng(seed))
        imported = Imported(
            out=out,
            format=name,
            recognised=format_name is None,
            names=sorted({thing.name for picture in kept for thing in picture.things}),
            pictures={split: len(places) for split, places in splits.items()},
            things=sum(len(picture.things) for picture in kept),
            questions=sum(len(picture.written) for picture in kept),
            alike=len(kept) - len(groups),
            skipped=bad.messages,
        )
        write_records(folder, kept, splits, imported)
    return imported


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which takes the name ``out`` at the end, or vanishes after an error."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"'{out}' is there already; expected a new folder")
    place = Path(os.path.abspath(out))
    folder = place.with_name(f".{place.name}-{uuid.uuid4().hex}.part")
    try:
        (folder / "images").mkdir(parents=True)
        yield folder
        if out.exists():
            out.rmdir()
        folder.rename(place)
    except OSError as error:
        raise OutputError(
            f"cannot write '{out}': {error.strerror or error}; expected a writable folder"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def take(picture: MarkedPicture, folder: Path) -> tuple[MarkedPicture, Image]:
    """Put the picture's file into ``folder/images``; the picture there, and what it shows."""
    image = load_image(picture.image)
    if image.size != (picture.width, picture.height):
        raise DataError(f"its size is {image.size} and was {(picture.width, picture.height)}")
    target = free_name(folder / "images", picture.name)
    if isinstance(picture.image, bytes):
        target.write_bytes(picture.image)
    else:
        link(picture.image, target)
    return replace(picture, image=target, name=target.name), image


def free_name(folder: Path, name: str) -> Path:
    """A path in the folder that is not taken, with a name that every file system takes."""
    plain = re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", name).strip(". ") or "picture"
    stem, suffix = Path(plain).stem, Path(plain).suffix
    path, number = folder / plain, 2
    while path.exists():
        path, number = folder / f"{stem}-{number}{suffix}", number + 1
    return path


def link(source: Path, target: Path) -> None:
    """A second name for the file; a copy where there cannot be one."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copyfile(source, target)


def divide(
    pictures: Sequence[MarkedPicture],
    groups: Sequence[Sequence[int]],
    share: float,
    random: np.random.Generator,
) -> dict[str, list[int]]:
    """The places of the pictures of each split; a group stays together.

    A group with a picture that its source puts in a split goes there, to the first of ``SPLITS``
    where there are several. Of the others about ``share`` are "train"; of at least two groups
    neither split is left empty, unless the share is 0 or 1.
    """
    splits: dict[str, list[int]] = {}
    open_groups = []
    for group in groups:
        told = {pictures[place].split for place in group} - {None}
        if told:
            chosen = next(split for split in SPLITS if split in told)
            splits.setdefault(chosen, []).extend(group)
        else:
            open_groups.append(group)
    order = [open_groups[int(place)] for place in random.permutation(len(open_groups))]
    for group, chosen in zip(order, shares([len(group) for group in order], share), strict=True):
        splits.setdefault(chosen, []).extend(group)
    return {split: sorted(splits[split]) for split in SPLITS if split in splits}


def shares(sizes: Sequence[int], share: float) -> list[str]:
    """The split of each group of so many pictures."""
    before = np.cumsum([0, *sizes])
    chosen = ["train" if n < round(share * before[-1]) else "val" for n in before[:-1]]
    if len(sizes) >= FEWEST and 0 < share < 1:
        chosen[0], chosen[-1] = "train", "val"
    return chosen


def write_records(
    folder: Path,
    pictures: Sequence[MarkedPicture],
    splits: Mapping[str, Sequence[int]],
    imported: Imported,
) -> None:
    """The files beside ``images/``."""
    for split, places in splits.items():
        records = [record_of(pictures[place], f"images/{pictures[place].name}") for place in places]
        lines = [json.dumps(record, ensure_ascii=False, allow_nan=False) for record in records]
        text = "".join(f"{line}\n" for line in lines)
        (folder / f"{split}.jsonl").write_bytes(text.encode("utf-8", "backslashreplace"))
    settings = {
        "format": FORMAT,
        "version": VERSION,
        "name": imported.out.resolve().name,
        "source": imported.format,
        "names": imported.names,
        "splits": imported.pictures,
    }
    (folder / SETTINGS).write_bytes(json_bytes(settings))
