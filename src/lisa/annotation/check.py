"""What lies in a folder of data, whether it is whole, and whether its splits are apart.

All records are read, and every example once. This file knows what may be wrong with data; it
refuses to know formats, which are the loaders', and how findings are printed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from lisa.annotation.near_duplicates import Fingerprints, shared
from lisa.data.datasets import DATASETS
from lisa.data.image_dataset import ImageDataset
from lisa.errors import DataError, LisaError
from lisa.example import Example

TRAINING = "train"  # how the names of splits begin that are trained on

Follow = Callable[[Sequence[int], str], Iterable[int]]  # a progress bar, or nothing


@dataclass
class SplitReport:
    """What one split of one data set holds.

    Attributes:
        name, split: as they are opened.
        pictures, questions: how many.
        masks: of the examples read, all together.
        absent: questions whose target is not in the picture.
        unreadable: examples that were left out of these counts.
        problems: what is wrong, one line each.
    """

    name: str
    split: str | None
    pictures: int = 0
    questions: int = 0
    masks: int = 0
    absent: int = 0
    unreadable: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """NAME/SPLIT, as evaluation calls it."""
        return self.name if self.split is None else f"{self.name}/{self.split}"


@dataclass(frozen=True)
class Leak:
    """Pictures that are trained on in one split and measured on in another.

    Attributes:
        trained, measured: labels of the two splits.
        pairs: the files, nearly equal pictures side by side.
    """

    trained: str
    measured: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Report:
    """Everything that was found under a folder."""

    root: str
    splits: tuple[SplitReport, ...]
    leaks: tuple[Leak, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @property
    def wrong(self) -> int:
        """How many problems and leaking pictures there are."""
        problems = sum(len(split.problems) for split in self.splits)
        return problems + sum(len(leak.pairs) for leak in self.leaks)


def in_order(items: Sequence[int], label: str) -> Iterable[int]:
    """Follows nothing: the items as they are."""
    return items


def check_data(
    root: Path, *, sheet: int = 0, limit: int | None = None, follow: Follow = in_order
) -> tuple[Report, list[Example]]:
    """Read everything that is recognised under a folder.

    Args:
        root: a data set, or the folder that holds several in the paper's layout.
        sheet: about so many examples are returned beside the report, from all splits.
        limit: read at most so many examples of a split, evenly spread; records are all read.
        follow: is shown the numbers of the examples and the split's label; for a progress bar.

    Raises:
        DataError: nothing is recognised.
    """
    found = recognised(root)
    opened = [_open(root, name, split) for name, split in found]
    examples: list[Example] = []
    for report, dataset in opened:
        numbers = _spread(len(dataset), limit)
        of_sheet = set(_spread(len(numbers), -(-sheet // len(opened))))
        for place, number in enumerate(follow(numbers, report.label)):
            example = _read(dataset, number, report)
            if example is not None and place in of_sheet:
                examples.append(example)
    return Report(str(root), tuple(report for report, _ in opened), tuple(_leaks(opened))), examples


def recognised(root: Path) -> list[tuple[str, str | None]]:
    """Name and split of what a folder holds, by its layout.

    Raises:
        DataError: there is no such folder, or no layout fits.
    """
    if not root.is_dir():
        raise DataError(f"cannot check '{root}': no such folder")
    found = [(name, split) for name, kind in DATASETS.items() for split in kind.find(root)]
    if not found:
        raise DataError(f"no data set in '{root}'; expected the layout of {', '.join(DATASETS)}")
    return found


# ------------------------------------------------------------------ reading


def _open(root: Path, name: str, split: str | None) -> tuple[SplitReport, Sequence[Example]]:
    report = SplitReport(name, split)
    try:
        dataset = DATASETS[name].open(root, split, skip_bad=True)
    except LisaError as error:
        report.problems.append(str(error))
        return report, ()
    if isinstance(dataset, ImageDataset):
        report.problems += dataset.skipped
        report.pictures = len(set(dataset.photos))
    report.questions = len(dataset)
    return report, dataset


def _spread(count: int, most: int | None) -> list[int]:
    """At most so many numbers below ``count``, evenly spread."""
    if most is None or count <= most:
        return list(range(count))
    return [place * count // most for place in range(most)]


def _read(dataset: Sequence[Example], number: int, report: SplitReport) -> Example | None:
    """An example, counted; None where it cannot be read."""
    try:
        example = dataset[number]
    except LisaError as error:
        report.unreadable += 1
        if str(error) not in report.problems:
            report.problems.append(str(error))
        return None
    if example.masks is not None:
        report.masks += len(example.masks)
        report.absent += bool(len(example.masks) == 0 and DATASETS[report.name].family != "vqa")
    return example


def _leaks(opened: Sequence[tuple[SplitReport, Sequence[Example]]]) -> list[Leak]:
    """What splits for training share with others."""
    sets = [(report, one) for report, one in opened if isinstance(one, ImageDataset)]
    trained = [(report, one) for report, one in sets if is_trained(report.split)]
    measured = [(report, one) for report, one in sets if not is_trained(report.split)]
    marks = Fingerprints()
    leaks = []
    for (report, one), (other_report, other) in product(trained, measured):
        if pairs := shared(one.photos, other.photos, marks):
            found = tuple((str(copy), str(path)) for copy, path in pairs)
            leaks.append(Leak(report.label, other_report.label, found))
    return leaks


def is_trained(split: str | None) -> bool:
    """Whether a split is one to train on, by its name; a data set without splits is."""
    return split is None or split.startswith(TRAINING)
