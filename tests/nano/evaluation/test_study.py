"""The measures of a study on a tiny model and tiny data: complete, kept, and taken once."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from helpers.training_data import EVERYDAY, write_stamps_of, write_training_data
from lisa.errors import DataError
from lisa.models import load
from lisa.nano.evaluation import study
from lisa.nano.evaluation.study import First, Study, fingerprint, ious, run
from lisa.nano.training import symbolic
from lisa.predict import Segmenter

BASIC = {
    *("generate", "teacher-forced", "by-name", "composite-phrasings", "composite-things"),
    *("held-out knowledge", "referring"),
}
CONTROLS = {"shuffled", "largest thing", "centre ellipse", "no language model", "no names"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_training_data(tmp_path_factory.mktemp("data"))
    write_stamps_of(root / "photos" / "stamps", EVERYDAY)
    return root


@pytest.fixture(scope="module")
def finished(
    data: Path, tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    """What a whole study of three questions each found, and its folder."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(symbolic, "MEASURED", 2)
        subject = Study(load(tiny_directory, "cpu"), data, limit=3)
        return run(subject, tiny_directory, cache, controls=True), cache


def test_every_measure_is_taken(finished: tuple[dict[str, Any], Path]) -> None:
    found, _ = finished
    assert found.keys() == BASIC | CONTROLS
    for name in BASIC | CONTROLS:
        assert json.loads(json.dumps(found[name])) == found[name]
    for name in ("generate", "teacher-forced", "by-name", *CONTROLS):
        assert (found[name]["n"], len(found[name]["samples"])) == (2, 2)
        assert found[name]["failures"] == []
    assert found["by-name"]["dataset"] == "reasonseg-by-name"
    assert found["teacher-forced"]["protocol"] == "teacher-forced"
    assert found["shuffled"]["shuffle_questions"] == 0
    assert found["centre ellipse"]["model"] == "centre ellipse"


def test_choices_and_ceilings_are_shares(finished: tuple[dict[str, Any], Path]) -> None:
    found, _ = finished
    for kind in ("phrasings", "things"):
        composite = found[f"composite-{kind}"]
        low, high = composite["right_ci"]
        assert composite["n"] == 3
        assert 0 <= low <= composite["right"] <= high <= 1
        assert 0 <= found["held-out knowledge"][kind] <= 1
    assert found["referring"]["ceiling"] == pytest.approx(1)  # no photograph shows two of a name


def test_what_was_measured_is_not_measured_again(
    finished: tuple[dict[str, Any], Path],
    data: Path,
    tiny_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, cache = finished

    def refuse(*parts: Any, **settings: Any) -> None:
        raise AssertionError("measured again")

    (path,) = cache.iterdir()
    assert json.loads(path.read_text()) == found
    for name in ("on_composites", "on_words", "on_referring", "on_val"):
        monkeypatch.setattr(Study, name, refuse)
    subject = Study(load(tiny_directory, "cpu"), data, limit=3)
    assert run(subject, tiny_directory, cache, controls=True) == found
    with pytest.raises(AssertionError, match="measured again"):  # another limit is another study
        run(Study(subject.segmenter, data, limit=2), tiny_directory, cache, controls=False)


def test_a_stopped_study_goes_on_where_it_was(
    data: Path,
    tiny_directory: Path,
    segmenter: Segmenter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def until_the_third(self: Study, controls: bool, brief: bool) -> dict[str, Any]:
        def measure(name: str) -> dict[str, str]:
            asked.append(name)
            if asked.count("c") == 1 and name == "c":
                raise KeyboardInterrupt
            return {"name": name}

        return {name: lambda name=name: measure(name) for name in "abcd"}

    monkeypatch.setattr(Study, "measures", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(Study(segmenter, data), tiny_directory, tmp_path, controls=False)
    found = run(Study(segmenter, data), tiny_directory, tmp_path, controls=False)
    assert asked == ["a", "b", "c", "c", "d"]
    assert found == {name: {"name": name} for name in "abcd"}


def test_a_brief_study_asks_the_validation_samples_alone(
    data: Path, tiny_directory: Path, segmenter: Segmenter, tmp_path: Path
) -> None:
    found = run(Study(segmenter, data, 2), tiny_directory, tmp_path, controls=False, brief=True)
    assert found.keys() == {"generate"} and found["generate"]["n"] == 2


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "found.json").write_text("{")
    with pytest.raises(DataError, match=r"found.json' is not JSON .*; remove it to measure anew"):
        study.read_figures(tmp_path / "found.json")


def test_a_model_is_known_by_its_files(tiny_directory: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_directory, tmp_path / "copy")
    assert fingerprint(copy) == fingerprint(tiny_directory)
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    assert fingerprint(copy) != fingerprint(tiny_directory)


def test_the_first_of_a_set(data: Path) -> None:
    assert [len(First([1, 2, 3], limit)) for limit in (None, 2, 9)] == [3, 2, 3]  # type: ignore[list-item]
    assert list(First(["a", "b", "c"], 2)) == ["a", "b"]  # type: ignore[list-item]


def test_only_targets_that_are_there_are_compared() -> None:
    samples = [{"iou": 0.5, "present": True}, {"iou": 1.0, "present": False}]
    assert ious({"samples": samples}) == [0.5]
