"""What is known about questions before they are answered: recalled, seen and said, and where.

The one place where strings, pictures and ``Recall`` meet. This file knows in which order the parts
are asked; it refuses to know how their answers are weighed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

from lisa.model.generation import DecodingState
from lisa.nano.model.decoder import ImageFeatures, NanoDecoder
from lisa.nano.model.processor import LisaProcessor, pad
from lisa.nano.model.retriever import Evidence, Recall
from lisa.nano.model.vlm import NanoVlm, Prefix


@dataclass(frozen=True)
class FirstPass:
    """What is known about N questions before any answer to them is said to the end."""

    recalled: Tensor  # as ``Evidence`` has it ...
    remembered: Tensor
    seen: Tensor
    begun: Tensor
    reading: DecodingState  # the questions, and what all answers open with
    following: Tensor  # log-probabilities [N, vocabulary + 1] of what comes then
    endings: list[list[int]]  # of the K answers: ids after the opening

    @property
    def facts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What ``Recall.prescore`` wants to know."""
        return self.recalled, self.remembered, self.seen, self.begun


@torch.no_grad()
def first_pass(
    vlm: NanoVlm,
    processor: LisaProcessor,
    prefix: Prefix,
    rows: Tensor,
    questions: Sequence[str],
    seen: Tensor,
    answers: Sequence[str],
) -> FirstPass:
    """The questions are read once by themselves and once with the picture.

    Args:
        vlm: of a model with recall.
        processor: of that model.
        prefix: the pictures.
        rows: [N] which picture each question is about.
        questions: N of them.
        seen: [N, K, SEEN] in each question's picture.
        answers: what would be said for each of the K names.
    """
    assert isinstance(vlm.recall, Recall)
    ids = pad([processor.recall_ids(question) for question in questions], -1).to(rows.device)
    alone = vlm.read_alone(ids)
    recalled, remembered = vlm.recall(*alone), vlm.recall.memory(*alone)
    said = [processor.answer_ids(answer)[:-1] for answer in answers]  # without the end
    opening = said[0][: shared_length(said)]
    endings = [answer[len(opening) :] for answer in said]
    reading = vlm.open(prefix, rows, [[*processor.question_ids(q), *opening] for q in questions])
    following = vlm.next_ids(reading)
    begun = following[:, [ending[0] for ending in endings]]
    return FirstPass(recalled, remembered, seen, begun, reading, following, endings)


@torch.no_grad()
def collect(vlm: NanoVlm, glimpsed: FirstPass) -> Evidence:
    """The evidence for the answer to each question: the best names are said to the end."""
    assert isinstance(vlm.recall, Recall)
    names = vlm.recall.shortlist(*glimpsed.facts)
    possible = [[glimpsed.endings[name] for name in row] for row in names.tolist()]
    said = vlm.likelihoods(glimpsed.reading, glimpsed.following, possible)
    return Evidence(*glimpsed.facts, names, said)


def shared_length(answers: Sequence[list[int]]) -> int:
    """How many ids all answers begin with, so that at least one is left of each."""
    first, last = min(answers), max(answers)  # in order: what these two share, all share
    pairs = zip(first[:-1], last[:-1], strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


@torch.no_grad()
def gains(decoder: NanoDecoder, features: ImageFeatures, prompts: Tensor, rows: Tensor) -> Tensor:
    """How good the mask of one name is where another is meant, [N, R, R], as ``Recall.choose`` has.

    Args:
        decoder: of a model with recall.
        features: of the pictures.
        prompts: [N, R, P] of the names that are possible answers to each question.
        rows: [N] which picture each question is about.
    """
    count = prompts.shape[1]
    found = decoder.decode(features, prompts.flatten(0, 1), rows.repeat_interleave(count))
    masks = (found.low_res_masks > 0).flatten(1).unflatten(0, (-1, count)).float()
    common = masks @ masks.mT  # [N, R, R] pixels
    areas = masks.sum(2)
    either = areas[:, :, None] + areas[:, None] - common
    overlaps = torch.where(either > 0, common / either.clamp(min=1), torch.eye(count).to(common))
    return found.iou_logits.sigmoid().unflatten(0, (-1, count))[..., None] * overlaps
