"""The last step: ``Mask.score`` learns to mean the IoU that it claims to estimate.

Two numbers, a scale and a bias of the score's logit (Platt scaling), are fitted to what the
finished model does with questions that training left out. This file asks through ``evaluate``, as
a user would; it changes the configuration and no weight.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from lisa.checkpoints.directory import model_directory, write_config
from lisa.data.regions import Target, example
from lisa.errors import DataError
from lisa.evaluation.evaluate import evaluate
from lisa.evaluation.metrics import calibration_error, reliability_table
from lisa.example import Example
from lisa.files import write_atomically
from lisa.model.config import LisaConfig
from lisa.nano.data.knowledge import new_phrasings
from lisa.nano.data.questions import Asker
from lisa.nano.data.sources import Photos
from lisa.nano.data.text_pairs import defined
from lisa.nano.model.segmenter import load, nano_parts
from lisa.nano.training.joint import asked_photos
from lisa.predict import Segmenter

QUESTIONS = 240  # about photographs that were left out
ASKED_A_PHOTO = 2
ABSENT_SHARE = 0.1  # of them are for something that is not there
FEWEST = 5  # answers with a mask; to less than that nothing can be fitted
SURE = 1e-4  # a score is taken to be at least so far from 0 and 1
LARGEST_SCALE = 20.0


def calibrate(segmenter: Segmenter, examples: Sequence[Example]) -> dict[str, float]:
    """Fit the scale and bias of the segmenter's scores, and put them in its configuration.

    Args:
        segmenter: the finished model; it may have been calibrated before.
        examples: with masks; the questions were not trained on.

    Returns:
        ``score_scale`` and ``score_bias`` as they are now, how many answers with a mask there were
        (with fewer than ``FEWEST`` nothing is changed), and the expected calibration error before
        and after.
    """
    before = evaluate(segmenter, examples, protocol="generate", progress=True)
    rated = [(one.score, one.iou) for one in before.samples if one.score is not None]
    scores, ious = np.array(rated, float).reshape(-1, 2).T
    scale, bias = fit_logits(scores, ious) if len(rated) >= FEWEST else (1.0, 0.0)
    config = nano_parts(segmenter)[1].config
    config.score_bias = scale * config.score_bias + bias
    config.score_scale = scale * config.score_scale
    return {
        "score_scale": config.score_scale,
        "score_bias": config.score_bias,
        "answers": len(rated),
        "error_before": error(scores, ious),
        "error_after": error(rescaled(scores, scale, bias), ious),
    }


def fit_logits(scores: np.ndarray, ious: np.ndarray) -> tuple[float, float]:
    """Scale > 0 and bias of the logits of ``scores`` [N] that fit ``ious`` [N] best.

    Least cross-entropy with the IoUs as soft targets; the scale is kept positive, so that the
    order of scores stays.
    """
    logits = torch.from_numpy(scores).double().clamp(SURE, 1 - SURE).logit()
    targets = torch.from_numpy(ious).double().clamp(0, 1)
    fitted = torch.zeros(2, dtype=torch.double, requires_grad=True)  # log of the scale, bias
    optimizer = torch.optim.LBFGS([fitted], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        log_scale, bias = fitted
        wrong = F.binary_cross_entropy_with_logits(log_scale.exp() * logits + bias, targets)
        kept_near = 1e-3 * log_scale.square()  # decides where all scores are alike
        (wrong + kept_near).backward()
        return wrong + kept_near

    optimizer.step(loss)
    log_scale, bias = fitted.tolist()
    return min(math.exp(log_scale), LARGEST_SCALE), bias


def rescaled(scores: np.ndarray, scale: float, bias: float) -> np.ndarray:
    """Scores [N] with their logits scaled and moved."""
    logits = np.log(scores.clip(SURE, 1 - SURE) / (1 - scores.clip(SURE, 1 - SURE)))
    moved: np.ndarray = 1 / (1 + np.exp(-(scale * logits + bias)))
    return moved


def error(scores: np.ndarray, ious: np.ndarray) -> float:
    """Expected calibration error of scores [N] with IoUs [N]."""
    table = reliability_table(list(zip(scores.tolist(), ious.tolist(), strict=True)))
    return calibration_error(table) or 0.0


def unseen_questions(root: Path, reasoning: bool) -> list[Example]:
    """What scores are fitted to: questions that training left out.

    They are about photographs that it left out, too; and, where the model may read questions as
    people ask them, those that were written while looking at a photograph.
    """
    return [*held_out_answers(root, reasoning), *(asked_answers(root) if reasoning else [])]


def asked_answers(root: Path) -> list[Example]:
    """One phrasing of each held-out question about a photograph, of what is there and what is not.

    The photographs themselves have been trained on; that the question is hard counts for more.
    """
    found = []
    for folder, index, asked in asked_photos(Photos(root), held_out=True):
        scene = folder[index]
        image = Image.fromarray(scene.image)
        targets = [(one, Target(one.target, scene.union(one.target))) for one in asked]
        found += [
            example(image, one.texts[0], target)
            for one, target in targets
            if target.present != one.absent  # else the annotations say otherwise
        ]
    return found


def held_out_answers(root: Path, reasoning: bool, count: int = QUESTIONS) -> list[Example]:
    """New questions about whole photographs that training leaves out, some for absent things.

    Implicit ones, as people ask them, or definitions where the model was taught no other; none of
    them was taught, so that the choice of the thing is as unsure as it will be.
    """
    knowledge = new_phrasings() if reasoning else defined(held_out=True)
    asker, random = Asker(knowledge), np.random.default_rng(0)
    asked: list[Example | None] = []
    for folder in Photos(root, "held-out").folders.values():
        for scene in (folder[n] for n in range(len(folder))):
            image = Image.fromarray(scene.image)
            for _ in range(ASKED_A_PHOTO):
                kind = asker.absent if random.random() < ABSENT_SHARE else asker.implicit
                asked.append(kind(scene, image, random))
    found = [one for one in asked if one]
    chosen = np.random.default_rng(0).permutation(len(found))[:count]
    return [found[n] for n in sorted(chosen.tolist())]


def calibrate_once(segmenter: Segmenter, root: Path, reasoning: bool, path: Path) -> None:
    """Calibrate, or read from ``path`` what a run that was here before has found."""
    config = nano_parts(segmenter)[1].config
    if not path.is_file():
        found = calibrate(segmenter, unseen_questions(root, reasoning))
        write_atomically(path, json.dumps(found, indent=1).encode())
    found = json.loads(path.read_text(encoding="utf-8"))
    config.score_scale, config.score_bias = found["score_scale"], found["score_bias"]


def calibrate_directory(model: Path, data: Path, device: str | None = None) -> dict[str, float]:
    """Calibrate a finished model and write its ``config.json`` anew; returns what was found.

    Raises:
        ModelError: no such model. DataError: no training data, or too few answers with a mask.
    """
    segmenter = load(model, device)
    examples = unseen_questions(data, sees_reasoning(nano_parts(segmenter)[1].config))
    found = calibrate(segmenter, examples)
    if found["answers"] < FEWEST:
        raise DataError(
            f"{found['answers']:.0f} of the answers of '{model}' have a mask; "
            f"expected at least {FEWEST} to calibrate scores on"
        )
    write_config(nano_parts(segmenter)[1].config, model_directory(model))
    return found


def sees_reasoning(config: LisaConfig) -> bool:
    """Whether a model was trained on implicit questions."""
    return "knowledge" in config.trained_on
