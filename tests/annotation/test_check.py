"""`lisa data check`: what lies in a folder, what is wrong with it, and what leaks."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

from helpers.own_files import make_labelme
from helpers.picture_files import write_json
from lisa.annotation.check import Report, check_data, recognised
from lisa.annotation.formats.source import Source
from lisa.annotation.importing import import_data
from lisa.cli import app
from lisa.errors import DataError

SIZE = (48, 36)
SQUARE = [[4, 4], [20, 4], [20, 20], [4, 20]]


def write_sample(folder: Path, name: str, seed: int, **changes: Any) -> None:
    """A photo that no other seed gives, and its annotation."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    coarse = PIL.Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    coarse.resize(SIZE, PIL.Image.Resampling.BICUBIC).save(folder / f"{name}.jpg", quality=95)
    shapes = [{"label": "target", "points": SQUARE}]
    content = {"text": ["what is it?"], "is_sentence": True, "shapes": shapes}
    write_json(folder / f"{name}.json", content | changes)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(4):
        write_sample(tmp_path / "train", f"t{number}", number)
    for number in range(2):
        write_sample(tmp_path / "val", f"v{number}", 10 + number, absent=number == 1)
    return tmp_path


def of(report: Report) -> dict[str, tuple[int, ...]]:
    return {
        one.label: (one.pictures, one.questions, one.absent, one.masks) for one in report.splits
    }


def test_pictures_questions_and_masks_are_counted(root: Path) -> None:
    report, examples = check_data(root)
    assert of(report) == {"reasonseg/train": (4, 4, 0, 4), "reasonseg/val": (2, 2, 1, 1)}
    assert (report.wrong, report.leaks, examples) == (0, (), [])


def test_examples_for_a_sheet_come_from_every_split(root: Path) -> None:
    _, examples = check_data(root, sheet=4)
    assert [example.name for example in examples] == ["t0.jpg", "t2.jpg", "v0.jpg", "v1.jpg"]


def test_fewer_can_be_read(root: Path) -> None:
    report, _ = check_data(root, limit=1)
    assert of(report) == {"reasonseg/train": (4, 4, 0, 1), "reasonseg/val": (2, 2, 0, 1)}


def cut_annotation(root: Path) -> None:
    path = root / "train" / "t1.json"
    path.write_text(path.read_text()[:40])


BROKEN = {
    "truncated JSON": (cut_annotation, r"t1\.json': it is not JSON"),
    "2 points": (
        lambda root: write_sample(
            root / "train", "t1", 1, shapes=[{"label": "x", "points": SQUARE[:2]}]
        ),
        r"t1\.json': shape 0: its points form \[2, 2\]",
    ),
    "NaN": (
        lambda root: write_sample(
            root / "train", "t1", 1, shapes=[{"label": "x", "points": [[1, float("nan")]] * 3}]
        ),
        r"t1\.json': shape 0: a point is NaN",
    ),
    "no photo": (lambda root: (root / "train" / "t1.jpg").unlink(), r"t1\.json' stands alone"),
    "broken photo": (
        lambda root: (root / "train" / "t1.jpg").write_bytes(b"\xff\xd8\xff"),
        r"cannot read image '.*t1\.jpg'",
    ),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=list(BROKEN))
def test_what_is_broken_is_listed(root: Path, damage: Any, message: str) -> None:
    damage(root)
    report, _ = check_data(root)
    (problem,) = report.splits[0].problems
    assert re.search(message, problem)
    assert (report.splits[0].masks, report.wrong) == (3, 1)


def test_a_data_set_that_cannot_be_opened_is_listed(root: Path) -> None:
    write_json(root / "llava_instruct_150k.json", [])
    report, _ = check_data(root)
    (talks,) = [one for one in report.splits if one.name == "llava-instruct"]
    assert "no folder with pictures of COCO" in talks.problems[0]


def test_own_data_are_recognised(tmp_path: Path) -> None:
    imported = import_data(Source(make_labelme(tmp_path / "labelled")), tmp_path / "own")
    report, _ = check_data(tmp_path / "own")
    assert [one.label for one in report.splits] == ["own/train", "own/val"]
    assert sum(one.pictures for one in report.splits) == sum(imported.pictures.values()) == 10
    assert report.wrong == 0


def test_a_leak_is_found(root: Path) -> None:
    smaller = PIL.Image.open(root / "train" / "t2.jpg").resize((40, 30))
    smaller.save(root / "val" / "v1.jpg")
    report, _ = check_data(root)
    (leak,) = report.leaks
    assert (leak.trained, leak.measured) == ("reasonseg/train", "reasonseg/val")
    assert [[Path(path).name for path in pair] for pair in leak.pairs] == [["t2.jpg", "v1.jpg"]]
    assert report.wrong == 1


def test_what_is_not_recognised_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no data set in '.*'; expected the layout of reasonseg"):
        recognised(tmp_path)
    with pytest.raises(DataError, match=r"cannot check '.*none': no such folder"):
        recognised(tmp_path / "none")


# The command


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["data", "check", *map(str, arguments)])


def test_the_command_prints_a_table(root: Path) -> None:
    outcome = run(root)
    assert outcome.exit_code == 0
    assert re.search(r"reasonseg/train +4 +4 +0 +4 +0", outcome.stdout)
    assert "nothing is wrong" in outcome.stdout


def test_the_command_prints_json_and_draws_a_sheet(root: Path) -> None:
    outcome = run(root, "--json", "--sheet", root / "sheet.png")
    splits = json.loads(outcome.stdout)["splits"]
    assert [split["questions"] for split in splits] == [4, 2]
    assert PIL.Image.open(root / "sheet.png").mode == "RGB"


def test_the_command_says_what_is_wrong(root: Path) -> None:
    cut_annotation(root)
    outcome = run(root)
    assert isinstance(outcome.exception, DataError)
    assert re.search(r"'.*' has problems: 1; expected none", str(outcome.exception))
    assert "problems of reasonseg/train: 1" in outcome.stdout


def test_a_sheet_that_cannot_be_written_is_refused_at_once(root: Path) -> None:
    outcome = run(root, "--sheet", root / "none" / "sheet.png")
    assert "expected an existing folder" in str(outcome.exception)
    assert outcome.stdout == ""
