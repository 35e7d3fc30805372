"""Making a ReasonSeg-style set: targets are picked, one person writes, another checks, all resumes.

    SET/targets.jsonl    what is asked for: a picture, a name, a mask; written once
    SET/images/          their pictures
    SET/written.jsonl    a line a decision of a writer: a question, or that the target is skipped
    SET/checked.jsonl    a line a verdict of a second person
    SET/reasonseg/       the finished set: train/, val/ and test/ in the layout of ReasonSeg
    SET/rejected.jsonl   what is not in it, and why

Decisions are only ever added, each flushed to the disk at once; the last one about a target counts,
and a verdict counts for the decision that it was given on. This file knows the folder and the rules
of a good sample; it refuses to know screens and keyboards.
"""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lisa.annotation.formats.source import Source
from lisa.annotation.formats.table import FORMATS, format_of
from lisa.annotation.importing import new_folder, take
from lisa.annotation.near_duplicates import fingerprint, groups_of, stamp
from lisa.annotation.polygons import as_polygons, kept_by_polygons
from lisa.data.annotated import MarkedPicture, RunLengths, area_of, united
from lisa.data.reasonseg import ReasonSeg
from lisa.data.records import BadRecords
from lisa.errors import DataError
from lisa.example import check_question
from lisa.files import append, records_of
from lisa.image import image_bytes, load_image
from lisa.masks import decode_rle

TARGETS, WRITTEN, CHECKED = "targets.jsonl", "written.jsonl", "checked.jsonl"
FINISHED, REJECTED = "reasonseg", "rejected.jsonl"
SPLITS = ("train", "val", "test")
SMALLEST, LARGEST = 0.001, 0.8  # of the picture, that a target covers
SAME_OUTLINE = 0.98  # IoU that a mask must keep when it becomes polygons
KINDS = (
    *("function", "attribute", "cause", "comparison", "exclusion"),
    *("knowledge", "safety", "social", "spatial"),
)


@dataclass(frozen=True)
class Target:
    """Something to write a question about."""

    key: str  # "photo.jpg: cup"
    image: str  # in ``SET/images``
    name: str
    mask: RunLengths


@dataclass(frozen=True)
class Decision:
    """What a writer decided about a target."""

    key: str
    by: str
    question: str = ""  # "": the target is skipped
    answer: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a second person said of a decision, by its number among all decisions."""

    decision: int
    by: str
    good: bool
    comment: str = ""


@dataclass(frozen=True)
class Rejected:
    """A target that is not in the finished set."""

    key: str
    question: str
    reason: str


@dataclass(frozen=True)
class Finished:
    """What a finished set holds."""

    out: Path
    splits: dict[str, int]
    rejected: list[Rejected]

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON can hold it."""
        return {**asdict(self), "out": str(self.out)}


