"""Scores as text: a row for each figure, a column for each run.

This file knows how scores are laid out for a person; it refuses to know where they come from.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from lisa.evaluation.bootstrap import CONFIDENCE, Interval
from lisa.evaluation.metrics import GroupScores, SegmentationScores

NAME_WIDTH, COLUMN_WIDTH = 24, 30
DASH = "-"


def score_table(columns: Mapping[str, SegmentationScores]) -> str:
    """A table of the scores of the same questions, with 95 % intervals.

    Args:
        columns: heading and scores of each run; at least one.
    """
    runs = list(columns.values())
    tags = sorted({tag for run in runs for tag in run.by})
    lines = [
        _line(f"{CONFIDENCE:.0%} intervals", columns),
        _line("n", [str(run.n) for run in runs]),
        *_rows(runs, FIGURES),
        _line("ECE", [_figure(run.ECE) for run in runs]),
        _line("failures", [str(len(run.failures)) for run in runs]),
    ]
    if tags:
        lines += ["", "gIoU by group"]
    for tag in tags:
        groups = [run.by[tag] for run in runs if tag in run.by]
        cells = [with_interval(group.gIoU, group.intervals["gIoU"]) for group in groups]
        lines.append(_line(f"{tag} ({groups[0].n})", cells))
    return "\n".join(lines)


FIGURES = (
    "gIoU",
    "gIoU_present",
    "cIoU",
    "boundary_IoU",
    *(f"P@0.{tenths}" for tenths in range(5, 10)),
    "N_acc",
    "T_acc",
    "emission_rate",
    "naming_rate",
)


def figure(group: GroupScores, name: str) -> float | None:
    """A figure of a group by its name in ``FIGURES``."""
    return group.precision[name] if name in group.precision else getattr(group, name)


def with_interval(value: float | None, interval: Interval | None) -> str:
    """A figure as a person reads it."""
    if interval is None:
        return _figure(value)
    return f"{_figure(value)} ({interval[0]:.4f} to {interval[1]:.4f})"


def _rows(groups: Sequence[GroupScores], names: Sequence[str]) -> Iterator[str]:
    for name in names:
        yield _line(name, [with_interval(figure(g, name), g.intervals.get(name)) for g in groups])


def _line(name: str, cells: Iterable[str]) -> str:
    return f"{name:<{NAME_WIDTH}}{''.join(f'{cell:<{COLUMN_WIDTH}}' for cell in cells)}".rstrip()


def _figure(value: float | None) -> str:
    return DASH if value is None else f"{value:.4f}"
