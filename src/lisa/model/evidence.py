"""What is known about questions before they are answered: recalled, seen and said.

The one place where strings, pictures' prefixes and ``Recall`` meet. This file knows in which order
the parts are asked; it refuses to know how their answers are weighed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lisa.model.processor import LisaProcessor, pad
from lisa.model.recall import Evidence, Recall
from lisa.model.vlm import NanoVlm, Prefix


@torch.no_grad()
def collect(
    vlm: NanoVlm,
    processor: LisaProcessor,
    prefix: Prefix,
    rows: Tensor,
    questions: Sequence[str],
    seen: Tensor,
    answers: Sequence[str],
) -> Evidence:
    """The evidence for the answer to each question.

    Args:
        vlm: of a model with recall.
        processor: of that model.
        prefix: the pictures.
        rows: [N] which picture each question is about.
        questions: N of them.
        seen: [N, K, SEEN] in each question's picture.
        answers: what would be said for each of the K names.
    """
    recall = vlm.recall
    assert isinstance(recall, Recall)
    ids = pad([processor.recall_ids(question) for question in questions], -1).to(rows.device)
    recalled = recall(*vlm.read_alone(ids))
    asked = [processor.question_ids(question) for question in questions]
    possible = [
        [processor.answer_ids(answers[name])[:-1] for name in names]  # without the end
        for names in recall.reported(seen).tolist()
    ]
    return Evidence(recalled, seen, vlm.likelihoods(prefix, rows, asked, possible))
