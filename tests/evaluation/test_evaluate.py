"""The evaluation loop, with a segmenter that answers from a table."""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lisa.data.reasonseg import ReasonSeg
from lisa.errors import DataError, ImageError, LisaError, ModelError
from lisa.evaluation.evaluate import Failure, evaluate, report_dict, report_text, summarise
from lisa.evaluation.runner import READ_AHEAD, Task, ask, names_the_target
from lisa.example import Example
from lisa.masks import Mask
from lisa.result import Result

SIZE = 8
Answer = Sequence[np.ndarray] | BaseException


def block(left: int, right: int) -> np.ndarray:
    """bool [SIZE, SIZE] with the columns from `left` up to `right` set."""
    mask = np.zeros((SIZE, SIZE), bool)
    mask[:, left:right] = True
    return mask


def example(question: str, target: np.ndarray | None, tag: str = "short") -> Example:
    masks = np.zeros((0, SIZE, SIZE), bool) if target is None else target[np.newaxis]
    return Example(
        image=PIL.Image.new("RGB", (SIZE, SIZE)),
        question=question,
        masks=masks,
        name=f"{question}.jpg",
        tags=frozenset({tag}),
    )


class TableSegmenter:
    """Answers each question with the masks, or the error, that a table holds for it."""

    name = "table"

    def __init__(self, table: Mapping[str, Answer]) -> None:
        self.table = table
        self.asked: list[tuple[str, str | None]] = []

    def segment(
        self, image: PIL.Image.Image, question: str, *, answer: str | None = None
    ) -> Result:
        self.asked.append((question, answer))
        entry = self.table[question]
        if isinstance(entry, BaseException):
            raise entry
        masks = tuple(Mask(mask, "", 0.5) for mask in entry)
        height, width = masks[0].mask.shape if masks else (SIZE, SIZE)
        return Result(PIL.Image.new("RGB", (width, height)), question, "It is there.", masks)


class BrokenDataset(Sequence[Example]):
    """Two samples; the photo of the second cannot be read."""

    name = "broken"

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        if index == 1:
            raise ImageError("cannot read image 'b.jpg': cut short")
        return example("left", block(0, 4))


SAMPLES = [
    example("left", block(0, 4)),
    example("half", block(0, 4), "long"),
    example("silent", block(4, 8), "long"),
    example("absent", None),
]
TABLE = {
    "left": [block(0, 2), block(2, 4)],
    "half": [block(0, 2)],
    "silent": [],
    "absent": [],
}


# Scores


def test_every_question_is_asked_and_scored() -> None:
    segmenter = TableSegmenter(TABLE)
    evaluation = evaluate(segmenter, SAMPLES, protocol="generate")
    scores = evaluation.scores
    assert segmenter.asked == [(name, None) for name in ["left", "half", "silent", "absent"]]
    assert scores.n == 4
    assert scores.gIoU == pytest.approx((1 + 1 / 2 + 0 + 1) / 4, abs=1e-5)
    assert scores.gIoU_present == pytest.approx((1 + 1 / 2 + 0) / 3, abs=1e-5)
    assert scores.cIoU == pytest.approx((32 + 16 + 0 + 0) / (32 + 32 + 32 + 0))
    assert (scores.N_acc, scores.emission_rate) == (1, 2 / 3)
    assert (scores.by["long"].n, scores.by["short"].n) == (2, 2)


def test_ignored_pixels_are_ignored() -> None:
    sample = Example(
        image=PIL.Image.new("RGB", (SIZE, SIZE)),
        question="left",
        masks=block(0, 2)[np.newaxis],
        ignore=block(2, 4),
    )
    evaluation = evaluate(TableSegmenter(TABLE), [sample], protocol="generate")
    assert evaluation.scores.cIoU == pytest.approx(1)


def test_teacher_forcing_gives_the_answer_of_the_paper() -> None:
    segmenter = TableSegmenter(TABLE)
    evaluation = evaluate(segmenter, SAMPLES, protocol="teacher-forced")
    assert {answer for _, answer in segmenter.asked} == {"[SEG]."}
    assert evaluation.protocol == "teacher-forced"


