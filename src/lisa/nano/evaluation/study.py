"""Everything that is measured of a small model, one measure after the other, each kept on disk.

A study that was stopped goes on with the measures that are missing. This file knows which
questions are asked of whom; how a page shows the figures is another's business.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from lisa.checkpoints.directory import model_directory
from lisa.data.reasonseg import ReasonSeg
from lisa.errors import DataError
from lisa.evaluation.bootstrap import mean_interval
from lisa.evaluation.evaluate import evaluate
from lisa.evaluation.metrics import SegmentationMetrics
from lisa.evaluation.runner import AsksQuestions, names_the_target
from lisa.example import Example
from lisa.files import write_atomically
from lisa.nano.evaluation.ablations import (
    CentreEllipse,
    LargestThing,
    WithoutLanguageModel,
    WithoutNames,
)
from lisa.nano.evaluation.test_sets import ByName, CompositeSet, ReferringSet, chosen
from lisa.nano.model.segmenter import nano_parts
from lisa.nano.training.symbolic import choices, held_out_scenes
from lisa.predict import Segmenter

Figures = dict[str, Any]  # what JSON can hold

SHUFFLE_SEED = 0


class First(Sequence[Example]):
    """The first ``limit`` examples; all where it is None."""

    def __init__(self, examples: Sequence[Example], limit: int | None) -> None:
        self.examples, self.limit = examples, limit
        self.name = getattr(examples, "name", type(examples).__name__)

    def __len__(self) -> int:
        return len(self.examples) if self.limit is None else min(self.limit, len(self.examples))

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]  # no slices
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.examples[index]


@dataclass(frozen=True)
class Study:
    """What is asked of one model.

    Attributes:
        segmenter: the model.
        data: the data folder, with ``photos`` and ``reasonseg_nano/val``.
        limit: ask only so many questions of each set; None: all.
    """

    segmenter: Segmenter
    data: Path
    limit: int | None = None

    def measures(self, controls: bool, brief: bool = False) -> dict[str, Callable[[], Figures]]:
        """The measures by name; the controls, too, where they are asked for; or just the first."""
        segmenter = self.segmenter
        parts = nano_parts(segmenter) if controls else ()
        found: dict[str, Callable[[], Figures]] = {
            "generate": lambda: self.on_val(segmenter),
            "teacher-forced": lambda: self.on_val(segmenter, protocol="teacher-forced"),
            "by-name": lambda: self.on_val(segmenter, by_name=True),
            "composite-phrasings": lambda: self.on_composites("phrasings"),
            "composite-things": lambda: self.on_composites("things"),
            "held-out knowledge": self.on_words,
            "referring": self.on_referring,
        }
        if brief:
            return {"generate": found["generate"]}
        if controls:
            found |= {
                "shuffled": lambda: self.on_val(segmenter, shuffle=SHUFFLE_SEED),
                "largest thing": lambda: self.on_val(LargestThing(segmenter)),
                "centre ellipse": lambda: self.on_val(CentreEllipse()),
                "no language model": lambda: self.on_val(Segmenter(WithoutLanguageModel(*parts))),
                "no names": lambda: self.on_val(Segmenter(WithoutNames(*parts))),
            }
        return found

    def val(self) -> Sequence[Example]:
        """The validation samples."""
        return First(ReasonSeg(self.data / "reasonseg_nano", "val"), self.limit)

    def on_val(
        self,
        segmenter: AsksQuestions,
        protocol: str = "generate",
        by_name: bool = False,
        shuffle: int | None = None,
    ) -> Figures:
        """Scores on the validation samples, sample by sample."""
        examples = ByName(self.val()) if by_name else self.val()
        scores = evaluate(
            segmenter, examples, protocol=protocol, shuffle_questions=shuffle, progress=True
        )
        return scores.to_dict(samples=True)

    def on_composites(self, kind: str) -> Figures:
        """How often the right one of eight things is pointed at, and named."""
        scenes = CompositeSet(self.data, kind)
        count = len(First(scenes, self.limit))
        right, named = [], []
        for index in track(range(count), f"choosing, {kind}", console=Console(stderr=True)):
            scene, asked = scenes.scene(index)
            result = self.segmenter.segment(asked.image, asked.question)
            right.append(chosen(result.mask, scene.regions) == asked.phrase)
            named.append(bool(names_the_target(result.text, asked.phrase)))
        low, high = mean_interval(right)
        return {
            "n": count,
            "right": float(np.mean(right)),
            "right_ci": [low, high],
            "named": float(np.mean(named)),
        }

    def on_words(self) -> Figures:
        """How often the right one of eight imagined things is named."""
        model, processor = nano_parts(self.segmenter)
        scenes = held_out_scenes(processor.config)
        few = {name: part[: self.limit] for name, part in scenes.items()}
        found = choices(model, processor, few)
        return {name.removeprefix("val_"): value for name, value in found.items()}

    def on_referring(self) -> Figures:
        """Scores on held-out photographs, and those of one who knows no "left" or "large"."""
        examples = ReferringSet(self.data)
        some = First(examples, self.limit)
        scores = evaluate(self.segmenter, some, protocol="generate", progress=True)
        ceiling = SegmentationMetrics()
        for index in range(len(some)):
            asked = examples[index]
            union = examples.class_union(index)
            ceiling.update(union, asked.mask, answered=True, tags=asked.tags)
        unions = ceiling.compute()
        return scores.to_dict() | {
            "ceiling": unions.cIoU,
            "ceiling_by": {tag: group.cIoU for tag, group in unions.by.items()},
        }


def run(
    study: Study, model: str | Path, cache: Path, controls: bool, brief: bool = False
) -> Figures:
    """All measures by name; those found in ``cache`` are not taken again.

    Args:
        study: what is asked.
        model: name or directory; its files decide which measures are its own.
        cache: folder, with a file for each model and limit.
        controls: whether the controls are measured, too.
        brief: only the validation samples are asked, as a user would.

    Raises:
        DataError: the data are not there, or a file of the cache is damaged.
    """
    path = cache / f"{fingerprint(model)}{'' if study.limit is None else f'-{study.limit}'}.json"
    found = read_figures(path)
    for name, measure in study.measures(controls, brief).items():
        if name not in found:
            found[name] = measure()
            write_atomically(path, json.dumps(found, indent=1).encode())
    return found


def read_figures(path: Path) -> Figures:
    """What a study that was here before has measured."""
    if not path.is_file():
        return {}
    try:
        found: Figures = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"'{path}' is not JSON ({error}); remove it to measure anew") from error
    return found


def fingerprint(model: str | Path) -> str:
    """The same for the same files of a model's directory."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(model_directory(model).iterdir()):
        if path.suffix in (".json", ".safetensors"):
            digest.update(path.name.encode())
            digest.update(hashlib.blake2b(path.read_bytes()).digest())
    return digest.hexdigest()


def ious(figures: Mapping[str, Any]) -> list[float]:
    """The IoU of each sample that has a target."""
    return [sample["iou"] for sample in figures["samples"] if sample["present"]]
