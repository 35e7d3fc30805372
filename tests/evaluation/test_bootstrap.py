"""Intervals against the laws they follow, and against resampling written out."""

import numpy as np
import pytest

from lisa.errors import DataError
from lisa.evaluation import bootstrap
from lisa.evaluation.bootstrap import (
    mean_interval,
    mean_intervals,
    paired_difference,
    resampled_sums,
)


def test_the_interval_of_a_mean_is_that_of_the_normal_law() -> None:
    values = np.random.default_rng(4).uniform(0, 1, 500)
    low, high = mean_interval(values.tolist())
    margin = 1.96 * values.std() / np.sqrt(500)
    assert (low, high) == pytest.approx(
        (values.mean() - margin, values.mean() + margin), abs=0.1 * margin
    )


def test_sums_are_those_of_rows_drawn_one_after_the_other() -> None:
    columns = np.random.default_rng(5).uniform(0, 1, (30, 2))
    generator = np.random.default_rng(bootstrap.SEED)
    expected = [columns[generator.integers(0, 30, 30)].sum(0) for _ in range(bootstrap.RESAMPLES)]
    assert np.allclose(resampled_sums(columns), expected)


def test_many_samples_are_drawn_in_parts_with_the_same_outcome(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    columns = np.random.default_rng(6).uniform(0, 1, (50, 3))
    whole = mean_intervals(columns)
    monkeypatch.setattr(bootstrap, "ENTRIES", 7 * 50)  # 2000 is no multiple of 7
    assert mean_intervals(columns) == whole


def test_equal_values_leave_no_doubt() -> None:
    assert mean_interval([0.25] * 9) == (0.25, 0.25)


def test_a_paired_difference_sees_what_two_intervals_hide() -> None:
    hard = np.random.default_rng(1).uniform(0, 0.9, 100)
    difference = paired_difference((hard + 0.05).tolist(), hard.tolist())
    assert difference.mean == pytest.approx(0.05)
    assert (difference.low, difference.high) == pytest.approx((0.05, 0.05))
    noise = np.random.default_rng(2).normal(0, 0.3, 100)
    unclear = paired_difference((hard + noise).tolist(), hard.tolist())
    assert unclear.low < 0 < unclear.high or abs(unclear.mean) > 0.05


def test_runs_of_different_samples_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="cannot compare 2 with 1 samples"):
        paired_difference([0.1, 0.2], [0.1])
    with pytest.raises(DataError, match="cannot compare 0 with 0 samples"):
        paired_difference([], [])