def test_seconds_are_the_mean_time_of_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 11.0, 20.0, 24.0])
    monkeypatch.setattr(
        "lisa.evaluation.runner.time", SimpleNamespace(perf_counter=lambda: next(clock))
    )
    table = {"left": TABLE["left"], "half": ModelError("no")}
    evaluation = evaluate(TableSegmenter(table), SAMPLES[:2], protocol="generate")
    assert evaluation.seconds_per_question == pytest.approx((1 + 4) / 2)


# Failures


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModelError("no such tensor"), "no such tensor"),
        (MemoryError("tried to allocate\n  2 GiB"), "MemoryError: tried to allocate 2 GiB"),
    ],
)
def test_a_sample_that_raises_is_wrong_and_listed(error: Exception, message: str) -> None:
    table = TABLE | {"half": error, "absent": error}
    evaluation = evaluate(TableSegmenter(table), SAMPLES, protocol="generate")
    assert evaluation.failures == (Failure("half.jpg", message), Failure("absent.jpg", message))
    assert evaluation.scores.failures == ("half.jpg", "absent.jpg")
    assert evaluation.scores.gIoU == pytest.approx(1 / 4, abs=1e-5)
    assert evaluation.scores.cIoU == pytest.approx(32 / (32 + 32 + 32))
    assert (evaluation.scores.N_acc, evaluation.scores.emission_rate) == (0, 1 / 3)


def test_a_mask_of_another_size_is_a_failure() -> None:
    segmenter = TableSegmenter({"left": [np.ones((SIZE, SIZE + 1), bool)]})
    evaluation = evaluate(segmenter, SAMPLES[:1], protocol="generate")
    assert evaluation.scores.gIoU == 0
    assert "expected bool [8, 8]" in evaluation.failures[0].message


def test_an_unreadable_sample_counts_as_a_target_missed() -> None:
    evaluation = evaluate(TableSegmenter(TABLE), BrokenDataset(), protocol="generate")
    assert evaluation.failures == (Failure("sample 1", "cannot read image 'b.jpg': cut short"),)
    assert evaluation.scores.n == 2
    assert evaluation.scores.gIoU_present == pytest.approx(1 / 2, abs=1e-5)
    assert evaluation.scores.emission_rate == 1 / 2
    assert evaluation.scores.N_acc is None


def test_an_interrupt_is_not_a_failure() -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate(TableSegmenter({"left": KeyboardInterrupt()}), SAMPLES[:1], protocol="generate")


# The control


@given(count=st.integers(2, 40), seed=st.integers(0, 2**32))
def test_shuffling_asks_each_photo_anothers_question(count: int, seed: int) -> None:
    samples = [example(f"q{index}", None) for index in range(count)]
    segmenter = TableSegmenter({sample.question: [] for sample in samples})
    evaluate(segmenter, samples, protocol="generate", shuffle_questions=seed)
    asked = [question for question, _ in segmenter.asked]
    own = [sample.question for sample in samples]
    assert sorted(asked) == sorted(own)
    assert all(question != mine for question, mine in zip(asked, own, strict=True))


def test_the_same_seed_shuffles_alike_and_another_does_not() -> None:
    samples = [example(f"q{index}", None) for index in range(30)]
    orders = []
    for seed in [1, 1, 2]:
        segmenter = TableSegmenter({sample.question: [] for sample in samples})
        evaluate(segmenter, samples, protocol="generate", shuffle_questions=seed)
        orders.append(segmenter.asked)
    assert orders[0] == orders[1] != orders[2]


def test_shuffling_costs_a_segmenter_that_reads_the_question() -> None:
    samples = [example(f"q{column}", block(column, column + 1)) for column in range(SIZE)]
    table = {sample.question: [sample.mask] for sample in samples}
    own = evaluate(TableSegmenter(table), samples, protocol="generate")
    other = evaluate(TableSegmenter(table), samples, protocol="generate", shuffle_questions=0)
    assert own.scores.gIoU == pytest.approx(1, abs=1e-5)
    assert other.scores.gIoU == 0


