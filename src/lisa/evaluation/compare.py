"""Two evaluations of the same samples, compared in pairs.

Two intervals that overlap do not say that two runs are alike: what is hard for the one is mostly
hard for the other. Here the samples are redrawn together, and the interval is that of the
difference. This file reads what `lisa eval --per-sample` wrote; it knows no model and no picture.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lisa.errors import DataError
from lisa.evaluation.bootstrap import percentiles, resampled_sums
from lisa.evaluation.evaluate import BOTH
from lisa.evaluation.metrics import MEASURES, SampleScore, measured, ratios

EXPECTED = "expected a file that `lisa eval --json FILE --per-sample` wrote"
TIE = 1e-9  # IoUs that are closer than this are equal


@dataclass(frozen=True)
class Run:
    """One protocol of one evaluation, as its file has it."""

    model: str
    dataset: str
    protocol: str
    contaminated: str | None
    samples: tuple[SampleScore, ...]


@dataclass(frozen=True)
class PairedFigure:
    """A figure of two runs, and the first minus the second with its 95 % bootstrap interval."""

    first: float
    second: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Two runs over the same samples.

    Attributes:
        first, second: model, data set, protocol, and what is wrong with the figures.
        n: how many samples.
        figures: by the names of `lisa.evaluation.metrics.GroupScores`; what neither can have is
            left out.
        wins, ties, losses: samples on which the first has the higher, the same, the lower IoU.
        by: gIoU of the samples with each tag.
    """

    first: Mapping[str, str | None]
    second: Mapping[str, str | None]
    n: int
    figures: Mapping[str, PairedFigure]
    wins: int
    ties: int
    losses: int
    by: Mapping[str, PairedFigure]

    def to_dict(self) -> dict[str, Any]:
        """Everything, made of what JSON can hold."""
        return asdict(self)

    def __str__(self) -> str:
        rows = [(name, one) for name, one in self.figures.items()]
        rows += [(f"gIoU, {tag}", one) for tag, one in self.by.items()]
        return "\n".join(
            [
                f"first   {_said(self.first)}",
                f"second  {_said(self.second)}",
                "",
                f"{'':<20}{'first':>9}{'second':>9}{'first minus second, 95% interval':>38}",
                *(_row(name, one) for name, one in rows),
                "",
                f"of {self.n} samples the first is better on {self.wins}, "
                f"equal on {self.ties}, worse on {self.losses}",
            ]
        )


def compare_files(first: Path, second: Path) -> list[Comparison]:
    """Compare two files of `lisa eval --json FILE --per-sample`.

    Returns:
        One comparison for each protocol that both have; where each has only one, of these two.

    Raises:
        DataError: a file cannot be read, has no samples, or has other samples than the other one.
    """
    ours, theirs = read_runs(first), read_runs(second)
    both = [protocol for protocol in ours if protocol in theirs]
    if both:
        return [compare(ours[protocol], theirs[protocol]) for protocol in both]
    if len(ours) == len(theirs) == 1:
        return [compare(*ours.values(), *theirs.values())]
    raise DataError(
        f"'{first}' has {' and '.join(ours)}, '{second}' has {' and '.join(theirs)}; "
        "expected a protocol in common"
    )


def read_runs(path: Path) -> dict[str, Run]:
    """The runs of a file by protocol.

    Raises:
        DataError: it is not there, or is no evaluation with its samples.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        several = content["protocols"] if content["protocol"] == BOTH else None
        parts = list(several.values()) if several else [content]
        return {part["protocol"]: _run(part) for part in parts}
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}; {EXPECTED}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"'{path}' has no scores of samples; {EXPECTED}") from error


def compare(first: Run, second: Run) -> Comparison:
    """The first run minus the second.

    Raises:
        DataError: they are not about the same samples.
    """
    _check_samples(first, second)
    pairs = list(zip(first.samples, second.samples, strict=True))
    gains = np.array([ours.iou - theirs.iou for ours, theirs in pairs])
    tags = sorted({tag for sample in first.samples for tag in sample.tags})
    return Comparison(
        first=_about(first),
        second=_about(second),
        n=len(pairs),
        figures=paired_figures(pairs),
        wins=int((gains > TIE).sum()),
        ties=int((abs(gains) <= TIE).sum()),
        losses=int((gains < -TIE).sum()),
        by={tag: paired_figures([p for p in pairs if tag in p[0].tags])["gIoU"] for tag in tags},
    )


def paired_figures(
    pairs: Sequence[tuple[SampleScore, SampleScore]],
) -> dict[str, PairedFigure]:
    """Every figure of the first ones and of the second ones; at least one pair."""
    found: dict[str, PairedFigure] = {}
    for about, measures in MEASURES:
        some, kinds = [pair for pair in pairs if about(pair[0])], list(measures.values())
        if not some:
            continue
        columns = np.stack([measured(side, kinds) for side in zip(*some, strict=True)], axis=1)
        values = ratios(columns.sum(0), kinds)  # [2, K]
        drawn = resampled_sums(columns.reshape(len(some), -1)).reshape(-1, *columns.shape[1:])
        gains = np.subtract(*ratios(drawn, kinds).swapaxes(0, 1))  # [resamples, K]
        for name, (ours, theirs), gain in zip(measures, values.T.tolist(), gains.T, strict=True):
            found[name] = PairedFigure(ours, theirs, ours - theirs, *percentiles(gain))
    return found


def _run(content: Mapping[str, Any]) -> Run:
    samples = tuple(SampleScore(**one | {"tags": tuple(one["tags"])}) for one in content["samples"])
    if not samples:
        raise LookupError("samples")
    where = [content["dataset"], content["split"]]
    return Run(
        model=content["model"],
        dataset="/".join(filter(None, where)),
        protocol=content["protocol"],
        contaminated=content["contaminated"],
        samples=samples,
    )


def _check_samples(first: Run, second: Run) -> None:
    if len(first.samples) != len(second.samples):
        raise DataError(
            f"cannot compare {len(first.samples)} with {len(second.samples)} samples; "
            "expected the same samples"
        )
    for number, (ours, theirs) in enumerate(zip(first.samples, second.samples, strict=True)):
        if (ours.name, ours.present) != (theirs.name, theirs.present):
            raise DataError(
                f"sample {number} is '{ours.name}' in the one and '{theirs.name}' in the other "
                "run, or its target is in one of them only; expected the same samples"
            )


def _about(run: Run) -> dict[str, str | None]:
    return {
        "model": run.model,
        "dataset": run.dataset,
        "protocol": run.protocol,
        "contaminated": run.contaminated,
    }


def _said(about: Mapping[str, str | None]) -> str:
    saw = about["contaminated"]
    warning = f", CONTAMINATED: trained on {saw}" if saw else ""
    return f"{about['model']} on {about['dataset']}, protocol {about['protocol']}{warning}"


def _row(name: str, one: PairedFigure) -> str:
    interval = f"{one.difference:+.4f} ({one.low:+.4f} to {one.high:+.4f})"
    return f"{name:<20}{one.first:>9.4f}{one.second:>9.4f}{interval:>38}"
