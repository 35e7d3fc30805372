"""Every loss against the formula it stands for, written out in numpy or token by token."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from lisa.errors import DataError
from lisa.model.interfaces import IGNORE_LABEL, DecodedMasks
from lisa.nano.training.losses import (
    MaskLossWeights,
    absent_loss,
    bce_loss,
    dice_loss,
    location_loss,
    mask_loss,
    mil_loss,
    prompt_loss,
    quality_loss,
    soft_iou,
)
from lisa.training.paper import (
    answer_loss,
    official_bce_loss,
    official_dice_loss,
    official_mask_loss,
)

SIDE = 8  # of a low-resolution mask
COARSE = 2  # of a "here" map
CLOSE = {"rel": 1e-4, "abs": 1e-5}

random_draws = pytest.mark.parametrize("seed", range(4))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """-(t log p + (1 - t) log(1 - p)) of each number."""
    p = sigmoid(logits)
    return -(targets * np.log(p) + (1 - targets) * np.log(1 - p))


def draw_masks(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and shares of a target that covers more or less of each mask: float32 [3, 8, 8]."""
    random = np.random.default_rng(seed)
    shares = random.choice([0.0, 0.25, 0.5, 1.0], (3, SIDE, SIDE), p=[0.4, 0.1, 0.1, 0.4])
    logits = random.normal(0, 3, (3, SIDE, SIDE))
    return logits.astype(np.float32), shares.astype(np.float32)


def square(top: int, left: int, side: int) -> Tensor:
    """A mask [SIDE, SIDE] with one square of ones."""
    mask = torch.zeros(SIDE, SIDE)
    mask[top : top + side, left : left + side] = 1
    return mask


def decoded(
    logits: Tensor, iou_logits: list[float], similarity: Tensor | None = None
) -> DecodedMasks:
    coarse = torch.zeros(len(logits), COARSE, COARSE) if similarity is None else similarity
    return DecodedMasks(logits, torch.tensor(iou_logits), coarse)


# Masks


@random_draws
def test_bce_is_the_mean_of_each_masks_mean(seed: int) -> None:
    logits, targets = draw_masks(seed)
    expected = cross_entropy(logits, targets).mean((1, 2)).mean()
    actual = bce_loss(torch.from_numpy(logits), torch.from_numpy(targets))
    assert float(actual) == pytest.approx(expected, **CLOSE)


@random_draws
def test_dice_adds_one_above_and_below(seed: int) -> None:
    logits, targets = draw_masks(seed)
    p = sigmoid(logits)
    per_mask = [
        1 - (2 * (p[n] * targets[n]).sum() + 1) / (p[n].sum() + targets[n].sum() + 1)
        for n in range(len(p))
    ]
    actual = dice_loss(torch.from_numpy(logits), torch.from_numpy(targets))
    assert float(actual) == pytest.approx(np.mean(per_mask), **CLOSE)


def test_dice_of_a_perfect_mask_is_nearly_zero_and_of_a_wrong_one_nearly_one() -> None:
    target = square(0, 0, 4)[None]
    assert float(dice_loss(target * 100 - 50, target)) == pytest.approx(0, abs=1e-6)
    elsewhere = square(4, 4, 4)[None] * 100 - 50
    assert float(dice_loss(elsewhere, target)) == pytest.approx(1 - 1 / 33, abs=1e-6)


def test_dice_of_no_masks_is_zero_and_still_a_part_of_the_graph() -> None:
    logits = torch.zeros(0, SIDE, SIDE, requires_grad=True)
    loss = dice_loss(logits, torch.zeros(0, SIDE, SIDE))
    loss.backward()
    assert loss.item() == 0


@random_draws
def test_soft_iou_counts_shares(seed: int) -> None:
    logits, targets = draw_masks(seed)
    predicted = logits > 0
    for n, actual in enumerate(soft_iou(torch.from_numpy(logits), torch.from_numpy(targets))):
        overlap = targets[n][predicted[n]].sum()
        union = predicted[n].sum() + targets[n].sum() - overlap
        assert float(actual) == pytest.approx(overlap / union if union else 0.0, **CLOSE)


def test_soft_iou_of_two_squares_by_hand() -> None:
    logits = square(0, 0, 4) * 2 - 1  # 16 pixels, 8 of them in the target's 32
    target = torch.zeros(SIDE, SIDE)
    target[:, 2:6] = 1
    assert soft_iou(logits[None], target[None]).tolist() == pytest.approx([8 / (16 + 32 - 8)])


