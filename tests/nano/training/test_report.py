"""The page at the end of a run: what it shows, and that it stands alone."""

import base64
import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest

from helpers.training_data import SIDE, write_state, write_training_data
from lisa.draw.html import as_data_url
from lisa.draw.sheet import SHEET_COLUMNS, THUMBNAIL, draw_sheet
from lisa.masks import Mask
from lisa.nano.model.segmenter import NanoAnswering
from lisa.nano.training import report
from lisa.nano.training.report import SHEET_PICTURES, draw_curves, read_log, write_report
from lisa.result import Result


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_data(tmp_path_factory.mktemp("data"))


def result(question: str = "Who purrs?", text: str = "The cat.", colour: str = "navy") -> Result:
    picture = PIL.Image.new("RGB", (SIDE, SIDE), colour)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[10:30, 10:40] = True
    return Result(picture, question, text, (Mask(mask, "cat", 0.5),))


class Parrot:
    """A segmenter that has one answer, and remembers what it was asked."""

    name = "parrot"
    processor = SimpleNamespace(config=SimpleNamespace(trained_on=["coco_union", "<knowledge>"]))
    answering = NanoAnswering(None, processor)  # type: ignore[arg-type]

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []

    def segment(self, image: PIL.Image.Image, question: str, answer: str | None = None) -> Result:
        self.asked.append((question, answer))
        mask = np.ones((image.height, image.width), bool)
        return Result(image, question, "The cat.", (Mask(mask, "cat", 0.5),))


@pytest.fixture
def parrot(monkeypatch: pytest.MonkeyPatch) -> Parrot:
    segmenter = Parrot()
    monkeypatch.setattr(report, "load", lambda model, device: segmenter)
    return segmenter


# The page


def test_the_page_shows_figures_curves_and_the_sheet(
    parrot: Parrot, data: Path, tmp_path: Path
) -> None:
    log = [{"step": 20.0, "loss": 2.0}, {"step": 40.0, "loss": 1.25}]
    write_state(tmp_path / "eyes" / "checkpoint-40", log)
    log = [{"step": 10.0, "val_phrasings": 0.25}, {"step": 20.0, "val_phrasings": 0.5}]
    write_state(tmp_path / "words" / "checkpoint-20", log)
    path = write_report(tmp_path / "model <1>", data, tmp_path)
    assert path == tmp_path / "report.html"
    page = path.read_text(encoding="utf-8")
    assert "model &lt;1&gt;</h1>" in page
    assert (
        "coco_union (annotations CC BY 4.0, photos by Flickr licence id), &lt;knowledge&gt;" in page
    )
    assert "eyes: loss, last 1.250" in page and "mind:" not in page
    assert "words: val_phrasings, last 0.500" in page
    assert page.index("generate") < page.index("teacher-forced")
    (sheet,) = re.findall(r'src="data:image/png;base64,([^"]*)"', page)
    with PIL.Image.open(io.BytesIO(base64.b64decode(sheet))) as shown:
        assert np.array_equal(np.asarray(shown), np.asarray(PIL.Image.open(tmp_path / "sheet.png")))
    assert page.count("src=") == 1 and "href=" not in page  # nothing to fetch


def test_both_protocols_are_asked_of_the_validation_samples(
    parrot: Parrot, data: Path, tmp_path: Path
) -> None:
    write_report(tmp_path / "model", data, tmp_path)
    val = ["Which shape would roll?", "What stands on a side?"]
    asked = [pair for pair in parrot.asked if pair[0] in val]
    assert asked == [*((q, None) for q in val), *((q, "[SEG].") for q in val)]
    sheet = [pair for pair in parrot.asked if pair[0] not in val]
    assert 0 < len(sheet) <= SHEET_PICTURES


def test_a_data_folder_without_validation_samples_has_no_figures(
    parrot: Parrot, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "photos").symlink_to(data / "photos")
    page = write_report(tmp_path / "model", tmp_path / "data", tmp_path).read_text()
    assert "<pre>" not in page and "<img" in page


# The sheet


@pytest.mark.parametrize(("count", "rows"), [(0, 1), (1, 1), (4, 1), (5, 2), (12, 3)])
def test_a_sheet_has_as_many_rows_as_it_needs(count: int, rows: int) -> None:
    sheet = draw_sheet([result()] * count)
    assert sheet.width == SHEET_COLUMNS * THUMBNAIL
    assert sheet.height % rows == 0 and sheet.height // rows > THUMBNAIL
    assert (np.asarray(sheet) < 255).any() == bool(count)


def test_each_result_stands_in_its_cell() -> None:
    colours = [(200, 0, 0), (0, 120, 0), (0, 0, 200), (90, 90, 0), (90, 0, 90)]
    results = [result(colour="#{:02x}{:02x}{:02x}".format(*colour)) for colour in colours]
    sheet = np.asarray(draw_sheet(results))
    cell = sheet.shape[0] // 2
    for number, colour in enumerate(colours):
        row, column = divmod(number, SHEET_COLUMNS)
        place = sheet[row * cell + 4, column * THUMBNAIL + 4]
        assert tuple(place) == colour
    assert (sheet[cell:, THUMBNAIL + 4 :] == 255).all()  # five of eight cells


def test_question_and_answer_stand_under_the_picture() -> None:
    blank = caption_pixels(result(question=".", text=""))
    asked = caption_pixels(result(question="Who purrs at night?", text=""))
    answered = caption_pixels(result(question="Who purrs at night?", text="The cat."))
    assert blank < asked < answered


def caption_pixels(shown: Result) -> int:
    return int((np.asarray(draw_sheet([shown]))[THUMBNAIL:] < 255).any(-1).sum())


def test_long_words_stay_in_their_column() -> None:
    sheet = np.asarray(draw_sheet([result("long " * 60, "longer " * 60)]))
    assert (sheet[THUMBNAIL:, 2 * THUMBNAIL :] == 255).all()


def test_a_data_url_holds_the_picture() -> None:
    picture = PIL.Image.new("RGB", (3, 2), "teal")
    head, _, body = as_data_url(picture).partition(",")
    assert head == "data:image/png;base64"
    with PIL.Image.open(io.BytesIO(base64.b64decode(body))) as shown:
        assert shown.size == (3, 2) and shown.getpixel((0, 0)) == (0, 128, 128)


# The curves


def test_the_log_is_that_of_the_last_checkpoint(tmp_path: Path) -> None:
    assert read_log(tmp_path / "nowhere") == []
    write_state(tmp_path / "checkpoint-1000", [{"step": 1000.0}], written_at=2000)
    write_state(tmp_path / "checkpoint-250", [{"step": 250.0}], written_at=1000)
    assert read_log(tmp_path) == [{"step": 1000.0}]


def test_curves_are_drawn_of_what_was_logged_more_than_once() -> None:
    log: list[dict[str, Any]] = [
        {"step": 10, "loss": 3.0, "loss_bce": 1.0},
        {"step": 20, "loss": 1.5},
        {"step": 20, "val_iou": 0.5},
    ]
    drawn = draw_curves("eyes", log)
    assert drawn.count("<svg") == 1
    assert "eyes: loss, last 1.500" in drawn
    assert draw_curves("eyes", []) == ""
