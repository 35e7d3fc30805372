"""One page at the end of a run: figures, curves, and a sheet of example pictures.

``report.html`` stands alone: the curves are drawn into it, the pictures are embedded. It reads the
finished model through ``lisa.load``, as a user would. This file knows how a run is shown; it
measures through ``evaluate`` and trains nothing.
"""

from __future__ import annotations

import html
from pathlib import Path

from transformers import TrainerState

from lisa.data.reasonseg import ReasonSeg
from lisa.draw.html import PAGE_STYLE, as_data_url, curve
from lisa.draw.sheet import draw_sheet
from lisa.evaluation.evaluate import Evaluation, evaluate
from lisa.files import write_atomically
from lisa.nano.data.sources import BESIDE, SOURCES
from lisa.nano.model.segmenter import load, nano_parts
from lisa.nano.training.joint import held_out_questions
from lisa.predict import Segmenter
from lisa.training.loop import last_checkpoint

STAGES = ("eyes", "self", "words", "mind", "tune")
SHEET_PICTURES = 12
CURVES = ("loss", "val_iou", "val_phrasings", "val_giou")


def write_report(model: Path, data: Path, out: Path, device: str | None = None) -> Path:
    """Write ``report.html`` (and ``sheet.png``) to ``out``; returns its path."""
    segmenter = load(model, device)
    asked = held_out_questions(data, reasoning=True, count=SHEET_PICTURES)[:SHEET_PICTURES]
    results = [segmenter.segment(example.image, example.question) for example in asked]
    sheet = draw_sheet(results)
    sheet.save(out / "sheet.png")
    scores = measure(segmenter, data)
    sources = ", ".join(map(with_licence, nano_parts(segmenter)[1].config.trained_on))
    parts = [
        f"<h1>{html.escape(model.as_posix())}</h1>",
        f"<p>Trained on: {html.escape(sources)}</p>",
        *(f"<pre>{html.escape(str(score))}</pre>" for score in scores),
        *(draw_curves(stage, read_log(out / stage)) for stage in STAGES),
        f'<img alt="questions and answers on held-out photographs" src="{as_data_url(sheet)}">',
    ]
    page = (
        "<!doctype html><meta charset=utf-8><title>lisa-nano</title>"
        + PAGE_STYLE
        + "\n".join(parts)
    )
    path = out / "report.html"
    write_atomically(path, page.encode())
    return path


def with_licence(source: str) -> str:
    """A source's name and, where the table of sources has one, its licence."""
    licence = SOURCES[source].licence if source in SOURCES else BESIDE.get(source)
    return f"{source} ({licence})" if licence else source


def measure(segmenter: Segmenter, data: Path) -> list[Evaluation]:
    """Both protocols on the validation questions, where the data folder has them."""
    root = data / "reasonseg_nano"
    if not (root / "val").is_dir():
        return []
    val = ReasonSeg(root, "val")
    return [
        evaluate(segmenter, val, protocol=protocol) for protocol in ("generate", "teacher-forced")
    ]


def read_log(stage: Path) -> list[dict[str, float]]:
    """The log of a stage's last checkpoint; nothing when it left none."""
    last = last_checkpoint(stage)
    return TrainerState.load_from_json(str(last / "trainer_state.json")).log_history if last else []


def draw_curves(stage: str, log: list[dict[str, float]]) -> str:
    """Loss and validation over steps as one inline drawing each."""
    drawings = []
    for name in CURVES:
        points = [(float(entry["step"]), float(entry[name])) for entry in log if name in entry]
        if len(points) > 1:
            drawings.append(curve(f"{stage}: {name}, last {points[-1][1]:.3f}", points))
    return "".join(drawings)
