"""Stage "recall": the question, read by itself, learns to find the name that answers it.

Texts and names go through the language model's lowest layers once; attention pools of both are
trained until a text is nearer to its own name than to any other (InfoNCE, arXiv 1807.03748).
Definitions make it broad: they are of thousands of nouns. All texts about known names are kept in
mind, too (``remember``). Then a few numbers are fitted that weigh what is recalled and remembered,
what the eyes see and what the language model would say, on questions that recall has not seen;
where no question may be read, on definitions that were kept for this. The language model and the
eyes stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from lisa.data.prompts import present_answer
from lisa.data.reasonseg import ReasonSeg
from lisa.nano.data.knowledge import taught, things
from lisa.nano.data.sources import Photos
from lisa.nano.data.text_pairs import (
    FREELY,
    Pair,
    asked_questions,
    definitions,
    named,
    questions,
    sample_questions,
)
from lisa.nano.model.candidates import FirstPass, collect, first_pass
from lisa.nano.model.lisa import NanoModel
from lisa.nano.model.processor import LisaProcessor, pad
from lisa.nano.model.retriever import Evidence, Recall
from lisa.nano.model.vlm import Prefix
from lisa.nano.training.joint import asked_photos
from lisa.training.loop import Task

EPOCHS = 12  # and more where there are fewer ...
MANY_TEXTS = 8000  # ... than these, so that definitions are learnt
BATCH = 128  # texts a step ...
GLOSSES = 96  # ... and as many definitions, among ...
NOUNS = 512  # ... more names than they have
LEARNING_RATE, WARMUP, WEIGHT_DECAY = 1e-3, 40, 0.05
FORGOTTEN = 0.15  # of a text's tokens while training
NAMED_TEXTS = 1500
READ_AT_ONCE = 64


class RecallTask(Task):
    """What recall has learnt: its parameters, and the keys and prompts that follow from them."""

    model: NanoModel

    def __init__(self, model: NanoModel) -> None:
        super().__init__(model, [model.vlm.recall])

    def trained_names(self) -> set[str]:
        """All of recall."""
        return {f"model.vlm.recall.{name}" for name in self.model.vlm.recall.state_dict()}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load recall, however many texts it remembers."""
        memory = self.model.vlm.recall.memory
        for name in ("texts", "about"):
            stored = state_dict.get(f"model.vlm.recall.memory.{name}")
            if stored is not None:
                setattr(memory, name, getattr(memory, name).new_zeros(stored.shape))
        return super().load_state_dict(state_dict, strict, assign)


def recall_names(concepts: Sequence[str]) -> list[str]:
    """The names that questions are compared with: known things, and what the eyes were taught."""
    return sorted({*things(), *concepts})


@dataclass(frozen=True)
class States:
    """What the lowest layers make of texts: float16 [T, H] each."""

    rows: list[Tensor]

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """States [N, T, H] and which are known [N, T]."""
        rows = [self.rows[n] for n in index.tolist()]
        states = nn.utils.rnn.pad_sequence(rows, batch_first=True).float()
        lengths = torch.tensor([len(row) for row in rows], device=states.device)
        return states, torch.arange(states.shape[1], device=states.device) < lengths[:, None]


@torch.no_grad()
def read_texts(model: NanoModel, processor: LisaProcessor, texts: Sequence[str]) -> States:
    """All texts through the lowest layers, the short ones first."""
    ids = [processor.recall_ids(text) for text in texts]
    order = sorted(range(len(ids)), key=lambda n: len(ids[n]))
    rows: list[Tensor] = [torch.empty(0)] * len(ids)
    for start in track(range(0, len(order), READ_AT_ONCE), "reading"):
        some = order[start : start + READ_AT_ONCE]
        states, known = model.vlm.read_alone(pad([ids[n] for n in some], -1).to(model.device))
        for n, state, is_text in zip(some, states, known, strict=True):
            rows[n] = state[is_text].half()
    return States(rows)


def pairs_to_learn(root: Path, reasoning: bool, samples: bool) -> list[Pair]:
    """Texts and names beside the definitions.

    Args:
        root: the data folder.
        reasoning: with the implicit questions about known things and photographs.
        samples: with those of ``reasonseg_nano/train239`` that have a target.
    """
    found = named(sorted(things()), NAMED_TEXTS)
    if reasoning:
        found += [*questions(taught()), *asked_questions(list(Photos(root).folders))]
    if samples:
        found += sample_questions(ReasonSeg(root / "reasonseg_nano", "train239"))
    return found


