"""Intervals by resampling: how far a mean, a ratio, or the gain of one run over another can move.

The percentile bootstrap (Efron and Tibshirani, 1993, chapter 13): samples are redrawn with
replacement, always by the same seed, so that the same samples give the same interval. This file
knows columns of numbers; it does not know what they measure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lisa.errors import DataError

RESAMPLES = 2000
SEED = 0
CONFIDENCE = 0.95

ENTRIES = 2**22  # of a table of how often each sample is drawn, so that memory stays small

Interval = tuple[float, float]  # low, high


@dataclass(frozen=True)
class Difference:
    """Mean of differences, sample by sample, with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def resampled_sums(columns: np.ndarray) -> np.ndarray:
    """Sums [RESAMPLES, K] of columns [N, K], each of N rows drawn with replacement; N > 0."""
    generator, count = np.random.default_rng(SEED), len(columns)
    step = max(1, ENTRIES // count)
    parts = [min(step, RESAMPLES - start) for start in range(0, RESAMPLES, step)]
    # not a matrix product: its last digits would depend on the number of threads
    sums = [np.einsum("rn,nk->rk", _drawn(generator, part, count), columns) for part in parts]
    return np.concatenate(sums)


def _drawn(generator: np.random.Generator, rows: int, count: int) -> np.ndarray:
    """How often each of ``count`` samples is drawn, float [rows, count]; each row sums to count."""
    places = generator.integers(0, count, (rows, count)) + count * np.arange(rows)[:, np.newaxis]
    drawn = np.bincount(places.ravel(), minlength=rows * count)
    return drawn.reshape(rows, count).astype(float)


def mean_intervals(columns: np.ndarray) -> list[Interval]:
    """The 95 % interval of the mean of each column of [N, K]; N > 0."""
    means = resampled_sums(columns) / len(columns)
    return [percentiles(mean) for mean in means.T]


def mean_interval(values: Sequence[float]) -> Interval:
    """The 95 % interval of a mean; at least one value."""
    return mean_intervals(np.array(values, float)[:, np.newaxis])[0]


def percentiles(values: np.ndarray) -> Interval:
    """The bounds between which 95 % of the values lie."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """How much larger ``first`` is than ``second``: values of the same samples in the same order.

    Raises:
        DataError: there is none, or not as many of the one as of the other.
    """
    if len(first) != len(second) or not len(first):
        raise DataError(
            f"cannot compare {len(first)} with {len(second)} samples; expected as many, at least 1"
        )
    gains = np.array(first, float) - np.array(second, float)
    low, high = mean_interval(gains.tolist())
    return Difference(float(gains.mean()), low, high)