# Reports


def test_the_json_has_exactly_these_keys() -> None:
    evaluation = evaluate(
        TableSegmenter(TABLE | {"half": OSError("x")}), SAMPLES, protocol="generate"
    )
    values = evaluation.to_dict()
    assert json.loads(json.dumps(values)) == values
    assert " ".join(values) == (
        "dataset split protocol model contaminated n gIoU gIoU_present cIoU boundary_IoU "
        "precision N_acc T_acc emission_rate naming_rate intervals gIoU_present_ci failures by ECE "
        "reliability seconds_per_question footprint"
    )
    assert (values["dataset"], values["model"]) == ("list", "table")
    assert values["failures"] == [{"name": "half.jpg", "message": "OSError: x"}]
    assert set(values["by"]) == {"long", "short"}


def test_the_json_has_each_sample_where_it_is_asked_for() -> None:
    values = evaluate(TableSegmenter(TABLE), SAMPLES, protocol="generate").to_dict(samples=True)
    assert [sample["name"] for sample in values["samples"]] == [s.name for s in SAMPLES]
    assert [sample["score"] for sample in values["samples"]] == [0.5, 0.5, None, None]
    assert json.loads(json.dumps(values)) == values


@pytest.mark.parametrize(
    ("text", "phrase", "named"),
    [
        ("The cup.", "cup", True),
        ("The cups.", "cup", True),
        ("The CUP.", "cup", True),
        ("The cupboard.", "cup", False),
        ("The feline.", "cat", True),
        ("", "cup", False),
        ("The cup.", "", None),
    ],
)
def test_a_target_is_named_by_its_name_or_a_synonym(
    text: str, phrase: str, named: bool | None
) -> None:
    assert names_the_target(text, phrase) is named


def test_answers_that_name_the_target_are_counted() -> None:
    named = [
        replace(sample, phrase=name)
        for sample, name in zip(SAMPLES, ("it", "cup", "", "it"), strict=True)
    ]
    scores = evaluate(TableSegmenter(TABLE), named, protocol="generate").scores
    assert scores.naming_rate == 1 / 2  # "It is there."; one has no name, one is absent


def test_questions_can_be_put_in_the_words_of_the_paper() -> None:
    nothing = np.zeros((1, SIZE, SIZE), bool)
    picture = SAMPLES[0].image
    samples = [
        Example(picture, "the left one", masks=nothing, tags=frozenset({"short"})),
        Example(picture, "What barks?", masks=nothing, tags=frozenset({"long"})),
    ]
    asked = [
        "What is the left one in this image? Please output segmentation mask.",
        "What barks? Please output segmentation mask.",
    ]
    segmenter = TableSegmenter({question: [] for question in asked})
    task = Task(samples, ("generate",), paper_wording=True)
    records = list(ask(segmenter, task, range(2)))
    assert [record.question for record in records] == asked
    evaluation = summarise(task, records, "generate", "fake")
    assert not evaluation.failures
    assert evaluation.to_dict()["paper_wording"] is True
    assert "in the paper's words" in str(evaluation)


def test_the_json_names_the_seed_of_a_shuffled_run() -> None:
    evaluation = evaluate(TableSegmenter(TABLE), SAMPLES, protocol="generate", shuffle_questions=0)
    assert evaluation.to_dict()["shuffle_questions"] == 0
    assert "questions shuffled (seed 0)" in str(evaluation)


def test_the_table_names_protocol_model_and_failures() -> None:
    table = TABLE | {"half": ModelError("no such tensor")}
    text = str(evaluate(TableSegmenter(table), SAMPLES, protocol="teacher-forced"))
    assert text.startswith("table on list, protocol teacher-forced\n")
    assert "half.jpg: no such tensor" in text
    assert "seconds per question" in text


