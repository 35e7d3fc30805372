"""Several data sets as one stream: who is drawn how often, and in which order.

The order is a ``Stream``'s. This file knows weights; it refuses to know what a data set holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lisa.data.datasets import Drawable
from lisa.data.stream import Stream
from lisa.errors import DataError
from lisa.example import Example

FAMILY_WEIGHTS = {"semantic": 9.0, "refer": 3.0, "vqa": 3.0, "reason": 1.0}  # the paper's, §4.1
OTHER_FAMILY = 1.0
Vary = Callable[[Example, np.random.Generator], Example]


@dataclass(frozen=True)
class Share:
    """A data set, and how often it is drawn compared with the others.

    One that is ``Drawable`` gives the questions about a picture as training asks them; any other
    one an example, as evaluation has it.
    """

    dataset: Sequence[Example] | Drawable
    weight: float

    def draw(self, random: np.random.Generator) -> list[Example]:
        """The questions about a random picture."""
        if isinstance(self.dataset, Drawable):
            photos = len(self.dataset.photos)
            return self.dataset.draw(int(random.integers(photos)), random)
        return [self.dataset[int(random.integers(len(self.dataset)))]]


class Mixture(Stream[Example]):
    """``length`` samples of named data sets; each is the questions about one picture.

    Args:
        shares: by name; the order of the names has no meaning.
        length: how many samples.
        seed: the same seed gives the same samples.
        vary: changes each example, at random.

    Raises:
        DataError: there is no data set, one is empty, or a weight is no number above 0; on
            indexing, when all attempts at a sample come back with nothing.
    """

    def __init__(
        self, shares: Mapping[str, Share], length: int, seed: int, vary: Vary | None = None
    ) -> None:
        check_shares(shares)
        self.shares = dict(sorted(shares.items()))
        self.vary = vary
        super().__init__(self.draw, length, seed, ", ".join(self.shares))
        self.bounds = np.cumsum([share.weight for share in self.shares.values()])

    def draw(self, random: np.random.Generator) -> list[Example]:
        """The questions about one picture of one data set."""
        examples = self.shares[self.pick(random)].draw(random)
        return [self.vary(one, random) if self.vary else one for one in examples]

    def pick(self, random: np.random.Generator) -> str:
        """The name of a data set, by weight."""
        place = np.searchsorted(self.bounds, random.random() * self.bounds[-1], side="right")
        return list(self.shares)[min(int(place), len(self.shares) - 1)]


def check_shares(shares: Mapping[str, Share]) -> None:
    """Something to draw, with weights that make sense."""
    if not shares:
        raise DataError("the mixture holds no data set; expected at least one")
    for name, share in shares.items():
        if not len(share.dataset):
            raise DataError(f"data set '{name}' is empty; expected at least one picture")
        if not 0 < share.weight < float("inf"):
            raise DataError(f"the weight of '{name}' is {share.weight}; expected more than 0")


def family_weights(families: Mapping[str, str]) -> dict[str, float]:
    """Weights of data sets by their families: a family's weight is shared out among its sets.

    As the official code draws: a family by its weight, then one of its data sets.
    """
    members = Counter(families.values())
    return {
        name: FAMILY_WEIGHTS.get(family, OTHER_FAMILY) / members[family]
        for name, family in families.items()
    }
