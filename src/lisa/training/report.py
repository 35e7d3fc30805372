"""One page at the end of a run: figures, curves, and a sheet of example pictures.

``report.html`` stands alone: the curves are drawn into it, the pictures are embedded. It reads the
finished model through ``lisa.load``, as a user would. This file knows how a run is shown; it
measures through ``evaluate`` and trains nothing.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw
from transformers import TrainerState

from lisa.data.nano_data import BESIDE, SOURCES
from lisa.data.reasonseg import ReasonSeg
from lisa.evaluate import Evaluation, evaluate
from lisa.figures import polyline
from lisa.formats import base64_image
from lisa.image import write_atomically
from lisa.predict import Segmenter, load
from lisa.result import Result
from lisa.training.loop import last_checkpoint
from lisa.training.mind import held_out_questions

STAGES = ("eyes", "self", "words", "mind", "tune")
SHEET_COLUMNS = 4
SHEET_PICTURES = 12
THUMBNAIL = 300  # pixels
CURVES = ("loss", "val_iou", "val_phrasings", "val_giou")


def write_report(model: Path, data: Path, out: Path, device: str | None = None) -> Path:
    """Write ``report.html`` (and ``sheet.png``) to ``out``; returns its path."""
    segmenter = load(model, device)
    asked = held_out_questions(data, reasoning=True, count=SHEET_PICTURES)[:SHEET_PICTURES]
    results = [segmenter.segment(example.image, example.question) for example in asked]
    sheet = draw_sheet(results)
    sheet.save(out / "sheet.png")
    scores = measure(segmenter, data)
    sources = ", ".join(map(with_licence, segmenter.model.config.trained_on))
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


PAGE_STYLE = (
    "<style>body{font:15px sans-serif;max-width:1240px;margin:2em auto}img{max-width:100%}</style>"
)


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


def draw_sheet(results: Sequence[Result]) -> Image.Image:
    """Overlays side by side, each with its question and answer underneath."""
    rows = -(-len(results) // SHEET_COLUMNS)
    cell = THUMBNAIL + 44
    sheet = Image.new("RGB", (SHEET_COLUMNS * THUMBNAIL, max(1, rows) * cell), "white")
    for n, result in enumerate(results):
        picture = result.overlay()
        picture.thumbnail((THUMBNAIL - 8, THUMBNAIL - 8))
        left, top = n % SHEET_COLUMNS * THUMBNAIL, n // SHEET_COLUMNS * cell
        sheet.paste(picture, (left + 4, top + 4))
        write_caption(sheet, (left + 4, top + THUMBNAIL), [result.question, result.text])
    return sheet


def write_caption(sheet: Image.Image, corner: tuple[int, int], lines: Sequence[str]) -> None:
    """Lines of text, cut where the column ends."""
    draw = ImageDraw.Draw(sheet)
    for n, line in enumerate(lines):
        draw.text((corner[0], corner[1] + 18 * n), line[:52], fill="black" if n else "dimgray")


def as_data_url(picture: Image.Image) -> str:
    """A picture inside a page."""
    return f"data:image/png;base64,{base64_image(picture, 'PNG')}"


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


def curve(caption: str, points: Sequence[tuple[float, float]]) -> str:
    """A line through points, and what it is, as HTML."""
    return f"<figure><figcaption>{caption}</figcaption>{polyline(points)}</figure>"
