"""Making a ReasonSeg-style set: who may decide what, what is kept, what is rejected and why."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from helpers.own_files import boxes, make_coco, make_labelme, mask, picture
from lisa.annotation.authoring import (
    Benchmark,
    Decision,
    Verdict,
    names_its_target,
    same_person,
    start,
)
from lisa.annotation.formats.source import Source
from lisa.data.reasonseg import ReasonSeg
from lisa.errors import DataError, OutputError, QuestionError

SHARES = {"train": 0.5, "val": 0.25, "test": 0.25}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A set that was just begun: eight pictures of zarps, every other one of a blue fip, too."""
    start(Source(make_labelme(tmp_path / "source", 8)), tmp_path / "set")
    return tmp_path / "set"


def written(root: Path, by: str = "Ann") -> Benchmark:
    """The set with a question about every target."""
    benchmark = Benchmark(root)
    for number, (target, _) in enumerate(benchmark.to_write()):
        question = f"what would you take on journey {number}?"
        benchmark.write(Decision(target.key, by, question, "The one.", "function"))
    return benchmark


def checked(root: Path) -> Benchmark:
    benchmark = written(root)
    for number, _, _ in benchmark.to_check("Bob"):
        benchmark.check(Verdict(number, "Bob", True))
    return benchmark


def test_names_are_picked_evenly(root: Path) -> None:
    names = [target.name for target in Benchmark(root).targets.values()]
    assert names.count("blue fip") == 4 and names.count("zarp") == 4


def test_a_finished_set_is_one_of_reasonseg(root: Path) -> None:
    finished = checked(root).finish(SHARES)
    assert finished.splits == {"train": 4, "val": 2, "test": 2}
    samples = [sample for split in finished.splits for sample in ReasonSeg(finished.out, split)]
    assert len(samples) == 8
    for sample in samples:
        number = int(sample.name[1:3])
        box = boxes(number)[number % 2]
        np.testing.assert_array_equal(sample.mask, mask(box))
        assert sample.phrase == box[0].replace("_", " ")
        assert sample.question.startswith("what would you take") and sample.answer == "The one."
        assert sample.tags == {"long", "function"}


def test_the_work_goes_on_where_it_stopped(root: Path) -> None:
    first = Benchmark(root)
    (target, _), *_ = first.to_write()
    first.write(Decision(target.key, "Ann", "what is it for?"))
    again = Benchmark(root)
    assert len(again.to_write()) == 7
    assert [decision.question for _, _, decision in again.to_check("Bob")] == ["what is it for?"]


def test_nobody_checks_what_they_wrote(root: Path) -> None:
    benchmark = written(root, "Ann Lee")
    assert benchmark.to_check("ann  LEE") == []
    with pytest.raises(DataError, match="expected a second person"):
        benchmark.check(Verdict(0, "ann lee", True))
    assert len(benchmark.to_check("Bob")) == 8
    assert same_person("Ann-Lee", "ann lee") and not same_person("Ann", "Bob")


def test_a_refused_question_is_written_and_checked_again(root: Path) -> None:
    benchmark = written(root)
    number, target, _ = benchmark.to_check("Bob")[0]
    benchmark.check(Verdict(number, "Bob", False, "too vague"))
    assert benchmark.to_write() == [(target, "no: too vague")]
    good, rejected = benchmark.samples()
    assert not good and "no: too vague" in {one.reason for one in rejected}
    benchmark.write(Decision(target.key, "Ann", "what is better?"))
    assert benchmark.to_write() == []
    assert target.key in {one.key for _, one, _ in benchmark.to_check("Bob")}


def test_a_skipped_target_does_not_come_back(root: Path) -> None:
    benchmark = Benchmark(root)
    (target, _), *_ = benchmark.to_write()
    benchmark.write(Decision(target.key, "Ann"))
    assert target.key not in {one.key for one, _ in benchmark.to_write()}
    assert benchmark.to_check("Bob") == []
    assert benchmark.samples() == ([], [])