def test_progress_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(TableSegmenter(TABLE), SAMPLES, protocol="generate", progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "asking" in shown.err
    evaluate(TableSegmenter(TABLE), SAMPLES, protocol="generate")
    assert capsys.readouterr() == ("", "")


# Bad input


def test_what_cannot_be_evaluated_is_refused() -> None:
    segmenter = TableSegmenter(TABLE)
    with pytest.raises(LisaError, match="unknown protocol 'greedy'; expected generate or teacher"):
        evaluate(segmenter, SAMPLES, protocol="greedy")
    with pytest.raises(DataError, match="cannot evaluate a data set of 0; expected at least 1"):
        evaluate(segmenter, [], protocol="generate")
    with pytest.raises(DataError, match="cannot shuffle the questions of a data set of 1"):
        evaluate(segmenter, SAMPLES[:1], protocol="generate", shuffle_questions=3)


# Several protocols, and parts of a task


def test_both_protocols_share_a_sample() -> None:
    segmenter = TableSegmenter(TABLE)
    task = Task(SAMPLES, ("generate", "teacher-forced"))
    records = list(ask(segmenter, task, range(4)))
    assert [(one.index, one.protocol) for one in records] == [
        (index, protocol) for index in range(4) for protocol in task.protocols
    ]
    assert segmenter.asked[:2] == [("left", None), ("left", "[SEG].")]
    both = [summarise(task, records[::-1], protocol, "table") for protocol in task.protocols]
    alone = evaluate(TableSegmenter(TABLE), SAMPLES, protocol="generate")
    assert both[0].scores == alone.scores and both[0].samples == alone.samples
    values = report_dict(both)
    assert (values["protocol"], values["n"], [*values["protocols"]]) == (
        "both",
        4,
        [*task.protocols],
    )
    assert json.loads(json.dumps(values)) == values
    assert "protocols generate and teacher-forced" in report_text(both)


def test_what_is_done_is_not_asked_again() -> None:
    segmenter = TableSegmenter(TABLE)
    task = Task(SAMPLES, ("generate", "teacher-forced"))
    done = {(0, "generate"), (1, "generate"), (1, "teacher-forced")}
    records = list(ask(segmenter, task, range(3), done=done))
    assert [(one.index, one.protocol) for one in records] == [
        (0, "teacher-forced"),
        (2, "generate"),
        (2, "teacher-forced"),
    ]
    assert len(segmenter.asked) == 3


def test_answers_must_be_complete_and_single() -> None:
    task = Task(SAMPLES, ("generate",))
    records = list(ask(TableSegmenter(TABLE), task, range(4)))
    for wrong in (records[:-1], [*records, records[0]], []):
        with pytest.raises(DataError, match="answers to 4 questions; expected one for each"):
            summarise(task, wrong, "generate", "table")


def test_records_hold_what_was_said_and_pointed_at() -> None:
    record, *_ = ask(TableSegmenter(TABLE), Task(SAMPLES, ("generate",)), range(4))
    assert (record.question, record.text, record.error) == ("left", "It is there.", None)
    assert [mask.rle for mask in record.masks] == [Mask(m, "", 0.5).rle for m in TABLE["left"]]


def test_samples_are_read_ahead_by_one_reader_in_order() -> None:
    reads: list[tuple[int, int]] = []

    class Watched(Sequence[Example]):
        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> Example:  # type: ignore[override]
            reads.append((index, threading.get_ident()))
            return SAMPLES[0]

    asked = ask(TableSegmenter(TABLE), Task(Watched(), ("generate",)), range(8))
    next(asked)
    assert len(reads) <= 1 + READ_AHEAD + 1
    list(asked)
    assert [index for index, _ in reads] == list(range(8))
    assert len({thread for _, thread in reads} | {threading.get_ident()}) == 2


# A folder on disk


def test_a_reasonseg_folder(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (SIZE, SIZE)).save(tmp_path / "a.jpg")
    shape = {"label": "target", "points": [[0, 0], [3, 0], [3, 7], [0, 7]]}
    content = {"text": ["left", "half"], "is_sentence": True, "shapes": [shape]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    values = evaluate(TableSegmenter(TABLE), ReasonSeg(tmp_path), protocol="generate").to_dict()
    assert (values["dataset"], values["n"], list(values["by"])) == ("reasonseg", 1, ["long"])
    assert values["gIoU_present"] == pytest.approx(1, abs=1e-4)
