"""A page about one evaluation: figures, groups, and the worst answers as pictures.

One HTML file that stands alone: plots are drawn into it, pictures are embedded. This file knows how
an evaluation is shown; it asks no model, and reads pictures only through the data set.
"""

import html
from collections.abc import Iterator, Sequence

import numpy as np
import PIL.Image
from pycocotools import mask as coco_mask

from lisa.draw.html import STYLE, embedded
from lisa.draw.overlay import draw_overlay
from lisa.draw.plots import histogram, intervals, reliability_plot
from lisa.errors import LisaError
from lisa.evaluation.evaluate import Evaluation, report_text
from lisa.evaluation.runner import Record, Task
from lisa.example import Example

WORST = 12  # answers of each protocol


def page(task: Task, evaluations: Sequence[Evaluation], records: Sequence[Record]) -> str:
    """The page of an evaluation's protocols.

    Args:
        task: what was asked; the pictures of the worst answers are read once more.
        evaluations: one for each protocol.
        records: of all of them.
    """
    first = evaluations[0]
    title = f"{first.model} on {first.dataset}"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        *_warning(first),
        f"<pre>{html.escape(report_text(evaluations))}</pre>",
        "<h2>IoU of the targets that are present</h2>",
        histogram({one.protocol: [s.iou for s in one.samples if s.present] for one in evaluations}),
        *(part for one in evaluations for part in _groups(one)),
        *_reliability(evaluations),
    ]
    for one in evaluations:
        parts += [
            f"<h2>The worst answers, {html.escape(one.protocol)}</h2>",
            "<p>Left the answer, right what was asked for. Of equally bad answers the ones come "
            "first that the model was surest of.</p>",
            *(_case(task, record) for record in worst(records, one.protocol)),
        ]
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>\n" + "\n".join(parts) + "\n"
    )


def worst(records: Sequence[Record], protocol: str, count: int = WORST) -> list[Record]:
    """The answers with the lowest IoU, the surest first among equals; none that is right."""
    own = [one for one in records if one.protocol == protocol and one.sample.iou < 0.5]
    own.sort(key=lambda one: (one.sample.iou, -(one.sample.score or 0.0), one.index))
    return own[:count]


def _warning(evaluation: Evaluation) -> Iterator[str]:
    if evaluation.contaminated is not None:
        saw = html.escape(evaluation.contaminated)
        yield f"<p class=contaminated>The weights were trained on {saw}: no benchmark figure.</p>"


def _groups(evaluation: Evaluation) -> Iterator[str]:
    """The groups' gIoU of present targets as bars."""
    rows = [
        (f"{tag} ({group.n})", group.gIoU_present, *group.intervals["gIoU_present"])
        for tag, group in evaluation.scores.by.items()
        if group.gIoU_present is not None
    ]
    if rows:
        yield f"<h2>By group, {html.escape(evaluation.protocol)}</h2>"
        yield intervals(rows)


def _reliability(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    """How far the model's own scores can be relied upon."""
    tables = {
        one.protocol: [
            (bin.score, bin.iou, bin.n)
            for bin in one.scores.reliability
            if bin.score is not None and bin.iou is not None
        ]
        for one in evaluations
    }
    if any(tables.values()):
        yield "<h2>The masks' own scores, and their IoU</h2>"
        yield reliability_plot({name: table for name, table in tables.items() if table})


def _case(task: Task, record: Record) -> str:
    """One answer: picture, target, and what was said."""
    said = record.error or record.text or "(no words)"
    caption = (
        f"<b>{html.escape(record.question)}</b><br>{html.escape(said)}<br>"
        f"{html.escape(record.sample.name)}, IoU {record.sample.iou:.3f}"
    )
    if not record.sample.present:
        caption += ", the target is absent"
    try:
        example = task.dataset[record.index]
    except (LisaError, OSError):  # the record says why
        return f"<figure><figcaption>{caption}</figcaption></figure>"
    pictures = "".join(map(embedded, (_answer(example, record), _target(example))))
    return f"<figure><figcaption>{caption}</figcaption>{pictures}</figure>"


def _answer(example: Example, record: Record) -> PIL.Image.Image:
    masks = [coco_mask.decode(mask.rle).astype(bool) for mask in record.masks]
    fitting = [mask for mask in masks if mask.shape == (example.image.height, example.image.width)]
    return draw_overlay(example.image, fitting, [mask.phrase for mask in record.masks])


def _target(example: Example) -> PIL.Image.Image:
    masks = {"target": example.mask, "ignored": example.ignore}
    shown = {name: mask for name, mask in masks.items() if mask is not None and np.any(mask)}
    return draw_overlay(example.image, list(shown.values()), list(shown))