def test_bad_samples_are_listed_with_the_reason(root: Path) -> None:
    benchmark = checked(root)
    keys = list(benchmark.targets)
    first = benchmark.decisions[0].question.upper() + " "
    benchmark.write(Decision(keys[1], "Ann", first))
    number = len(benchmark.decisions) - 1
    benchmark.check(Verdict(number, "Bob", True))
    benchmark.write(Decision(keys[2], "Ann", "what is new?"))
    finished = benchmark.finish(SHARES)
    assert {one.key: one.reason for one in finished.rejected} == {
        keys[1]: f"the same question as for '{keys[0]}'",
        keys[2]: "nobody has checked it",
    }
    assert sum(finished.splits.values()) == 6
    lines = (root / "rejected.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == keys[1:3]


def test_finishing_again_replaces_what_was_finished(root: Path) -> None:
    benchmark = checked(root)
    benchmark.finish(SHARES)
    benchmark.write(Decision(next(iter(benchmark.targets)), "Ann"))
    finished = benchmark.finish({"train": 1.0})
    assert finished.splits == {"train": 7}
    assert [path.name for path in finished.out.iterdir()] == ["train"]
    assert not [path for path in root.iterdir() if path.name.startswith(".")]


def test_nearly_equal_pictures_share_a_split(tmp_path: Path) -> None:
    source = make_labelme(tmp_path / "source", 4)
    for number in range(4):
        content = json.loads((source / f"p0{number}.json").read_text())
        (source / f"q{number}.json").write_text(
            json.dumps(content | {"imagePath": f"q{number}.png"})
        )
        picture(number).point(lambda value: value * 0.9).save(source / f"q{number}.png")
    start(Source(source), tmp_path / "set")
    finished = checked(tmp_path / "set").finish(SHARES)
    for split in finished.splits:
        names = [sample.name for sample in ReasonSeg(finished.out, split)]
        numbers = [name[1:3].lstrip("0").rstrip("-") or "0" for name in names]
        assert all(numbers.count(number) == 2 for number in numbers)


def test_a_target_is_of_a_good_size(tmp_path: Path) -> None:
    source = make_coco(tmp_path / "source", 2)
    content = json.loads((source / "annotations.json").read_text())
    content["annotations"] = [
        content["annotations"][0] | {"segmentation": [[0, 0, 60, 0, 60, 40, 0, 40]]}
    ]
    (source / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="shows nothing to ask for"):
        start(Source(source), tmp_path / "set")
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("question", "name", "expected"),
    [
        ("where is the cup?", "cup", True),
        ("where are the Cups", "cup", True),
        ("what hiccups?", "cup", False),
        ("which cup is it?", "red cup", True),
        ("what is red?", "red cup", False),
        ("who wears glasses?", "glasses", True),
        ("a glass of what?", "glasses", True),
        ("two boxes", "box", True),
        ("what keeps coffee warm?", "thermos", False),
    ],
)
def test_a_question_does_not_name_its_target(question: str, name: str, expected: bool) -> None:
    assert names_its_target(question, name) == expected


def test_what_cannot_be_kept_is_refused(root: Path) -> None:
    benchmark = Benchmark(root)
    key = next(key for key in benchmark.targets if key.endswith("zarp"))
    with pytest.raises(DataError, match="names its target, the zarp"):
        benchmark.write(Decision(key, "Ann", "where is the zarp?"))
    with pytest.raises(DataError, match="there is no target"):
        benchmark.write(Decision("other", "Ann", "what?"))
    with pytest.raises(DataError, match="expected --by NAME"):
        benchmark.write(Decision(key, " ", "what?"))
    with pytest.raises(QuestionError):
        benchmark.write(Decision(key, "Ann", "what? " * 1000))
    with pytest.raises(DataError, match="no decision 4"):
        benchmark.check(Verdict(4, "Bob", True))
    assert not (root / "written.jsonl").exists()
    with pytest.raises(DataError, match=r"no sample of .* is good"):
        benchmark.finish(SHARES)


def test_a_set_is_begun_once(root: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is there already"):
        start(Source(tmp_path / "source"), root)
    with pytest.raises(DataError, match="expected a folder begun with a SOURCE"):
        Benchmark(tmp_path)


def test_pictures_of_any_kind_become_jpg(root: Path) -> None:
    finished = checked(root).finish({"train": 1.0})
    formats = {PIL.Image.open(path).format for path in (finished.out / "train").glob("*.jpg")}
    assert formats == {"JPEG"}