def learn_to_recall(
    model: NanoModel, processor: LisaProcessor, pairs: Sequence[Pair], epochs: int = EPOCHS
) -> None:
    """Train the pools on pairs and definitions, then write what is kept of texts and names."""
    recall, names = model.vlm.recall, processor.config.recall_names
    known = things()
    taught_names = [
        n for n, name in enumerate(names) if not (name in known and known[name].held_out)
    ]
    place = {names[n]: k for k, n in enumerate(taught_names)} | {FREELY: len(taught_names)}
    pairs = [pair for pair in pairs if pair.name in place]
    targets = torch.tensor([place[pair.name] for pair in pairs], device=model.device)
    texts = read_texts(model, processor, [pair.text for pair in pairs])
    keyed = read_texts(model, processor, names)
    defined = Definitions.read(model, processor)
    chosen = torch.tensor(taught_names)

    def loss(some: Tensor) -> Tensor:
        keys = recall.name(*keyed.batch(chosen))
        log_odds = recall(*forgetful(*texts.batch(some)), keys)
        return F.nll_loss(log_odds, targets[some]) + defined.loss(recall)

    train_pools(recall, loss, len(pairs), epochs)
    remember(recall, names, [*zip(pairs, texts.rows, strict=True), *defined.pairs()])
    with torch.no_grad():
        recall.keys.copy_(recall.name(*keyed.batch(torch.arange(len(names)))))
        ids = pad([processor.phrase_ids(name) for name in names], -1)
        recall.prompts.copy_(model.phrase_prompts(ids.to(model.device)))


def remember(recall: Recall, names: Sequence[str], read: Iterable[tuple[Pair, Tensor]]) -> None:
    """Keep in mind which of the names each text is about that was read into states [T, H]."""
    place = {name: n for n, name in enumerate(names)}
    known = [(states, place[pair.name]) for pair, states in read if pair.name in place]
    means = torch.stack([states.float().mean(0) for states, _ in known])
    about = torch.tensor([name for _, name in known], device=means.device)
    recall.memory.learn(means, about)


@dataclass(frozen=True)
class Definitions:
    """Definitions of nouns, and the nouns."""

    defined: list[Pair]
    texts: States
    nouns: States
    targets: Tensor  # [texts] which noun each defines

    @classmethod
    def read(cls, model: NanoModel, processor: LisaProcessor) -> Definitions:
        """All that are not kept for weighing."""
        texts = definitions(held_out=False)
        pairs = [Pair(text, noun) for noun, of_one in texts.items() for text in of_one]
        nouns = sorted(texts)
        place = {noun: n for n, noun in enumerate(nouns)}
        return cls(
            pairs,
            read_texts(model, processor, [pair.text for pair in pairs]),
            read_texts(model, processor, nouns),
            torch.tensor([place[pair.name] for pair in pairs]),
        )

    def pairs(self) -> Iterator[tuple[Pair, Tensor]]:
        """Each definition with its states."""
        return zip(self.defined, self.texts.rows, strict=True)

    def loss(self, recall: Recall) -> Tensor:
        """Some definitions must find their nouns among others."""
        some = torch.randperm(len(self.targets))[:GLOSSES]
        others = torch.randperm(len(self.nouns.rows))[:NOUNS]
        nouns = torch.cat([self.targets[some], others]).unique()
        keys = recall.name(*self.nouns.batch(nouns))
        log_odds = recall(*forgetful(*self.texts.batch(some)), keys)
        wanted = torch.searchsorted(nouns, self.targets[some]).to(log_odds.device)
        return F.nll_loss(log_odds, wanted)


