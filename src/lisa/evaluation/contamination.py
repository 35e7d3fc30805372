"""Whether weights have seen what they are measured on, as far as their list of sources tells.

Training writes into ``config.json`` what the weights saw, as ``NAME/SPLIT``, or ``NAME`` for a data
set without splits. A figure on a split that was trained on is no benchmark figure. This file knows
such names; it refuses to know pictures: a copy of them under another name is not noticed here.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# The same sentences about the same pictures, divided in two ways: a photograph of the one's
# validation split is in the other's training split.
DIVISIONS = ("umd", "google")


@dataclass(frozen=True)
class Source:
    """A data set, and which part of it; None: all of it."""

    name: str
    split: str | None


def seen(
    trained_on: Sequence[str], dataset: str, split: str | None = None, root: Path | None = None
) -> str | None:
    """The entry of ``trained_on`` that holds what is to be measured; None: nothing says so.

    Args:
        trained_on: what the weights saw, ``NAME/SPLIT`` or ``NAME``.
        dataset: the name of the data set.
        split: its split; None: it has none, or the folder is the split.
        root: the folder, whose name may be a data set's or a split's, too.
    """
    asked = set(_asked(dataset, split, root))
    for entry in trained_on:
        if any(_holds(source, one) for source in _sources(entry) for one in asked):
            return entry
    return None


def _asked(dataset: str, split: str | None, root: Path | None) -> Iterator[Source]:
    """What a data set, a split and a folder may be called in a list of sources."""
    folder = root.resolve() if root is not None else None
    if split is not None or folder is None:
        yield Source(_plain(dataset), _lower(split))
        if folder is not None:
            yield Source(_plain(folder.name), _lower(split))
        return
    yield Source(_plain(dataset), folder.name.lower())
    yield Source(_plain(folder.parent.name), folder.name.lower())
    yield Source(_plain(folder.name), None)


def _sources(entry: str) -> Iterator[Source]:
    """``refcoco/train+val`` is two; ``ReasonSeg (train)``, as models before wrote it, is one."""
    name, _, splits = re.sub(r"\s*\((\w+)\)$", r"/\1", entry).partition("/")
    for split in re.split(r"[+,|]", splits):
        yield Source(_plain(name), _lower(split) or None)


def _holds(source: Source, asked: Source) -> bool:
    if source.name == asked.name:
        return None in (source.split, asked.split) or source.split == asked.split
    return _undivided(source.name) == _undivided(asked.name)


def _plain(name: str) -> str:
    """Case, spaces, ``-`` and ``_`` make no other name; ``-unc`` is the usual division."""
    return re.sub(r"[\s_-]", "", name.lower()).removesuffix("unc")


def _undivided(name: str) -> str:
    for division in DIVISIONS:
        name = name.removesuffix(division)
    return name


def _lower(split: str | None) -> str | None:
    return None if split is None else split.strip().lower()