@pytest.mark.parametrize("found", [square(0, 0, 4), torch.zeros(SIDE, SIDE)])
def test_quality_of_an_absent_thing_is_taught_as_zero(found: Tensor) -> None:
    logits = found[None] * 2 - 1
    loss = quality_loss(decoded(logits, [0.7]), torch.zeros(1, SIDE, SIDE))
    assert float(loss) == pytest.approx(-math.log(1 - 1 / (1 + math.exp(-0.7))), **CLOSE)


def test_quality_of_a_present_thing_is_taught_as_its_iou_and_moves_no_mask() -> None:
    logits = (square(0, 0, 4) * 2 - 1)[None].requires_grad_()
    iou_logits = torch.tensor([-0.4], requires_grad=True)
    answer = DecodedMasks(logits, iou_logits, torch.zeros(1, COARSE, COARSE))
    loss = quality_loss(answer, square(0, 0, 8)[None])  # IoU 16 / 64
    expected = cross_entropy(np.array([-0.4]), np.array([0.25])).mean()
    assert loss.item() == pytest.approx(expected, **CLOSE)
    loss.backward()
    assert logits.grad is None
    assert iou_logits.grad is not None and float(iou_logits.grad) == pytest.approx(
        sigmoid(np.array([-0.4]))[0] - 0.25, **CLOSE
    )


@random_draws
def test_here_is_taught_with_twice_the_covered_share(seed: int) -> None:
    logits, targets = draw_masks(seed)
    similarity = logits[:, :COARSE, :COARSE].copy()
    step = SIDE // COARSE
    cells = targets.reshape(3, COARSE, step, COARSE, step).mean((2, 4))
    expected = cross_entropy(similarity, np.minimum(cells * 2, 1)).mean()
    actual = location_loss(torch.from_numpy(similarity), torch.from_numpy(targets))
    assert float(actual) == pytest.approx(expected, **CLOSE)


def test_half_covered_counts_as_here() -> None:
    half = torch.zeros(1, SIDE, SIDE)
    half[:, :2] = 1  # the upper half of both upper cells
    sure = torch.tensor([[[50.0, 50.0], [-50.0, -50.0]]])
    assert float(location_loss(sure, half)) == pytest.approx(0, abs=1e-6)


@random_draws
def test_denying_is_the_cross_entropy_with_nowhere(seed: int) -> None:
    similarity = draw_masks(seed)[0]
    expected = cross_entropy(similarity, np.zeros_like(similarity)).mean()
    assert float(absent_loss(torch.from_numpy(similarity))) == pytest.approx(expected, **CLOSE)


@random_draws
def test_somewhere_is_the_cross_entropy_of_each_surest_location(seed: int) -> None:
    similarity = draw_masks(seed)[0]
    surest = np.array([max(row) for row in similarity.reshape(3, -1).tolist()])
    expected = cross_entropy(surest, np.ones(3)).mean()
    assert float(mil_loss(torch.from_numpy(similarity))) == pytest.approx(expected, **CLOSE)


@pytest.mark.parametrize("loss", [absent_loss, mil_loss])
def test_nothing_costs_nothing_and_is_still_a_part_of_the_graph(
    loss: Callable[[Tensor], Tensor],
) -> None:
    value = loss(torch.zeros(0, COARSE, COARSE, requires_grad=True))
    value.backward()
    assert value.item() == 0


def test_mask_loss_weighs_its_parts_and_takes_dice_of_present_things_only() -> None:
    random = torch.Generator().manual_seed(3)
    logits = torch.randn(3, SIDE, SIDE, generator=random)
    similarity = torch.randn(3, COARSE, COARSE, generator=random)
    targets = torch.stack([square(0, 0, 4), torch.zeros(SIDE, SIDE), square(2, 2, 3)])
    answer = decoded(logits, [0.1, -0.2, 0.3], similarity)
    losses = mask_loss(answer, targets, MaskLossWeights(bce=3, dice=5, quality=7, here=11))
    present = [0, 2]
    assert {name: float(value) for name, value in losses.items()} == pytest.approx(
        {
            "bce": 3 * float(bce_loss(logits, targets)),
            "dice": 5 * float(dice_loss(logits[present], targets[present])),
            "quality": 7 * float(quality_loss(answer, targets)),
            "here": 11 * float(location_loss(similarity, targets)),
        }
    )