def forgetful(states: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """States of which some are not looked at, never all of a text."""
    kept = torch.rand(known.shape, device=known.device) > FORGOTTEN
    kept[:, 0] = True
    return states, known & kept


def train_pools(recall: Recall, loss: Callable[[Tensor], Tensor], count: int, epochs: int) -> None:
    """Adam over ``count`` texts, ``epochs`` times, on a cosine."""
    recall.requires_grad_(True).train()
    steps = epochs * math.ceil(count / BATCH)
    optimizer = torch.optim.AdamW(recall.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda k: min(1.0, (k + 1) / WARMUP) * (1 + math.cos(math.pi * k / steps)) / 2,
    )
    order: list[Tensor] = []
    for _ in track(range(steps), "recall"):
        order = order or list(torch.randperm(count).split(BATCH))
        value = loss(order.pop())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        scheduler.step()
    recall.eval()


# ------------------------------------------------------------------ recalled against seen


@dataclass(frozen=True)
class Looked:
    """A question about a photograph: what is recalled and seen, and what is right."""

    text: str
    image: Image.Image
    target: int  # the place of the right name


def questions_to_weigh(root: Path, names: Sequence[str], reasoning: bool) -> list[Looked]:
    """Questions about what is there that recall has not seen; without reasoning, definitions."""
    place = {name: n for n, name in enumerate(names)}
    return (asked_of_photographs if reasoning else defined_in_photographs)(root, place)


def asked_of_photographs(root: Path, place: Mapping[str, int]) -> list[Looked]:
    """What was asked about the photographs that are kept for this."""
    found = []
    for folder, index, asked in asked_photos(Photos(root), held_out=True):
        image = Image.fromarray(folder.picture(index)[0])
        found += [
            Looked(text, image, place[one.target])
            for one in asked
            for text in one.texts
            if one.target in place and not one.absent
        ]
    return found


def defined_in_photographs(root: Path, place: Mapping[str, int]) -> list[Looked]:
    """Definitions that recall has not seen of what is on photographs that training leaves out."""
    defined, found = definitions(held_out=True), []
    for folder in Photos(root, "held-out").folders.values():
        for index in range(len(folder)):
            pixels, shown = folder.picture(index)
            there = [name for name in dict.fromkeys(shown) if name in defined and name in place]
            image = Image.fromarray(pixels)
            found += [Looked(text, image, place[name]) for name in there for text in defined[name]]
    return found


Seeing = tuple[Looked, Prefix, Tensor]  # a question, the picture, and what is seen in it


@torch.no_grad()
def pictured(
    model: NanoModel, processor: LisaProcessor, asked: Sequence[Looked], title: str
) -> Iterator[Seeing]:
    """Each question with its picture, which is looked at once for those in a row."""
    last, seeing = None, None
    for one in track(asked, title):
        if seeing is None or one.image is not last:
            pictures = processor.encode_pictures([one.image]).to(model.device)
            features = model.decoder.encode_image(pictures.pixel_values)
            prefix = model.vlm.keep(pictures, model.vlm.visual_embeddings(features))
            seeing, last = (prefix, model.vlm.recall.look(features.keys)), one.image
        yield one, *seeing


def glimpses(
    model: NanoModel, processor: LisaProcessor, asked: Sequence[Looked], title: str
) -> Iterator[FirstPass]:
    """What is known at first sight about each question."""
    row = torch.zeros(1, dtype=torch.long, device=model.device)
    answers = list(map(present_answer, processor.config.recall_names))
    for one, prefix, seen in pictured(model, processor, asked, title):
        yield first_pass(model.vlm, processor, prefix, row, [one.text], seen, answers)


def learn_to_weigh(
    model: NanoModel, processor: LisaProcessor, asked: Sequence[Looked]
) -> dict[str, float]:
    """Fit how recalled, seen and said names are weighed against each other.

    First what makes a name a possible answer, among all names; then, among the possible ones, what
    makes it the answer.

    Returns:
        ``possible``: how often the right name is a possible answer; ``right``: how often it is the
        best of them. Without questions nothing is changed.
    """
    if not asked:
        return {}
    recall = model.vlm.recall
    target = torch.tensor([one.target for one in asked], device=model.device)
    first = [one.facts for one in glimpses(model, processor, asked, "looking")]
    facts = [torch.cat(parts) for parts in zip(*first, strict=True)]
    fit(recall.possible, lambda: F.cross_entropy(recall.prescore(*facts), target))
    again = glimpses(model, processor, asked, "weighing")
    known = Evidence.join([collect(model.vlm, one) for one in again])
    is_right = known.names == target[:, None]  # [N, R]
    possible = is_right.any(1)
    if not possible.any():
        return {}
    known, place = known.of(possible), is_right[possible].long().argmax(1)
    fit(recall.answer, lambda: F.cross_entropy(recall.weigh(known), place))
    right = (recall.weigh(known).argmax(1) == place).float().sum() / len(asked)
    return {"possible": float(possible.float().mean()), "right": float(right)}


def fit(layer: nn.Linear, loss: Callable[[], Tensor]) -> None:
    """A few numbers to their best, by L-BFGS."""
    layer.requires_grad_(True)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss() + 1e-4 * layer.weight.square().sum()
        value.backward()
        return value

    optimizer.step(closure)
