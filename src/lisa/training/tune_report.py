"""The page at the end of ``lisa train``: losses over updates, and what the tuned model answers.

A few questions show whether it learnt anything; scores are measured with ``lisa eval``. This file
looks at what is there; it trains nothing.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lisa.example import Example
from lisa.figures import polyline
from lisa.overlay import draw_overlay
from lisa.predict import Segmenter
from lisa.result import Result
from lisa.training.report import PAGE_STYLE, THUMBNAIL, as_data_url, write_caption

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
    """Of a mask bool [H, W] with the target; 1 where both are empty."""
    counted = np.ones_like(mask) if example.ignore is None else ~example.ignore
    union = ((mask | example.mask) & counted).sum()
    return float((mask & example.mask & counted).sum() / union) if union else 1.0


def tune_page(
    trained_on: Sequence[str],
    log: Sequence[Mapping[str, float]],
    where: str,
    answers: Sequence[Answered],
) -> str:
    """The page, as HTML without anything beside it."""
    mean = np.mean([each.iou for each in answers]) if answers else float("nan")
    sheet = as_data_url(draw_answers(answers)) if answers else ""
    parts = [
        "<h1>A tuned LISA</h1>",
        f"<p>Trained on: {html.escape(', '.join(trained_on))}</p>",
        *curves(log),
        f"<h2>{len(answers)} questions of {html.escape(where)}: mean IoU {mean:.3f}</h2>",
        "<p>Left the target, right the answer; a glance, not a score: see <code>lisa eval</code>.",
        f'<img alt="targets and answers" src="{sheet}">' if sheet else "",
    ]
    head = "<!doctype html><meta charset=utf-8><title>lisa train</title>"
    return head + PAGE_STYLE + "\n".join(parts)


def curves(log: Sequence[Mapping[str, float]]) -> list[str]:
    """Losses and learning rate over updates."""
    names = [name for name in (log[0] if log else {}) if name.startswith(("loss", "learning"))]
    drawings = []
    for name in names:
        points = [(float(entry["step"]), float(entry[name])) for entry in log if name in entry]
        if len(points) > 1:
            caption = f"{name}: {points[0][1]:.4g} to {points[-1][1]:.4g}"
            drawing = polyline(points)
            drawings.append(f"<figure><figcaption>{caption}</figcaption>{drawing}</figure>")
    return drawings


def draw_answers(answers: Sequence[Answered]) -> Image.Image:
    """For each question the target and the answer side by side, two questions a row."""
    rows, cell = -(-len(answers) // 2), THUMBNAIL + 44
    sheet = Image.new("RGB", (4 * THUMBNAIL, rows * cell), "white")
    for number, each in enumerate(answers):
        left, top = number % 2 * 2 * THUMBNAIL, number // 2 * cell
        target = draw_overlay(each.example.image, [each.example.mask], [""])
        for place, picture in enumerate((target, each.result.overlay())):
            picture.thumbnail((THUMBNAIL - 8, THUMBNAIL - 8))
            sheet.paste(picture, (left + place * THUMBNAIL + 4, top + 4))
        says = f"IoU {each.iou:.2f}: {each.result.text}"
        write_caption(sheet, (left + 4, top + THUMBNAIL), [each.example.question, says])
    return sheet
