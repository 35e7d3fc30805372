"""The page of an evaluation: it stands alone, and shows what was asked, said and expected."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import PIL.Image
import pytest

from helpers.threshold_segmenter import SIDE, ThresholdSegmenter, open_task
from lisa.evaluation.evaluate import Evaluation, summarise
from lisa.evaluation.page import page, worst
from lisa.evaluation.runner import Record, Task, ask
from lisa.example import Example
from lisa.result import Result


def measured(task: Task, segmenter: object) -> tuple[list[Evaluation], list[Record]]:
    records = list(ask(segmenter, task, range(len(task.dataset))))  # type: ignore[arg-type]
    return [summarise(task, records, one, "a <model>") for one in task.protocols], records


@pytest.fixture
def made() -> tuple[str, list[Record]]:
    task = open_task(20)
    evaluations, records = measured(task, ThresholdSegmenter())
    return page(task, evaluations, records), records


class Tags(HTMLParser):
    """Counts the elements, and keeps what the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.sources += [value or "" for name, value in attributes if name in ("src", "href")]


def test_the_page_loads_nothing(made: tuple[str, list[Record]]) -> None:
    tags = Tags()
    tags.feed(made[0])
    assert tags.counts["svg"] == 1 + 2 + 1  # histogram, groups of two protocols, reliability
    assert tags.sources and all(one.startswith("data:image/jpeg;base64,") for one in tags.sources)
    assert "script" not in tags.counts
    assert "http" not in re.sub(r'xmlns="[^"]*"', "", made[0])


def test_every_bad_answer_is_shown_with_its_question(made: tuple[str, list[Record]]) -> None:
    text, records = made
    for protocol in ("generate", "teacher-forced"):
        for record in worst(records, protocol):
            assert f"<b>{record.question}</b>" in text
            assert f"{record.sample.name}, IoU {record.sample.iou:.3f}" in text
    assert "RuntimeError: out of luck" in text
    assert "cannot read image &#x27;block-3.jpg&#x27;" in text
    assert "a &lt;model&gt;" in text and "a <model>" not in text


def test_the_worst_come_first_and_the_surest_of_them(made: tuple[str, list[Record]]) -> None:
    records = worst(made[1], "generate", count=99)
    keys = [(one.sample.iou, -(one.sample.score or 0)) for one in records]
    assert keys == sorted(keys)
    assert all(one.sample.iou < 0.5 and one.protocol == "generate" for one in records)
    assert worst(made[1], "generate", count=2) == records[:2]


class Wrong(ThresholdSegmenter):
    """Finds nothing anywhere."""

    def segment(
        self, image: PIL.Image.Image, question: str, *, answer: str | None = None
    ) -> Result:
        return Result(image, question, "Nothing.", ())


def test_the_pictures_are_the_answer_and_the_target() -> None:
    target = np.zeros((1, SIDE, SIDE), bool)
    target[0, :, : SIDE // 2] = True
    ignore = np.zeros((SIDE, SIDE), bool)
    ignore[:, -4:] = True
    grey = PIL.Image.new("RGB", (SIDE, SIDE), (128, 128, 128))
    task = Task([Example(grey, "which half?", masks=target, ignore=ignore)], ("generate",))
    evaluations, records = measured(task, Wrong())
    encoded = re.findall(r"base64,([^\"]+)", page(task, evaluations, records))
    answer, wanted = (
        np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(one)))).astype(int) for one in encoded
    )
    assert abs(answer - 128).max() < 8  # nothing was found, nothing is tinted
    assert abs(wanted[:, : SIDE // 2 - 4] - 128).max(2).min() > 20
    assert abs(wanted[4:-4, SIDE // 2 + 3 : -7] - 128).max() < 12
    assert abs(wanted[:, -2:] - 128).max(2).min() > 20


def test_contaminated_figures_are_marked() -> None:
    task = open_task(3)
    records = list(ask(ThresholdSegmenter(), task, range(3)))
    marked = summarise(task, records, "generate", "m", contaminated="blocks/val")
    assert "class=contaminated" in page(task, [marked], records)
    plain = summarise(task, records, "generate", "m")
    assert "class=contaminated" not in page(task, [plain], records)
