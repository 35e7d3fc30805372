"""Two runs of the same samples: by hand, against resampling written out, and what is refused."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.threshold_segmenter import Blocks, ThresholdSegmenter, open_task
from lisa.errors import DataError
from lisa.evaluation.compare import Run, compare, compare_files
from lisa.evaluation.distributed import Job, run
from lisa.evaluation.evaluate import evaluate, report_dict, summarise
from lisa.evaluation.metrics import SampleScore, SegmentationMetrics

FULL, EMPTY = np.ones((2, 10), bool), np.zeros((2, 10), bool)


def strip(pixels: int) -> np.ndarray:
    mask = EMPTY.copy()
    mask[:, :pixels] = True
    return mask


def made(predictions: list[np.ndarray], targets: list[np.ndarray], **about: Any) -> Run:
    metrics = SegmentationMetrics()
    for n, (prediction, target) in enumerate(zip(predictions, targets, strict=True)):
        tags = {"long" if n % 2 else "short"}
        metrics.update(prediction, target, answered=True, name=f"{n}.jpg", tags=tags)
    parts = {"model": "m", "dataset": "d", "protocol": "generate", "contaminated": None} | about
    return Run(samples=metrics.samples, **parts)


def test_differences_by_hand() -> None:
    targets = [FULL, FULL, EMPTY, EMPTY]
    first = made([strip(8), strip(2), EMPTY, EMPTY], targets)
    second = made([strip(4), strip(6), EMPTY, FULL], targets)
    found = compare(first, second)
    assert (found.n, found.wins, found.ties, found.losses) == (4, 2, 1, 1)
    giou = found.figures["gIoU"]
    assert (giou.first, giou.second) == pytest.approx(((0.8 + 0.2 + 2) / 4, 2 / 4), abs=1e-5)
    assert giou.difference == pytest.approx(0.25, abs=1e-5)
    assert found.figures["N_acc"].difference == 1 / 2
    assert found.figures["cIoU"].difference == pytest.approx(20 / 40 - 20 / 60)
    assert found.figures["P@0.5"].difference == 0
    assert "naming_rate" not in found.figures
    assert found.by["short"].difference == pytest.approx((0.8 - 0.4) / 2, abs=1e-5)


def test_the_interval_is_that_of_pairs_drawn_together() -> None:
    generator = np.random.default_rng(0)
    hard = generator.integers(1, 9, 80)
    targets = [FULL] * 80
    first = made([strip(n + 1) for n in hard], targets)
    second = made([strip(n) for n in hard], targets)
    giou = compare(first, second).figures["gIoU"]
    assert (giou.difference, giou.low, giou.high) == pytest.approx((0.1, 0.1, 0.1), abs=1e-5)
    pairs = np.array([(a, a + 1) for a in hard])
    drawn = [generator.choice(pairs, 80).sum(0) @ (-1, 1) / 800 for _ in range(500)]
    assert np.quantile(drawn, [0.025, 0.975]) == pytest.approx((giou.low, giou.high), abs=1e-5)


def test_the_interval_of_a_ratio_against_resampling_written_out() -> None:
    generator = np.random.default_rng(1)
    ours, theirs = generator.integers(1, 10, (2, 90))
    found = compare(*(made([strip(n) for n in one], [strip(5)] * 90) for one in (ours, theirs)))
    sums = np.stack([np.minimum(ours, 5), np.maximum(ours, 5)], 1)
    others = np.stack([np.minimum(theirs, 5), np.maximum(theirs, 5)], 1)
    drawn = []
    for _ in range(3000):
        rows = generator.integers(0, 90, 90)
        (a, b), (c, d) = sums[rows].sum(0), others[rows].sum(0)
        drawn.append(a / b - c / d)
    figure = found.figures["cIoU"]
    expected = np.quantile(drawn, [0.025, 0.975])
    assert (figure.low, figure.high) == pytest.approx(tuple(expected), abs=0.01)


def test_a_run_is_as_good_as_itself() -> None:
    one = made([strip(3), EMPTY], [FULL, EMPTY])
    found = compare(one, one)
    assert (found.wins, found.ties, found.losses) == (0, 2, 0)
    assert {(f.difference, f.low, f.high) for f in found.figures.values()} == {(0.0, 0.0, 0.0)}


# Files


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def both(tmp_path: Path) -> Path:
    task = open_task(9)
    outcome = run(Job(lambda number: ThresholdSegmenter(), lambda: task))
    assert outcome is not None
    parts = [summarise(task, outcome.records, one, "threshold") for one in task.protocols]
    return write(tmp_path / "both.json", report_dict(parts, samples=True))


def test_files_of_both_protocols_give_two_comparisons(both: Path) -> None:
    found = compare_files(both, both)
    assert [one.first["protocol"] for one in found] == ["generate", "teacher-forced"]
    assert all(one.ties == one.n == 9 for one in found)
    assert json.loads(json.dumps(found[0].to_dict()))["figures"]["gIoU"]["difference"] == 0


def test_a_file_of_one_protocol_meets_its_like(both: Path, tmp_path: Path) -> None:
    forced = evaluate(ThresholdSegmenter(), Blocks(9), protocol="teacher-forced").to_dict(True)
    alone = write(tmp_path / "forced.json", forced)
    (found,) = compare_files(both, alone)
    assert found.ties == 9
    own = evaluate(ThresholdSegmenter(), Blocks(9), protocol="generate").to_dict(True)
    (across,) = compare_files(write(tmp_path / "own.json", own), alone)
    assert (across.first["protocol"], across.second["protocol"]) == ("generate", "teacher-forced")


def test_the_text_names_both_runs_and_warns() -> None:
    one = made([strip(3)], [FULL], model="a", contaminated="d/val")
    text = str(compare(one, made([strip(4)], [FULL], model="b")))
    assert "first   a on d, protocol generate, CONTAMINATED: trained on d/val" in text
    assert "second  b on d, protocol generate\n" in text
    assert "better on 0, equal on 0, worse on 1" in text
    assert any(line.split()[:2] == ["gIoU", "0.3000"] for line in text.splitlines())


@pytest.mark.parametrize(
    "content",
    [
        '{"protocol": "generate"',
        "[]",
        "3",
        "{}",
        '{"protocol": "generate", "samples": []}',
        '{"protocol": "generate", "model": "m", "dataset": "d", "samples": [{"name": "a"}]}',
        '{"protocol": "both", "protocols": {"generate": {}}}',
    ],
)
def test_what_is_no_run_is_refused_in_one_line(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"a\.json' has no scores of samples; expected"):
        compare_files(path, path)


def test_a_run_without_its_samples_is_refused(tmp_path: Path) -> None:
    values = evaluate(ThresholdSegmenter(), Blocks(4), protocol="generate").to_dict()
    with pytest.raises(DataError, match="has no scores of samples"):
        compare_files(write(tmp_path / "a.json", values), tmp_path / "a.json")
    with pytest.raises(DataError, match=r"cannot read .*nowhere\.json"):
        compare_files(tmp_path / "nowhere.json", tmp_path / "a.json")


def renamed(run: Run, **changes: Any) -> Run:
    samples = tuple(SampleScore(**asdict(one) | changes) for one in run.samples)
    return Run(run.model, run.dataset, run.protocol, run.contaminated, samples)


def test_other_samples_are_refused() -> None:
    one, two = made([strip(3)], [FULL]), made([strip(3)] * 2, [FULL] * 2)
    with pytest.raises(DataError, match="cannot compare 1 with 2 samples"):
        compare(one, two)
    with pytest.raises(DataError, match=r"sample 0 is '0\.jpg' in the one and 'b\.jpg'"):
        compare(one, renamed(one, name="b.jpg"))
    with pytest.raises(DataError, match="its target is in one of them only"):
        compare(one, renamed(one, present=False))
