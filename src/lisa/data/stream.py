"""A seeded stream of samples: sample i is a function of (seed, i) alone.

So a stopped run goes on at the exact sample, and any number of workers and processes that share the
numbers out among themselves share the samples out without overlap. This file knows numbers; it
refuses to know what a sample is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from lisa.errors import DataError

PATIENCE = 1000  # attempts at a sample; more means that the data have nothing to ask about

Sample = TypeVar("Sample")


class Stream(Generic[Sample]):
    """``length`` samples; sample i is made by ``make`` from a generator seeded with (seed, i).

    ``make`` may return nothing, when a view shows nothing to ask about; it is then asked again.

    Args:
        make: a sample, or nothing.
        length: how many samples.
        seed: the same seed gives the same samples.
        sources: what the samples are made of, for the message.

    Raises:
        DataError: on indexing, when ``make`` comes back with nothing every time.
    """

    def __init__(
        self,
        make: Callable[[np.random.Generator], list[Sample]],
        length: int,
        seed: int,
        sources: str = "the data",
    ) -> None:
        self.make, self.length, self.seed, self.sources = make, length, seed, sources

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> list[Sample]:
        if not 0 <= index < self.length:
            raise IndexError(index)
        random = np.random.default_rng([self.seed, index])
        for _ in range(PATIENCE):
            if sample := self.make(random):
                return sample
        raise DataError(
            f"sample {index} of seed {self.seed} is empty after {PATIENCE} attempts; "
            f"expected questions in {self.sources}"
        )
