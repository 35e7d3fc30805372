"""The command line: what is printed where, which files appear, and the exit codes.

The model is replaced by one that answers at once, so that these tests are about the command line
alone; `test_readme.py` runs the same commands with the real one.
"""

import importlib.metadata
import inspect
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from pycocotools import mask as coco_mask

import lisa
from helpers.commands import parse
from lisa import cli, models
from lisa.image import load_image
from lisa.nano.evaluation import page
from lisa.nano.training import calibration
from lisa.nano.training import recipe as recipe
from lisa.training import dry_run, finetune
from lisa.training.launch import config_path

KEYS = ["image", "question", "answer", "model", "masks", "timings"]
SCORES = [
    "dataset",
    "split",
    "protocol",
    "model",
    "contaminated",
    "n",
    "gIoU",
    "gIoU_present",
    "cIoU",
    "boundary_IoU",
    "precision",
    "N_acc",
    "T_acc",
    "emission_rate",
    "naming_rate",
    "intervals",
    "gIoU_present_ci",
    "failures",
    "by",
    "ECE",
    "reliability",
    "seconds_per_question",
    "footprint",
]


@dataclass
class FakeSegmenter:
    """Finds the upper left quarter of every picture, unless the question says `nothing`."""

    name: str = "fake"
    loaded: list[dict[str, Any]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    raises: BaseException | None = None

    def load(
        self, model: str = "nano", device: str | None = None, **precision: str | None
    ) -> "FakeSegmenter":
        asked = {name: value for name, value in precision.items() if value is not None}
        self.loaded.append({"model": model, "device": device} | asked)
        return self

    def segment(self, image: Any, question: str, *, answer: str | None = None) -> lisa.Result:
        self.asked.append({"question": question, "answer": answer})
        if self.raises is not None:
            raise self.raises
        picture = load_image(image)
        found = np.zeros((picture.height, picture.width), bool)
        found[: picture.height // 2, : picture.width // 2] = True
        absent = "nothing" in question
        return lisa.Result(
            image=picture,
            question=question,
            text="There is none." if absent else "The corner.",
            masks=() if absent else (lisa.Mask(found, "corner", 0.75),),
            model=self.name,
            timings={"load": 0.0, "image": 0.1, "answer": 0.2, "mask": 0.3},
        )


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def segmenter(monkeypatch: pytest.MonkeyPatch) -> FakeSegmenter:
    fake = FakeSegmenter()
    monkeypatch.setattr(models, "load", fake.load)
    return fake


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the command line in this process, as a shell would."""

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["lisa", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as stopped:
            cli.main()
            raise SystemExit(0)  # a command that returns ends the process with 0
        printed = capsys.readouterr()
        return Outcome(int(stopped.value.code or 0), printed.out, printed.err)

    return call


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    colours = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    PIL.Image.fromarray(colours).save(path)
    return path


@pytest.fixture
def reasonseg(tmp_path: Path, photo: Path) -> Path:
    """A data set of two photos whose target is the quarter that the fake finds."""
    root = tmp_path / "reasonseg" / "val"
    root.mkdir(parents=True)
    corner = [[0, 0], [19, 0], [19, 14], [0, 14]]
    for name, text, is_sentence in [("a", "a corner", False), ("b", "Which part is it?", True)]:
        (root / f"{name}.jpg").write_bytes(photo.read_bytes())
        annotation = {
            "text": [text],
            "is_sentence": is_sentence,
            "shapes": [{"label": "target", "points": corner}],
        }
        (root / f"{name}.json").write_text(json.dumps(annotation))
    return root


def files_in(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What is found ------------------------------------------------------------------------------------


def test_segment_prints_the_answer_and_writes_beside_the_photo(
    run: Run, segmenter: FakeSegmenter, photo: Path
) -> None:
    outcome = run("segment", photo, "  which corner? ")
    written = photo.with_name("photo.lisa.png")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == f"The corner.\nwrote {written}\n"
    with PIL.Image.open(written) as overlay, PIL.Image.open(photo) as plain:
        assert (overlay.mode, overlay.size) == ("RGB", plain.size)
        assert np.any(np.asarray(overlay) != np.asarray(plain))
    assert segmenter.asked == [{"question": "which corner?", "answer": None}]
    assert segmenter.loaded == [{"model": "nano", "device": None}]


def test_segment_writes_where_and_in_the_form_that_out_says(
    run: Run, segmenter: FakeSegmenter, photo: Path, tmp_path: Path
) -> None:
    before = set(files_in(tmp_path))
    outcome = run("segment", photo, "which corner?", "--out", tmp_path / "found.mask.png")
    assert outcome.code == 0
    assert set(files_in(tmp_path)) - before == {tmp_path / "found.mask.png"}
    with PIL.Image.open(tmp_path / "found.mask.png") as image:
        mask = np.asarray(image)
    assert mask.shape == (30, 40)
    assert np.array_equal(np.unique(mask), [0, 255])
    assert mask[:15, :20].all() and mask.astype(int).sum() == 255 * 15 * 20


def test_json_is_the_only_thing_on_stdout(run: Run, segmenter: FakeSegmenter, photo: Path) -> None:
    outcome = run("segment", photo, "which corner?", "--json")
    answer = json.loads(outcome.out)
    assert outcome.code == 0
    assert list(answer) == KEYS
    assert answer["image"] == str(photo)
    assert (answer["question"], answer["answer"]) == ("which corner?", "The corner.")
    assert answer["model"] == "fake"
    assert answer["timings"] == {"load": 0.0, "image": 0.1, "answer": 0.2, "mask": 0.3}
    (mask,) = answer["masks"]
    assert set(mask) == {"rle", "phrase", "score", "area", "bbox"}
    assert (mask["phrase"], mask["score"]) == ("corner", 0.75)
    assert (mask["area"], mask["bbox"]) == (300, [0, 0, 20, 15])
    assert mask["rle"]["size"] == [30, 40]
    assert coco_mask.decode(mask["rle"]).sum() == 300
    assert outcome.err == f"wrote {photo.with_name('photo.lisa.png')}\n"


def test_nothing_found_writes_nothing_and_says_so(
    run: Run, segmenter: FakeSegmenter, photo: Path, tmp_path: Path
) -> None:
    before = files_in(tmp_path)
    outcome = run("segment", photo, "is there nothing?")
    assert (outcome.code, outcome.out, outcome.err) == (0, "There is none.\nno mask\n", "")
    assert files_in(tmp_path) == before


def test_nothing_found_is_still_written_when_a_file_was_asked_for(
    run: Run, segmenter: FakeSegmenter, photo: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answer.json"
    assert run("segment", photo, "is there nothing?", "--out", out).code == 0
    assert json.loads(out.read_text())["masks"] == []


def test_a_photo_that_is_turned_by_its_file_is_turned_once(
    run: Run, segmenter: FakeSegmenter, tmp_path: Path
) -> None:
    path = tmp_path / "turned.jpg"
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # orientation: show the stored picture turned a quarter clockwise
    PIL.Image.new("RGB", (40, 30), "teal").save(path, exif=exif)
    answer = json.loads(run("segment", path, "which corner?", "--json").out)
    assert answer["masks"][0]["rle"]["size"] == [40, 30]
    with PIL.Image.open(tmp_path / "turned.lisa.png") as overlay:
        assert overlay.size == (30, 40)


def test_segment_passes_on_model_device_and_answer(
    run: Run, segmenter: FakeSegmenter, photo: Path
) -> None:
    options = ["--model", "runs/mine", "--device", "cpu", "--answer", "[SEG]."]
    assert run("segment", photo, "which corner?", *options).code == 0
    assert segmenter.loaded == [{"model": "runs/mine", "device": "cpu"}]
    assert segmenter.asked == [{"question": "which corner?", "answer": "[SEG]."}]


@pytest.mark.parametrize("question", ["was hält wach?", "何が目を覚ます", "[SEG] <|im_end|>"])
def test_questions_of_any_kind_reach_the_model_unchanged(
    run: Run, segmenter: FakeSegmenter, photo: Path, question: str
) -> None:
    answer = json.loads(run("segment", photo, question, "--json").out)
    assert answer["question"] == question
    assert segmenter.asked[0]["question"] == question


# What is refused ----------------------------------------------------------------------------------


def missing(folder: Path) -> list[object]:
    return [folder / "nowhere.jpg", "what is it?"]


def missing_folder_of_the_photo(folder: Path) -> list[object]:
    return [folder / "nowhere" / "nowhere.jpg", "what is it?"]


def directory(folder: Path) -> list[object]:
    (folder / "album").mkdir()
    return [folder / "album", "what is it?"]


def empty_file(folder: Path) -> list[object]:
    (folder / "empty.jpg").touch()
    return [folder / "empty.jpg", "what is it?"]


def text_as_jpg(folder: Path) -> list[object]:
    (folder / "letter.jpg").write_text("Dear all, this is not a photo.")
    return [folder / "letter.jpg", "what is it?"]


def truncated(folder: Path) -> list[object]:
    whole = (folder / "photo.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    return [folder / "cut.jpg", "what is it?"]


def empty_question(folder: Path) -> list[object]:
    return [folder / "photo.jpg", "   "]


def long_question(folder: Path) -> list[object]:
    return [folder / "photo.jpg", "why " * 2500]


def out_in_no_folder(folder: Path) -> list[object]:
    return [folder / "photo.jpg", "what is it?", "--out", folder / "nowhere" / "out.png"]


def out_is_a_folder(folder: Path) -> list[object]:
    (folder / "out.png").mkdir()
    return [folder / "photo.jpg", "what is it?", "--out", folder / "out.png"]


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (missing, "nowhere.jpg"),
        (missing_folder_of_the_photo, "nowhere.jpg"),
        (directory, "album"),
        (empty_file, "empty.jpg"),
        (text_as_jpg, "letter.jpg"),
        (truncated, "cut.jpg"),
        (empty_question, "question"),
        (long_question, "9999"),
        (out_in_no_folder, "nowhere"),
        (out_is_a_folder, "out.png"),
    ],
)
def test_wrong_input_is_one_line_and_costs_no_model(
    run: Run,
    segmenter: FakeSegmenter,
    photo: Path,
    tmp_path: Path,
    make: Callable[[Path], list[object]],
    names: str,
) -> None:
    arguments = make(tmp_path)
    before = files_in(tmp_path)
    outcome = run("segment", *arguments)
    assert_refused(outcome, names)
    assert files_in(tmp_path) == before
    assert segmenter.loaded == []


def assert_refused(outcome: Outcome, names: str, says: str = "expected") -> None:
    """Exit code 2, nothing on stdout, and one line that names the thing and what is wrong."""
    assert outcome.code == 2
    assert outcome.out == ""
    (line,) = outcome.err.splitlines()
    assert line.startswith("lisa: error: ")
    assert names in line
    assert says in line


def test_an_unknown_ending_names_the_known_ones(
    run: Run, segmenter: FakeSegmenter, photo: Path, tmp_path: Path
) -> None:
    before = files_in(tmp_path)
    outcome = run("segment", photo, "which corner?", "--out", tmp_path / "found.docx")
    assert_refused(outcome, "found.docx")
    assert ".geojson" in outcome.err
    assert files_in(tmp_path) == before


def test_a_folder_that_may_not_be_written_is_an_error(
    run: Run, segmenter: FakeSegmenter, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    assert_refused(run("segment", photo, "which corner?"), str(photo.parent))
    assert segmenter.loaded == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder nobody can write to")
def test_a_write_that_fails_is_an_error(run: Run, segmenter: FakeSegmenter, photo: Path) -> None:
    assert_refused(run("segment", photo, "which corner?", "--out", "/proc/found.png"), "/proc")


def test_an_error_while_answering_leaves_no_file(
    run: Run, segmenter: FakeSegmenter, photo: Path, tmp_path: Path
) -> None:
    before = files_in(tmp_path)
    segmenter.raises = lisa.ModelError("model 'x' lacks 'head.weight'; expected [576, 256]")
    assert_refused(run("segment", photo, "which corner?", "--json"), "head.weight")
    assert files_in(tmp_path) == before


def test_a_mistake_of_ours_is_not_dressed_up_as_the_persons(
    run: Run, segmenter: FakeSegmenter, photo: Path
) -> None:
    segmenter.raises = ZeroDivisionError("ours")
    with pytest.raises(ZeroDivisionError, match="ours"):
        run("segment", photo, "which corner?")


def test_an_interrupt_ends_with_130_and_no_traceback(
    run: Run, segmenter: FakeSegmenter, photo: Path
) -> None:
    segmenter.raises = KeyboardInterrupt()
    outcome = run("segment", photo, "which corner?")
    assert outcome.code == 130
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["segmnt"],
        ["segment"],
        ["segment", "photo.jpg"],
        ["segment", "photo.jpg", "what?", "--outt", "x.png"],
        ["eval", "--root", "."],
        ["eval", "--root", ".", "--protocol", "guess"],
        ["eval", "--root", ".", "--protocol", "generate", "--dataset", "imagenet"],
        ["eval", "--root", ".", "--protocol", "generate", "--shuffle-questions", "yes"],
        ["train", "nano", "--data", "."],
        ["train", "--out", "."],
        ["train", "--data", "."],
        ["train", "--data", ".", "--out", ".", "--preset", "large"],
    ],
)
def test_usage_errors_end_with_2(run: Run, segmenter: FakeSegmenter, arguments: list[str]) -> None:
    outcome = run(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert "Usage: lisa" in outcome.err


# Measuring and training ---------------------------------------------------------------------------


def test_eval_prints_a_table_and_writes_the_scores(
    run: Run, segmenter: FakeSegmenter, reasonseg: Path, tmp_path: Path
) -> None:
    path = tmp_path / "scores.json"
    outcome = run("eval", "--root", reasonseg, "--protocol", "generate", "--json", path)
    scores = json.loads(path.read_text())
    assert outcome.code == 0
    assert "gIoU" in outcome.out and "fake" in outcome.out
    assert set(scores) == set(SCORES)
    assert (scores["protocol"], scores["model"], scores["n"]) == ("generate", "fake", 2)
    assert scores["gIoU_present"] > 0.9
    assert set(scores["by"]) == {"short", "long"}
    assert scores["failures"] == []
    assert [asked["answer"] for asked in segmenter.asked] == [None, None]


def test_eval_finds_the_split_and_gives_the_answer_of_the_paper(
    run: Run, segmenter: FakeSegmenter, reasonseg: Path
) -> None:
    options = ["--split", "val", "--protocol", "teacher-forced", "--dataset", "reasonseg"]
    assert run("eval", "--root", reasonseg.parent, *options).code == 0
    assert {asked["answer"] for asked in segmenter.asked} == {"[SEG]."}


def test_eval_can_ask_each_photo_the_question_of_another(
    run: Run, segmenter: FakeSegmenter, reasonseg: Path, tmp_path: Path
) -> None:
    path = tmp_path / "scores.json"
    options = ["--protocol", "generate", "--shuffle-questions", "7", "--json", path]
    assert run("eval", "--root", reasonseg, *options).code == 0
    assert [asked["question"] for asked in segmenter.asked] == ["Which part is it?", "a corner"]
    assert set(json.loads(path.read_text())) == {*SCORES, "shuffle_questions"}


def test_eval_keeps_each_sample_where_asked(
    run: Run, segmenter: FakeSegmenter, reasonseg: Path, tmp_path: Path
) -> None:
    path = tmp_path / "scores.json"
    options = ["--protocol", "generate", "--json", path, "--per-sample"]
    assert run("eval", "--root", reasonseg, *options).code == 0
    scores = json.loads(path.read_text())
    assert set(scores) == {*SCORES, "samples"}
    assert len(scores["samples"]) == scores["n"]


def test_eval_can_ask_in_the_words_of_the_paper(
    run: Run, segmenter: FakeSegmenter, reasonseg: Path
) -> None:
    options = ["--root", reasonseg, "--protocol", "generate", "--paper-wording"]
    outcome = run("eval", *options)
    assert "in the paper's words" in outcome.out
    asked = [asked["question"] for asked in segmenter.asked]
    assert asked == [
        "What is a corner in this image? Please output segmentation mask.",
        "Which part is it? Please output segmentation mask.",
    ]


def test_eval_leaves_out_what_cannot_be_read_where_told_to(
    run: Run, segmenter: FakeSegmenter, reasonseg: Path, tmp_path: Path
) -> None:
    for name in ("broken.json", "broken.jpg"):
        (reasonseg / name).write_text("{")
    options = ["--root", reasonseg, "--protocol", "generate", "--json", tmp_path / "scores.json"]
    assert_refused(run("eval", *options), "broken.json")
    outcome = run("eval", *options, "--skip-bad")
    assert outcome.code == 0
    assert "skipped 1 in all" in outcome.err
    assert json.loads((tmp_path / "scores.json").read_text())["n"] == 2


def test_eval_counts_a_failure_as_wrong_and_goes_on(
    run: Run, segmenter: FakeSegmenter, reasonseg: Path, tmp_path: Path
) -> None:
    path = tmp_path / "scores.json"
    segmenter.raises = RuntimeError("out of luck")
    assert run("eval", "--root", reasonseg, "--protocol", "generate", "--json", path).code == 0
    scores = json.loads(path.read_text())
    assert (scores["n"], scores["gIoU"], len(scores["failures"])) == (2, 0.0, 2)


def test_eval_refuses_a_place_for_its_scores_before_it_starts(
    run: Run, segmenter: FakeSegmenter, reasonseg: Path, tmp_path: Path
) -> None:
    path = tmp_path / "nowhere" / "scores.json"
    outcome = run("eval", "--root", reasonseg, "--protocol", "generate", "--json", path)
    assert_refused(outcome, "nowhere")
    page = tmp_path / "nowhere" / "page.html"
    outcome = run("eval", "--root", reasonseg, "--protocol", "generate", "--html", page)
    assert_refused(outcome, "nowhere")
    assert segmenter.loaded == []


def test_eval_shows_both_protocols_side_by_side(
    run: Run, segmenter: FakeSegmenter, reasonseg: Path, tmp_path: Path
) -> None:
    path, page = tmp_path / "scores.json", tmp_path / "page.html"
    files = ["--json", path, "--html", page, "--per-sample"]
    outcome = run("eval", "--root", reasonseg, "--protocol", "both", *files)
    assert outcome.code == 0
    heading = next(line for line in outcome.out.splitlines() if line.startswith("95%"))
    assert heading.split()[2:] == ["generate", "teacher-forced"]
    scores = json.loads(path.read_text())
    assert (scores["protocol"], scores["n"]) == ("both", 2)
    for protocol, part in scores["protocols"].items():
        assert set(part) == {*SCORES, "samples"}
        assert part["protocol"] == protocol
    assert [asked["answer"] for asked in segmenter.asked] == [None, "[SEG].", None, "[SEG]."]
    assert "<html" in page.read_text()
    assert not list(tmp_path.glob("*.journal"))


def test_eval_goes_on_where_it_was_stopped(
    run: Run, segmenter: FakeSegmenter, reasonseg: Path, tmp_path: Path
) -> None:
    path = tmp_path / "scores.json"
    options = ["--root", reasonseg, "--protocol", "generate"]
    segmenter.raises = KeyboardInterrupt()
    assert run("eval", *options, "--json", path).code == 130
    assert (tmp_path / "scores.json.journal").is_dir() and not path.exists()
    segmenter.raises, segmenter.asked = None, []
    assert run("eval", *options, "--json", path, "--resume").code == 0
    assert len(segmenter.asked) == json.loads(path.read_text())["n"] == 2
    assert_refused(run("eval", *options, "--resume"), "--resume without --json")


def test_eval_refuses_what_the_weights_have_seen(
    run: Run, segmenter: FakeSegmenter, reasonseg: Path, tmp_path: Path, tiny_directory: Path
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    config = json.loads((tiny_directory / "config.json").read_text())
    (mine / "config.json").write_text(json.dumps(config | {"trained_on": ["reasonseg/val"]}))
    options = ["--root", reasonseg, "--protocol", "generate", "--model", mine]
    assert_refused(run("eval", *options), "was trained on reasonseg/val")
    assert segmenter.loaded == []
    path = tmp_path / "scores.json"
    outcome = run("eval", *options, "--allow-contaminated", "--json", path)
    assert outcome.code == 0
    assert "CONTAMINATED: the weights were trained on reasonseg/val" in outcome.out
    assert json.loads(path.read_text())["contaminated"] == "reasonseg/val"


def test_eval_compares_two_runs(
    run: Run, segmenter: FakeSegmenter, reasonseg: Path, tmp_path: Path
) -> None:
    path, out = tmp_path / "scores.json", tmp_path / "difference.json"
    options = ["--protocol", "generate", "--json", path, "--per-sample"]
    assert run("eval", "--root", reasonseg, *options).code == 0
    outcome = run("eval", "--compare", path, path, "--json", out)
    assert (outcome.code, outcome.err) == (0, "")
    assert "better on 0, equal on 2, worse on 0" in outcome.out
    (compared,) = json.loads(out.read_text())
    assert compared["figures"]["gIoU"]["difference"] == 0
    assert_refused(run("eval", "--compare", path, tmp_path / "nowhere.json"), "nowhere.json")


def test_eval_refuses_data_without_masks(run: Run, segmenter: FakeSegmenter) -> None:
    options = ["--dataset", "llava-instruct", "--root", ".", "--protocol", "generate"]
    assert_refused(run("eval", *options), "'llava-instruct' has no masks")


@pytest.mark.parametrize("options", [[], ["--split", "test"]])
def test_eval_names_a_folder_that_is_not_there(
    run: Run, segmenter: FakeSegmenter, tmp_path: Path, options: list[str]
) -> None:
    outcome = run("eval", "--root", tmp_path / "nowhere", "--protocol", "generate", *options)
    assert_refused(outcome, "nowhere", says="no such folder")
    assert segmenter.loaded == []


def test_train_nano_calls_the_recipe_with_what_was_typed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []
    signature = inspect.signature(recipe.train)
    monkeypatch.setattr(recipe, "train", lambda **settings: calls.append(settings))
    assert run("train", "nano", "--data", "photos", "--out", "runs/a").code == 0
    options = ["--seed", "3", "--device", "cpu", "--no-resume", "--steps-scale", "0.01"]
    assert run("train", "nano", "--data", "photos", "--out", "runs/b", *options).code == 0
    assert calls[0] == {
        "data": Path("photos"),
        "out": Path("runs/a"),
        "seed": 0,
        "device": None,
        "resume": True,
        "stage": None,
        "steps_scale": 1.0,
        "kind": "release",
        "start": None,
    }
    assert (
        run("train", "nano", "--data", "d", "--out", "o", "--kind", "ft239", "--start", "z").code
        == 0
    )
    assert (calls[2]["kind"], calls[2]["start"]) == ("ft239", Path("z"))
    changed = {"seed": 3, "device": "cpu", "resume": False, "steps_scale": 0.01}
    assert calls[1] == calls[0] | changed | {"out": Path("runs/b")}
    signature.bind(**calls[0])  # the recipe takes exactly these


def test_train_tunes_with_what_was_typed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    def fake(settings: Any, out: Path) -> Path:
        calls.append((settings, out))
        return out / "model"

    monkeypatch.setattr(finetune, "train", fake)
    outcome = run("train", "--data", "mine", "--out", "runs/a")
    assert outcome == Outcome(0, "wrote runs/a/model and runs/a/report.html\n", "")
    assert calls == [(finetune.Settings("nano", Path("mine")), Path("runs/a"))]
    numbers = ["--steps", "9", "--pictures", "4", "--micro", "2", "--learning-rate", "0.1"]
    others = ["--model", "m", "--preset", "paper", "--dtype", "float32", "--device", "cpu"]
    sets = ["--dataset", "own=2", "--dataset", "refcoco/train", "--seed", "3", "--save-every", "5"]
    typed = run("train", "--data", "d", "--out", "o", *numbers, *others, *sets, "--json")
    assert json.loads(typed.out) == {"model": "o/model", "report": "o/report.html"}
    assert calls[1][0] == finetune.Settings(
        "m", Path("d"), "paper", ("own=2", "refcoco/train"), 9, 4, 2, 0.1, "float32", 5, 3, "cpu"
    )


def test_train_dry_run_trains_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Foreseen:
        def __str__(self) -> str:
            return "much"

        def to_dict(self) -> dict[str, int]:
            return {"much": 1}

    monkeypatch.setattr(dry_run, "estimate", lambda settings: Foreseen())
    monkeypatch.setattr(finetune, "train", lambda *_: pytest.fail("it trains"))
    assert run("train", "--data", "d", "--dry-run") == Outcome(0, "much\n", "")
    assert json.loads(run("train", "--data", "d", "--dry-run", "--json").out) == {"much": 1}


def test_train_says_where_a_configuration_is(run: Run) -> None:
    assert run("train", "--accelerate-config", "fsdp2").out == f"{config_path('fsdp2')}\n"
    assert_refused(run("train", "--accelerate-config", "fsdp9"), "fsdp9", says="fsdp2")


def test_train_calibrate_prints_what_it_found(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def fake(*parts: Any) -> dict[str, float]:
        asked.append(parts)
        return {"score_scale": 0.5, "error_after": 0.0312345}

    monkeypatch.setattr(calibration, "calibrate_directory", fake)
    outcome = run("train", "calibrate", "--data", "photos", "--model", "runs/a/model")
    assert outcome == Outcome(0, "score_scale   0.5\nerror_after   0.03123\n", "")
    assert asked == [(Path("runs/a/model"), Path("photos"), None)]


def test_report_nano_passes_on_what_was_typed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(page, "write_page", lambda *parts: asked.append(parts) or parts[2])
    out = tmp_path / "nano.md"
    options = ["--data", "d", "--model", "release=nano", "--model", "b=runs/a=b", "--limit", "3"]
    options += ["--brief"]
    outcome = run("report", "nano", *options, "--out", out)
    assert (outcome.code, outcome.out) == (0, f"wrote {out}\n")
    models = {"release": "nano", "b": "runs/a=b"}
    assert asked == [(models, Path("d"), out, Path("runs/report"), None, 3, True)]


@pytest.mark.parametrize("model", ["nano", "=nano", "release="])
def test_a_model_to_report_on_has_a_name(run: Run, tmp_path: Path, model: str) -> None:
    outcome = run("report", "nano", "--data", "d", "--model", model, "--out", tmp_path / "a.md")
    assert_refused(outcome, repr(model), says="expected NAME=DIR")


# Large models ------------------------------------------------------------------------------------

LARGE = {"dtype": "bfloat16", "device_map": "auto", "quantize": "4bit"}
LARGE_OPTIONS = ["--dtype", "bfloat16", "--device-map", "auto", "--quantize", "4bit"]


def test_precision_is_handed_to_the_loader(
    run: Run, segmenter: FakeSegmenter, photo: Path, reasonseg: Path
) -> None:
    assert run("segment", photo, "which corner?", *LARGE_OPTIONS).code == 0
    options = ["--root", reasonseg, "--protocol", "generate"]
    assert run("eval", *options, *LARGE_OPTIONS).code == 0
    assert segmenter.loaded == [{"model": "nano", "device": None} | LARGE] * 2


@pytest.mark.parametrize(
    ("option", "named"),
    [("--dtype", "dtype is 'much'"), ("--quantize", "quantize is 'much'")],
)
def test_an_unknown_precision_is_an_error(run: Run, photo: Path, option: str, named: str) -> None:
    assert_refused(run("segment", photo, "which corner?", option, "much"), named)


def test_the_embedded_model_refuses_what_it_cannot_have(run: Run, photo: Path) -> None:
    outcome = run("segment", photo, "which corner?", "--quantize", "4bit")
    assert_refused(outcome, "nano", says="float32")


def test_plan_prints_a_table_or_json(run: Run, tiny_directory: Path) -> None:
    table = run("plan", tiny_directory)
    assert (table.code, table.err) == (0, "")
    assert "language model" in table.out and "float32" in table.out
    outcome = run("plan", tiny_directory, "--tokens", "64", "--json")
    told = json.loads(outcome.out)
    assert (told["model"], told["tokens"]) == (str(tiny_directory), 64)
    assert {"numbers", "parts", "needs", "places", "formulas"} <= told.keys()


def test_plan_names_what_it_cannot_plan(run: Run, tmp_path: Path) -> None:
    assert_refused(run("plan", tmp_path / "nowhere"), "nowhere")
    assert_refused(run("plan"), "--vlm and --decoder", says="expected a model")


# Checkpoints --------------------------------------------------------------------------------------


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A tiny official LISA, its tower beside it."""
    from helpers.official_checkpoint import write_lisa

    (tmp_path / "official").mkdir()
    write_lisa(tmp_path / "official" / "lisa")
    return tmp_path / "official" / "lisa"


def test_convert_prints_what_went_where(run: Run, official: Path, tmp_path: Path) -> None:
    outcome = run("convert", official, tmp_path / "ours")
    assert (outcome.code, outcome.err) == (0, "")
    for words in (
        ["language", "model", "lisa", "vlm.model", "21"],
        ["vision", "tower", "tower", "vlm.model.model.vision_tower", "55"],
        ["mask", "decoder", "lisa", "decoder.model", "137"],
    ):
        assert any(line.split()[: len(words)] == words for line in outcome.out.splitlines())
    assert outcome.out.splitlines()[-1].endswith("is a LISA, made from official LISA")
    assert run("load-check", tmp_path / "ours").code == 0


def test_convert_refuses_in_one_line(run: Run, official: Path, tmp_path: Path) -> None:
    assert_refused(run("convert", tmp_path / "nowhere", tmp_path / "ours"), "nowhere")
    (official / "added_tokens.json").write_text("{}")
    assert_refused(run("convert", official, tmp_path / "ours"), "has no [SEG]")
    assert_refused(run("convert", official, official), str(official), says="new directory")
    assert not (tmp_path / "ours").exists()


def test_load_check_tells_what_is_there(run: Run, official: Path, tmp_path: Path) -> None:
    outcome = run("load-check", official)
    assert (outcome.code, outcome.err) == (0, "")
    assert "official LISA" in outcome.out and "token 400" in outcome.out
    told = json.loads(run("load-check", official, "--json").out)
    assert told["complete"] and told["seg_token_id"] == 400
    (official / "added_tokens.json").write_text("{}")
    outcome = run("load-check", official)
    assert outcome.code == 2 and "has no [SEG]" in outcome.out
    assert outcome.err.count("\n") == 1 and "is not complete" in outcome.err
    assert_refused(run("load-check", tmp_path / "nowhere"), "nowhere")


# Help ---------------------------------------------------------------------------------------------

TRAIN = [["train"], ["train", "nano"], ["train", "calibrate"]]
REPORT = [["report"], ["report", "nano"]]
LARGE_MODELS = [["plan"], ["convert"], ["load-check"]]
COMMANDS = [[], ["segment"], ["eval"], *TRAIN, *REPORT, *LARGE_MODELS]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_explains_every_option(run: Run, command: list[str]) -> None:
    outcome = run(*command, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert f"Usage: {' '.join(['lisa', *command])}" in outcome.out
    assert "[b]" not in outcome.out and "\\[" not in outcome.out  # markup shows as itself nowhere
    assert run(*command, "-h") == outcome


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_examples_in_the_help_can_be_typed(run: Run, command: list[str]) -> None:
    lines = [line.strip() for line in run(*command, "--help").out.splitlines()]
    examples = [shlex.split(line)[1:] for line in lines if line.startswith("lisa ")]
    assert examples or command == ["report"]
    for example in examples:
        if "--help" not in example:
            parse(example)


def test_the_forms_in_the_help_are_the_forms_that_can_be_saved(
    run: Run, segmenter: FakeSegmenter, photo: Path, tmp_path: Path
) -> None:
    lines = [line.strip() for line in run("segment", "--help").out.splitlines()]
    endings = [line.split()[0] for line in lines if line.startswith(".")]
    assert len(endings) == 6
    for ending in endings:
        out = tmp_path / f"found{ending}"
        assert run("segment", photo, "which corner?", "--out", out).code == 0
        assert out.stat().st_size > 0


def test_version(run: Run) -> None:
    assert run("--version") == Outcome(0, f"lisa {lisa.__version__}\n", "")


def test_python_m_lisa_is_the_same_command(run: Run) -> None:
    expected = run("segment", "--help").out
    done = subprocess.run(
        [sys.executable, "-m", "lisa", "segment", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == expected


def test_the_installed_command_is_this_one() -> None:
    try:
        distribution = importlib.metadata.distribution("lisa-seg")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("lisa-seg is run from its source folder, not installed")
    (script,) = distribution.entry_points.select(group="console_scripts")
    assert (script.name, script.load()) == ("lisa", cli.main)
    assert distribution.version == lisa.__version__


@pytest.mark.skipif(os.name != "posix", reason="pipes of another kind")
def test_a_reader_that_leaves_early_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "lisa", "--help"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(writer)
    assert done.returncode in {0, 1}
    assert done.stderr == ""