class Benchmark:
    """A set in the making.

    Args:
        root: the folder that ``start`` made.

    Raises:
        DataError: it is no such folder, or a record in it is broken.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        if not (root / TARGETS).is_file():
            raise DataError(f"no '{root / TARGETS}'; expected a folder begun with a SOURCE")
        self.targets = {one.key: one for one in records_of(root / TARGETS, Target)}
        self.decisions = records_of(root / WRITTEN, Decision)
        self.verdicts = records_of(root / CHECKED, Verdict)

    @property
    def last(self) -> dict[str, int]:
        """The number of the decision that counts, by target."""
        return {one.key: number for number, one in enumerate(self.decisions)}

    def verdicts_on(self, number: int) -> list[Verdict]:
        """What was said of a decision."""
        return [verdict for verdict in self.verdicts if verdict.decision == number]

    def to_write(self) -> list[tuple[Target, str]]:
        """Targets without a question, or with one that was refused; and why, if it was."""
        found = []
        for key, target in self.targets.items():
            number = self.last.get(key)
            refusals = [] if number is None else self.refusals(number)
            if number is None or refusals:
                found.append((target, "; ".join(refusals)))
        return found

    def refusals(self, number: int) -> list[str]:
        """What those who refused a decision said."""
        return [f"no: {one.comment}" for one in self.verdicts_on(number) if not one.good]

    def to_check(self, by: str) -> list[tuple[int, Target, Decision]]:
        """Questions that another person wrote, and that nobody has checked."""
        return [
            (number, self.targets[key], self.decisions[number])
            for key, number in self.last.items()
            if self.decisions[number].question
            and not same_person(self.decisions[number].by, by)
            and not self.verdicts_on(number)
        ]

    def write(self, decision: Decision) -> None:
        """Keep a decision.

        Raises:
            DataError: it is about no target, by nobody, or names its target. QuestionError: it
                cannot be asked.
        """
        check_person(decision.by)
        if decision.key not in self.targets:
            raise DataError(f"there is no target '{decision.key}'; expected one of {TARGETS}")
        if decision.question:
            check_question(decision.question)
            if names_its_target(decision.question, self.targets[decision.key].name):
                name = self.targets[decision.key].name
                raise DataError(f"{decision.question!r} names its target, the {name}")
        append(self.root / WRITTEN, asdict(decision))
        self.decisions.append(decision)

    def check(self, verdict: Verdict) -> None:
        """Keep a verdict.

        Raises:
            DataError: it is on no decision, or by the person who made it.
        """
        check_person(verdict.by)
        if not 0 <= verdict.decision < len(self.decisions):
            raise DataError(f"there is no decision {verdict.decision}")
        if same_person(verdict.by, self.decisions[verdict.decision].by):
            raise DataError(f"{verdict.by} wrote it; expected a second person to check it")
        append(self.root / CHECKED, asdict(verdict))
        self.verdicts.append(verdict)

    def samples(self) -> tuple[list[tuple[Target, Decision]], list[Rejected]]:
        """What may be in the finished set, and what may not."""
        good, rejected, asked = [], [], dict[str, str]()
        for key, number in self.last.items():
            decision = self.decisions[number]
            if decision.question:
                reason = self.fault(number) or duplicate(decision, asked)
                if reason:
                    rejected.append(Rejected(key, decision.question, reason))
                else:
                    asked[plain(decision.question)] = key
                    good.append((self.targets[key], decision))
        return good, rejected

    def fault(self, number: int) -> str:
        """Why a decision may not be used; "" if it may."""
        decision, verdicts = self.decisions[number], self.verdicts_on(number)
        target = self.targets[decision.key]
        if names_its_target(decision.question, target.name):
            return f"it names its target, the {target.name}"
        if not verdicts:
            return "nobody has checked it"
        if self.refusals(number):
            return "; ".join(self.refusals(number))
        kept = kept_by_polygons(decode_rle(target.mask))
        return "" if kept >= SAME_OUTLINE else f"polygons keep {kept:.0%} of its mask"

    def finish(self, shares: Mapping[str, float], seed: int = 0) -> Finished:
        """Write the finished set; one that was written before is replaced.

        Args:
            shares: of the pictures, by split; nearly equal pictures share one.
            seed: decides which.

        Raises:
            DataError: no sample is good.
        """
        good, rejected = self.samples()
        if not good:
            raise DataError(f"no sample of '{self.root}' is good; {len(rejected)} are rejected")
        splits = self.divided([target.image for target, _ in good], shares, seed)
        out = self.root / FINISHED
        fresh = out.with_name(f".{FINISHED}-{uuid.uuid4().hex}")
        try:
            for split in dict.fromkeys(splits):
                (fresh / split).mkdir(parents=True)
            for (target, decision), split in zip(good, splits, strict=True):
                self.write_sample(fresh / split, target, decision)
            for split in dict.fromkeys(splits):
                ReasonSeg(fresh, split)  # it can be read
            shutil.rmtree(out, ignore_errors=True)
            fresh.rename(out)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        text = "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in rejected)
        (self.root / REJECTED).write_text(text, encoding="utf-8")
        counts = {split: splits.count(split) for split in SPLITS if split in splits}
        return Finished(out, counts, rejected)

    def divided(self, images: Sequence[str], shares: Mapping[str, float], seed: int) -> list[str]:
        """The split of each sample, by its picture."""
        names = sorted(set(images))
        prints, stamps = [], []
        for name in names:
            image = load_image(self.root / "images" / name)
            prints.append(fingerprint(image))
            stamps.append(stamp(image))
        groups = groups_of(prints, stamps)
        order = np.random.default_rng(seed).permutation(len(groups))
        bounds = np.cumsum([shares.get(split, 0.0) for split in SPLITS])
        split_of, before = dict[str, str](), 0
        for place in order:
            middle = (before + len(groups[place]) / 2) / len(names) * bounds[-1]
            chosen = SPLITS[int(np.searchsorted(bounds, middle))]
            split_of |= {names[member]: chosen for member in groups[place]}
            before += len(groups[place])
        return [split_of[image] for image in images]

    def write_sample(self, folder: Path, target: Target, decision: Decision) -> None:
        """NAME.jpg and NAME.json."""
        source = self.root / "images" / target.image
        words = re.sub(r"[^\w.-]+", "-", f"{source.stem}-{target.name}")
        image = folder / f"{words}.jpg"
        if source.suffix.lower() in (".jpg", ".jpeg"):
            shutil.copyfile(source, image)
        else:
            image.write_bytes(image_bytes(load_image(source), "JPEG"))
        content = {
            "text": [decision.question],
            "is_sentence": decision.question.rstrip().endswith((".", "?", "!")),
            "shapes": [
                {"label": "target", "points": points.tolist()}
                for points in as_polygons(decode_rle(target.mask))
            ],
            "answer": decision.answer or f"The {target.name}.",
            "target_name": target.name,
            "kind": decision.kind,
        }
        image.with_suffix(".json").write_text(
            json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8"
        )


# ------------------------------------------------------------------ beginning


def start(
    source: Source, root: Path, format_name: str | None = None, skip_bad: bool = False
) -> list[str]:
    """Pick a target in each picture of a source and make the folder; what was skipped.

    The name that was picked least so far is taken, so that names come evenly.

    Raises:
        DataError: the source is broken or shows nothing. OutputError: the folder is there.
    """
    bad, picked = BadRecords(skip_bad), dict[str, int]()
    with new_folder(root) as folder:
        targets = []
        for picture in FORMATS[format_of(source, format_name)].read(source, bad):
            name = least_picked(picture, picked)
            if name is not None:
                with bad.of(f"'{picture.name}'"):
                    kept, _ = take(picture, folder)
                    masks = [thing.mask for thing in picture.things if thing.name == name]
                    key = f"{kept.name}: {name}"
                    targets.append(Target(key, kept.name, name, united(masks)))
                    picked[name] = picked.get(name, 0) + 1
        if not targets:
            raise DataError(f"'{source.path}' shows nothing to ask for; expected named masks")
        text = "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in targets)
        (folder / TARGETS).write_text(text, encoding="utf-8")
    return bad.messages


def least_picked(picture: MarkedPicture, picked: Mapping[str, int]) -> str | None:
    """The name in a picture that was picked least so far, of those of a good size."""
    sizes: dict[str, float] = {}
    for thing in picture.things:
        share = area_of(thing.mask) / (picture.height * picture.width)
        sizes[thing.name] = sizes.get(thing.name, 0.0) + share
    good = [name for name, share in sizes.items() if SMALLEST <= share <= LARGEST]
    return min(good, key=lambda name: (picked.get(name, 0), name), default=None)


# ------------------------------------------------------------------ rules


def names_its_target(question: str, name: str) -> bool:
    """Whether a question has the name of its target, or the last word of it, in one or many."""
    stem = re.escape(re.sub(r"(?<=\w\w)(?:es|s)$", "", name.lower().split()[-1]))
    return re.search(rf"\b{stem}(?:es|s)?\b", question.lower()) is not None


def plain(question: str) -> str:
    """A question without what two askings of it may differ in."""
    return " ".join(re.findall(r"\w+", question.lower()))


def duplicate(decision: Decision, asked: Mapping[str, str]) -> str:
    """Why a question is not new; "" if it is."""
    other = asked.get(plain(decision.question))
    return f"the same question as for '{other}'" if other is not None else ""


def same_person(one: str, other: str) -> bool:
    """Whether two names are one person's, however they are written."""
    return plain(one) == plain(other)


def check_person(name: str) -> None:
    """Somebody must have done it."""
    if not plain(name):
        raise DataError(f"the name {name!r} is nobody's; expected --by NAME")
