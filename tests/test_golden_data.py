"""Our loaders against records of the official data sets (commit 3cb2d43) over a small tree.

The official classes draw with generators that are never seeded, in an order that is an accident of
the code. So a record is held against everything that ours can draw from the same picture: the
question with its mask, the answer, the whole conversation. Validation has no chance in it, and is
held against our examples as they are. All that a record says is read from the folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from helpers.golden_files import GOLDEN, read_arrays, read_json
from lisa.data.datasets import DATASETS, Drawable, open_dataset
from lisa.data.prompts import (
    PAPER_EXPLANATION_REQUESTS,
    absent_answer,
    paper_validation_question,
)
from lisa.example import SEG_TOKEN, Example
from lisa.model.chat_templates import TEMPLATES, Template
from lisa.training.optim import warmup_decay

pytestmark = pytest.mark.skipif(
    not (GOLDEN / "dataset" / "runs.json").is_file(),
    reason=f"no official records in '{GOLDEN}'; set LISA_GOLDEN to their folder",
)
TREE = GOLDEN / "dataset" / "tree"
IMAGE = "<image>\n"
DRAWS = 150  # of one picture: enough to see all that can be drawn
UNKNOWN = 255
OFFICIAL_DEEPSPEED = "deepspeed_0.10.3"
# The records were made with OpenCV before 4.11, which fills slanted polygons otherwise: see the
# manifest. ReasonSeg is held against records of both, pixel by pixel, in test_reasonseg.
FILLS_AS_RECORDED = tuple(int(part) for part in cv2.__version__.split(".")[:2]) < (4, 11)
BORDER_PIXELS = 0 if FILLS_AS_RECORDED else 16
OURS = {  # official names of sets and of (set, splitter)
    "ade20k": "ade20k",
    "cocostuff": "coco-stuff",
    "mapillary": "mapillary",
    "paco_lvis": "paco-lvis",
    "pascal_part": "pascal-part",
    "refclef": "refclef",
    "refcoco": "refcoco",
    "refcoco+": "refcoco+",
    "refcocog": "refcocog-umd",
    "grefcoco": "grefcoco",
    "llava_instruct_150k": "llava-instruct",
}


def read_runs() -> list[dict[str, Any]]:
    if not (GOLDEN / "dataset" / "runs.json").is_file():
        return []
    return list(read_json("dataset/runs.json"))


TRAINING = [run for run in read_runs() if "val_dataset" not in run["config"]]
VALIDATION = [run for run in read_runs() if "val_dataset" in run["config"]]


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return read_arrays("dataset/arrays.npz")


def our_sets(config: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Name and split of our data sets for an official configuration of training."""
    for key in ("sem_seg_data", "refer_seg_data", "vqa_data"):
        for name in filter(None, config.get(key, "").split("||")):
            yield OURS[name], "train" if DATASETS[OURS[name]].splits else None
    if "reason_seg_data" in config:
        yield "reasonseg", config["reason_seg_data"].split("|")[1]


@dataclass
class Possible:
    """All that can be drawn from one picture."""

    masks: dict[tuple[str, str], list[np.ndarray]] = field(default_factory=dict)
    answers: dict[tuple[bool, bool], set[str]] = field(default_factory=dict)
    talks: list[list[str]] = field(default_factory=list)
    ignored: list[np.ndarray] = field(default_factory=list)

    def add(self, example: Example) -> None:
        """Takes note of a drawn example."""
        known = self.masks.setdefault((example.phrase, example.question), [])
        if not any(np.array_equal(example.mask, mask) for mask in known):
            known.append(example.mask)
        kind = (is_explained(example.question), len(example.masks) > 0)
        self.answers.setdefault(kind, set()).add(str(example.answer))
        turns = [(example.question, str(example.answer)), *example.further]
        self.talks.append([text for turn in turns for text in turn])
        if example.ignore is not None and not self.ignored:
            self.ignored.append(example.ignore)


def is_explained(question: str) -> bool:
    return question.endswith(PAPER_EXPLANATION_REQUESTS)


@cache
def places(name: str, split: str | None) -> tuple[Drawable, dict[Path, list[int]]]:
    """A data set, and where each picture is found in it; more than once where it has more talks."""
    dataset = open_dataset(name, TREE, split)
    assert isinstance(dataset, Drawable)
    found: dict[Path, list[int]] = {}
    for index, photo in enumerate(dataset.photos):
        found.setdefault(photo.resolve(), []).append(index)
    return dataset, found


@cache
def drawn_from(name: str, split: str | None, photo: Path) -> Possible:
    dataset, found = places(name, split)
    possible, random = Possible(), np.random.default_rng(0)
    for _ in range(DRAWS if DATASETS[name].family != "vqa" else 1):
        for index in found[photo]:
            for example in dataset.draw(index, random):
                possible.add(example)
    return possible


def candidates(config: dict[str, Any], sample: dict[str, Any]) -> list[Possible]:
    """What each data set that has the picture of a sample can ask about it."""
    photo = (TREE / sample["image_path"]).resolve()
    return [drawn_from(*named, photo) for named in our_sets(config) if photo in places(*named)[1]]


@dataclass(frozen=True)
class Asked:
    """One question of a record."""

    question: str  # without the picture's mark
    name: str
    conversation: str
    mask: np.ndarray  # bool [H, W]
    pointed: bool  # whether the record has a mask for it


