"""docs/evaluation.md, executed: its commands in order, in a folder with a small ReasonSeg.

They run as they are written, but for the model: a tiny one is named at the end of each. What a
launcher starts is read by the command line's parser instead; `test_workers.py` starts it.
"""

import json
import re
import shlex
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from helpers.commands import parse
from helpers.made_up_things import make_reasonseg
from helpers.paths import DOCS
from lisa import cli, models
from lisa.data.datasets import DATASETS
from lisa.evaluation.metrics import MEASURES, SegmentationScores

PAGE = (DOCS / "evaluation.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]
LAUNCHERS = ("torchrun", "accelerate")


def lisa(arguments: list[str]) -> int:
    """Run the command line in this process; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lisa", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
            raise SystemExit(0)
    return int(stopped.value.code or 0)


@pytest.mark.slow
def test_the_commands_work_in_order(
    tmp_path: Path, tiny_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_reasonseg(tmp_path / "ReasonSeg" / "val")
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        if program in LAUNCHERS:
            parse(arguments[arguments.index("lisa") + 1 :])
            continue
        assert program == "lisa"
        asks = "--help" not in arguments and "--compare" not in arguments
        assert lisa([*arguments, *(["--model", str(tiny_directory)] if asks else [])]) == 0, command
    written = {path.name for path in tmp_path.iterdir()} - {"ReasonSeg"}
    assert written == {
        *("scores.json", "scores.html", "shuffled.json", "difference.json", "scores-2.json")
    }
    alone = json.loads((tmp_path / "scores.json").read_text())["protocols"]["generate"]
    divided = json.loads((tmp_path / "scores-2.json").read_text())
    for values in (alone, divided):
        del values["seconds_per_question"], values["footprint"]
    del alone["samples"]
    assert alone == divided


def test_the_program_works(
    tmp_path: Path, tiny_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_reasonseg(tmp_path / "ReasonSeg" / "val")
    monkeypatch.chdir(tmp_path)
    segmenter = models.load(tiny_directory, "cpu")
    monkeypatch.setattr("lisa.load", lambda: segmenter)
    (program,) = (text for kind, text in BLOCKS if kind == "python")
    exec(compile(program, "evaluation.md", "exec"), {})


def test_the_error_shown_is_the_error(
    tmp_path: Path,
    tiny_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_reasonseg(tmp_path / "ReasonSeg" / "train")
    config = json.loads((tiny_directory / "config.json").read_text())
    mine = tmp_path / "runs" / "mine"
    mine.mkdir(parents=True)
    (mine / "config.json").write_text(json.dumps(config | {"trained_on": ["reasonseg/train"]}))
    monkeypatch.chdir(tmp_path)
    options = ["--root", "ReasonSeg", "--split", "train", "--protocol", "generate"]
    assert lisa(["eval", *options, "--model", "runs/mine"]) == 2
    (shown,) = (text for kind, text in BLOCKS if kind == "text")
    assert capsys.readouterr().err == shown


def test_every_measure_is_explained() -> None:
    explained = set(re.findall(r"^\| `([\w@.]+)`", PAGE, re.MULTILINE))
    names = {name for _, measures in MEASURES for name in measures} | {"ECE"}
    assert names - {"P@0.6", "P@0.7", "P@0.8", "P@0.9"} <= explained
    known = {field.name for field in fields(SegmentationScores)} | names
    assert explained - {"generate", "teacher"} <= known


def test_the_data_sets_in_the_help_are_there() -> None:
    text = (Path(cli.__file__).parent / "commands" / "evaluate.py").read_text(encoding="utf-8")
    (shown,) = re.findall(r'help="The data set: (.*?)…"', text, re.DOTALL)
    assert set(re.findall(r"\[b\](.+?)\[/b\]", shown)) <= set(DATASETS)
