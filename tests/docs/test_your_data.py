"""docs/your-data.md, executed: ten labelme files become a model that knows their things better.

The commands are run in their order, in a folder with ten pictures that are made here: drawn things
with made-up names, which no model has seen. What a person would type at a prompt is typed by the
test. How much was learnt is measured on five further pictures.
"""

import json
import os
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.commands import parse
from helpers.made_up_things import make_files
from helpers.paths import DOCS
from lisa.data.reasonseg import ReasonSeg

PAGE = (DOCS / "your-data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
CPU_SECONDS = 2 * 15 * 60  # two cores for fifteen minutes
GAIN = 0.2  # in gIoU on pictures that were neither trained on nor looked at


def test_every_command_can_be_parsed() -> None:
    assert COMMANDS
    for command in COMMANDS:
        word, *arguments = shlex.split(command)
        assert word == "lisa"
        parse(arguments)


def test_the_lines_of_jsonl_are_json() -> None:
    (lines,) = re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert all(json.loads(line)["image"] for line in lines.splitlines())


def lisa(folder: Path, *arguments: str, typed: str = "") -> str:
    """Run a command in the folder; what it printed. It must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "lisa", *arguments],
        cwd=folder,
        input=typed,
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, f"lisa {shlex.join(arguments)}\n{done.stderr}"
    return done.stdout


def typed_for(command: str) -> str:
    """What a person types while a command runs."""
    if "--check" in command:
        return "y\n" * 10
    if "--by" in command:
        return "".join(f"what would be of use on day {n}?\n\n\n" for n in range(10))
    return ""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every command of the page was run, in its order."""
    folder = tmp_path_factory.mktemp("page")
    make_files(folder / "labelled", 10, seed=0)
    for command in COMMANDS:
        before = seconds_of_children()
        lisa(folder, *shlex.split(command)[1:], typed=typed_for(command))
        with (folder / "seconds.txt").open("a") as stream:
            stream.write(f"{seconds_of_children() - before:.0f} {command}\n")
    return folder


def seconds_of_children() -> float:
    """Processor time of what was run so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def scores(folder: Path, model: str) -> dict[str, float]:
    """Of a model on the pictures in ``further``."""
    wanted = f"eval --dataset own --root further --split val --protocol generate --model {model}"
    lisa(folder, *wanted.split(), "--json", "scores.json")
    content: dict[str, float] = json.loads((folder / "scores.json").read_text())
    return content


@pytest.mark.long
def test_two_commands_make_a_model_that_knows_more(folder: Path) -> None:
    make_files(folder / "five", 5, seed=1)
    lisa(folder, "data", "import", "five", "--out", "further", "--split", "0")
    before, after = scores(folder, "nano"), scores(folder, "runs/mine/model")
    assert after["gIoU"] > before["gIoU"] + GAIN


@pytest.mark.long
def test_the_two_commands_take_less_than_a_quarter_of_an_hour(folder: Path) -> None:
    lines = (folder / "seconds.txt").read_text().splitlines()
    assert [line.split()[2] for line in lines[:2]] == ["data", "train"]
    assert sum(float(line.split()[0]) for line in lines[:2]) < CPU_SECONDS


@pytest.mark.long
def test_the_page_shows_answers_before_and_after(folder: Path) -> None:
    page = (folder / "runs" / "mine" / "report.html").read_text()
    (before, after) = re.search(r"before ([\d.]+), after ([\d.]+)", page).groups()
    assert float(after) > float(before)
    assert "questions of own/val" in page and "<img " in page


@pytest.mark.long
def test_the_benchmark_of_the_page_is_there(folder: Path) -> None:
    counts = [
        len(ReasonSeg(folder / "set" / "reasonseg", split)) for split in ("train", "val", "test")
    ]
    assert sum(counts) == 10 and min(counts) >= 1