def asked_of(sample: dict[str, Any], masks: np.ndarray) -> list[Asked]:
    texts = zip(
        sample["questions"], sample["sampled_classes"], sample["conversations"], strict=True
    )
    nothing = np.zeros(masks.shape[1:], bool)
    return [
        Asked(
            question.removeprefix(IMAGE),
            name.strip().lower(),
            conversation,
            masks[number] > 0 if len(masks) else nothing,
            len(masks) > 0,
        )
        for number, (question, name, conversation) in enumerate(texts)
    ]


def can_be_asked(asked: Asked, possible: Possible, template: Template) -> bool:
    if not asked.question.startswith(template.system):
        if not has_mask(asked, possible):
            return False
        if asked.pointed and not asked.mask.any():  # the official answer points at nothing
            return absent_answer(asked.name) in possible.answers[False, False]
        answers = possible.answers[is_explained(asked.question), asked.pointed]
        return any(
            written(template, [asked.question, answer]) == asked.conversation for answer in answers
        )
    return any(written(template, talk) == asked.conversation for talk in possible.talks)


def has_mask(asked: Asked, possible: Possible) -> bool:
    """Whether the question is asked, of that name, with that mask."""
    return any(
        np.count_nonzero(mask != asked.mask) <= (0 if phrase else BORDER_PIXELS)  # ReasonSeg: ""
        for (phrase, question), masks in possible.masks.items()
        if question == asked.question and phrase in ("", asked.name)
        for mask in masks
    )


def written(template: Template, turns: Sequence[str]) -> str:
    return template.write([f"{IMAGE}{turns[0]}", *turns[1:]])


@pytest.mark.parametrize("run", TRAINING, ids=[run["run"] for run in TRAINING])
def test_official_samples_can_be_drawn(run: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    template = TEMPLATES[run["conv_type"]]
    assert run["samples"]
    for sample in run["samples"]:
        masks = arrays.get(f"{sample['key']}.masks", np.zeros(sample["mask_shape"], np.uint8))
        assert list(masks.shape) == sample["mask_shape"]
        questions = asked_of(sample, masks)
        matches = [
            possible
            for possible in candidates(run["config"], sample)
            if all(can_be_asked(asked, possible, template) for asked in questions)
        ]
        assert matches, f"{sample['key']} cannot be drawn"
        label = arrays.get(f"{sample['key']}.label")
        if label is not None:
            assert any(
                np.array_equal(label == UNKNOWN, ignored)
                for possible in matches
                for ignored in possible.ignored
            )


@pytest.mark.parametrize("run", TRAINING, ids=[run["run"] for run in TRAINING])
def test_as_many_questions_are_asked(run: dict[str, Any]) -> None:
    """Three, fewer where there are fewer; a run that was told another number has its own."""
    most = run["config"].get("num_classes_per_sample", 3)
    for sample in run["samples"]:
        photo = (TREE / sample["image_path"]).resolve()
        found = [places(*named) for named in our_sets(run["config"])]
        counts = {
            len(dataset.draw(index, np.random.default_rng(0)))
            for dataset, indices in found
            for index in indices.get(photo, ())
        }
        assert len(sample["conversations"]) in {min(most, count) for count in counts}


@pytest.mark.parametrize("run", VALIDATION, ids=[run["run"] for run in VALIDATION])
def test_official_validation_samples(run: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    name, *_, split = run["config"]["val_dataset"].split("|")
    dataset = open_dataset(OURS.get(name, "reasonseg"), TREE, split)
    examples = list(dataset)
    template = TEMPLATES[run["conv_type"]]
    assert len(examples) == sum(len(sample["conversations"]) for sample in run["samples"])
    for sample in run["samples"]:
        masks = arrays[f"{sample['key']}.masks"]
        shown = Path(sample["image_path"]).name
        of_picture = [example for example in examples if example.name.split("#")[0] == shown]
        for example, mask, official in zip(of_picture, masks, sample["conversations"], strict=True):
            asked = paper_validation_question(example.question, sentence="long" in example.tags)
            assert written(template, [f" {asked}", f"{SEG_TOKEN}."]) == official
            target, ignored = (mask > 0) & (mask != UNKNOWN), mask == UNKNOWN
            assert np.count_nonzero(example.mask != target) <= BORDER_PIXELS
            if example.ignore is not None:
                assert np.count_nonzero(example.ignore != ignored) <= BORDER_PIXELS


def test_every_layout_of_the_tree_loads() -> None:
    """Each folder of the tree is opened by at least one data set, and gives an example."""
    opened = set()
    for name, kind in DATASETS.items():
        for split in kind.splits or (None,):
            try:
                dataset = open_dataset(name, TREE, split)
            except Exception:
                continue
            assert dataset[0].image.width
            assert dataset[len(dataset) - 1].question
            opened.add(name)
    named = {OURS[key] for key in OURS if any(TREE.rglob(key)) or any(TREE.rglob(f"{key}.json"))}
    assert named
    assert opened >= named


@pytest.mark.skipif(not (GOLDEN / "schedule").is_dir(), reason="no record of the schedule")
def test_the_official_schedule() -> None:
    """From the second update on all versions agree; the first went at the full rate in one."""
    for name, rates in read_json("schedule/warmup_decay.json").items():
        version, *settings = name.split("|")
        values = dict(setting.split("=") for setting in settings)
        steps, warmup, rate = int(values["total"]), int(values["warmup"]), float(values["lr"])
        for update, recorded in rates.items():
            if update == "0" and version != OFFICIAL_DEEPSPEED:
                continue
            ours = rate * warmup_decay(int(update), steps, warmup, "official")
            assert ours == pytest.approx(recorded, rel=1e-12, abs=1e-18), (name, update)
