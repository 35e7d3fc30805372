"""The page at the end of ``lisa train``: losses over updates, and answers before and after.

A few questions show whether it learnt anything; scores are measured with ``lisa eval``. This file
looks at what is there; it trains nothing.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lisa.draw.html import PAGE_STYLE, as_data_url, curve
from lisa.draw.overlay import draw_overlay
from lisa.draw.sheet import THUMBNAIL, write_caption
from lisa.evaluation.metrics import SegmentationMetrics
from lisa.example import Example
from lisa.predict import Segmenter
from lisa.result import Result

QUESTIONS = 8  # that are asked, evenly spread over a data set


@dataclass(frozen=True)
class Answered:
    """A question, what the model answers, and how far that is right."""

    example: Example
    result: Result
    iou: float


def answer_some(segmenter: Segmenter, examples: Sequence[Example]) -> list[Answered]:
    """At most ``QUESTIONS`` questions whose masks are known, and the answers."""
    chosen = np.linspace(0, len(examples) - 1, min(QUESTIONS, len(examples))).round().astype(int)
    known = [example for index in chosen if (example := examples[int(index)]).masks is not None]
    results = [segmenter.segment(example.image, example.question) for example in known]
    return [
        Answered(example, result, iou(result.mask, example))
        for example, result in zip(known, results, strict=True)
    ]


def iou(mask: np.ndarray, example: Example) -> float:
    """Of a mask bool [H, W] with the target, as it is scored everywhere."""
    scored = SegmentationMetrics().update(mask, example.mask, example.ignore, answered=True)
    return scored.samples[0].iou


def tune_page(
    trained_on: Sequence[str],
    log: Sequence[Mapping[str, float]],
    where: str,
    answers: Sequence[Answered],
    before: Sequence[Answered] = (),
) -> str:
    """The page, as HTML without anything beside it.

    Args:
        trained_on: what the weights have seen.
        log: of the loop.
        where: what the questions are called.
        answers: of the tuned model.
        before: of the model that training began with, to the same questions, or none.
    """
    sheet = as_data_url(draw_answers(answers, before)) if answers else ""
    parts = [
        "<h1>A tuned LISA</h1>",
        f"<p>Trained on: {html.escape(', '.join(trained_on))}</p>",
        *curves(log),
        f"<h2>{len(answers)} questions of {html.escape(where)}</h2>",
        f"<p>Mean IoU {'before ' + mean_iou(before) + ', after ' if before else ''}"
        f"{mean_iou(answers)}; a prescore, not a score: see <code>lisa eval</code>.</p>",
        f"<p>From left to right: the target{', before' if before else ''}, after.</p>",
        f'<img alt="targets and answers" src="{sheet}">' if sheet else "",
    ]
    head = "<!doctype html><meta charset=utf-8><title>lisa train</title>"
    return head + PAGE_STYLE + "\n".join(parts)


def mean_iou(answers: Sequence[Answered]) -> str:
    """Of all answers, to three places."""
    return f"{np.mean([each.iou for each in answers]):.3f}" if answers else "unknown"


def curves(log: Sequence[Mapping[str, float]]) -> list[str]:
    """Losses and learning rate over updates."""
    names = [name for name in (log[0] if log else {}) if name.startswith(("loss", "learning"))]
    drawings = []
    for name in names:
        points = [(float(entry["step"]), float(entry[name])) for entry in log if name in entry]
        if len(points) > 1:
            drawings.append(curve(f"{name}: {points[0][1]:.4g} to {points[-1][1]:.4g}", points))
    return drawings


def draw_answers(answers: Sequence[Answered], before: Sequence[Answered] = ()) -> Image.Image:
    """A row a question: the target, the earlier answer where there is one, and the answer."""
    shown = [before, answers] if before else [answers]
    cell = THUMBNAIL + 44
    sheet = Image.new("RGB", ((1 + len(shown)) * THUMBNAIL, len(answers) * cell), "white")
    for row, example in enumerate(each.example for each in answers):
        target = draw_overlay(example.image, [example.mask], [""])
        put(sheet, target, (0, row * cell), example.question)
        for column, given in enumerate((one[row] for one in shown), start=1):
            says = f"IoU {given.iou:.2f}: {given.result.text}"
            put(sheet, given.result.overlay(), (column * THUMBNAIL, row * cell), says)
    return sheet


def put(sheet: Image.Image, picture: Image.Image, corner: tuple[int, int], text: str) -> None:
    """A picture on the sheet, with a line under it."""
    picture.thumbnail((THUMBNAIL - 8, THUMBNAIL - 8))
    sheet.paste(picture, (corner[0] + 4, corner[1] + 4))
    write_caption(sheet, (corner[0] + 4, corner[1] + THUMBNAIL), [text])