def test_mask_loss_of_absent_things_only_is_finite() -> None:
    answer = decoded(torch.zeros(2, SIDE, SIDE), [0.0, 0.0])
    losses = mask_loss(answer, torch.zeros(2, SIDE, SIDE), MaskLossWeights())
    assert float(losses["dice"]) == 0
    assert all(math.isfinite(float(value)) for value in losses.values())


# Words and prompts


def test_answer_loss_is_the_mean_of_minus_log_p_token_by_token() -> None:
    ignored = IGNORE_LABEL
    labels = torch.tensor([[ignored, ignored, 2, 0], [ignored, 1, ignored, ignored]])
    spoken = [2, 0, 1]  # row by row
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    by_hand = [
        -math.log(math.exp(row[label]) / sum(math.exp(value) for value in row))
        for row, label in zip(logits.tolist(), spoken, strict=True)
    ]
    assert float(answer_loss(logits, labels)) == pytest.approx(sum(by_hand) / 3, **CLOSE)


def test_a_label_at_the_first_place_has_nothing_before_it() -> None:
    labels = torch.tensor([[3, 1]])
    logits = torch.tensor([[0.0, 9.0, 0.0, 0.0]])
    assert float(answer_loss(logits, labels)) == pytest.approx(
        math.log1p(3 * math.exp(-9)), **CLOSE
    )


def test_prompt_loss_is_the_squared_distance_in_the_scale_of_what_is_taught() -> None:
    taught = torch.tensor([[3.0, 4.0], [0.3, 0.4]])  # mean squares 12.5 and 0.125
    prompts = torch.tensor([[4.0, 4.0], [0.3, 0.0]])
    expected = (1 / 12.5 + 0.16 / 0.125) / 4
    assert float(prompt_loss(prompts, taught)) == pytest.approx(expected, **CLOSE)
    assert float(prompt_loss(taught, taught)) == 0
    assert float(prompt_loss(prompts * 100, taught * 100)) == pytest.approx(expected, **CLOSE)


def test_prompt_loss_of_no_prompts_is_zero() -> None:
    loss = prompt_loss(torch.zeros(0, 2, requires_grad=True), torch.zeros(0, 2))
    loss.backward()
    assert loss.item() == 0


def test_prompts_taught_as_nothing_do_not_divide_by_zero() -> None:
    assert math.isfinite(float(prompt_loss(torch.ones(1, 2), torch.zeros(1, 2))))


# ---------------------------------------------------------- as the official code has them


def test_official_losses_of_certain_masks() -> None:
    targets = torch.zeros(2, 4, 4)
    targets[:, :2] = 1
    right, wrong = targets * 200 - 100, 100 - targets * 200
    assert official_bce_loss(right, targets) == pytest.approx(0, abs=1e-6)
    assert official_dice_loss(right, targets) == pytest.approx(0, abs=1e-6)
    assert official_bce_loss(wrong, targets) == pytest.approx(100)
    assert official_dice_loss(wrong, targets) == pytest.approx(1, abs=1e-4)


def test_official_losses_are_means_over_all_masks_of_a_batch() -> None:
    """Three masks of one picture weigh three times as much as the one of another."""
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 6, 5), torch.randint(0, 2, (4, 6, 5))
    other = torch.zeros(0, 9, 9)
    batch = official_mask_loss([logits[:3], other, logits[3:]], [targets[:3], other, targets[3:]])
    whole = official_mask_loss([logits], [targets])
    for name in ("mask_bce_loss", "mask_dice_loss"):
        assert batch[name] == pytest.approx(whole[name].item(), rel=1e-6)
    assert whole["mask_bce_loss"] == pytest.approx(
        2 * official_bce_loss(logits, targets.float()).item(), rel=1e-6
    )


def test_official_losses_without_masks_are_zero_and_have_a_gradient() -> None:
    logits = torch.zeros(0, 5, 5, requires_grad=True)
    losses = official_mask_loss([logits], [torch.zeros(0, 5, 5)])
    assert all(loss == 0 for loss in losses.values())
    sum(losses.values()).backward()


def test_official_losses_want_a_mask_for_each_seg() -> None:
    with pytest.raises(DataError, match=r"picture 1 .* masks \[2, 5, 5\]; expected \[1, 5, 5\]"):
        official_mask_loss(
            [torch.zeros(1, 4, 4), torch.zeros(2, 5, 5)],
            [torch.zeros(1, 4, 4), torch.zeros(1, 5, 5)],
        )
