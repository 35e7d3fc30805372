"""Rows of ids on their way through a language model."""

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from lisa.model.reading import Reading, cached, count_places, pad_left


class Newer(nn.Module):
    def forward(self, cache: DynamicCache | None = None) -> None: ...


class Older(nn.Module):
    def forward(self, past_key_values: DynamicCache | None = None) -> None: ...


def test_the_cache_goes_by_the_name_that_the_model_has_for_it() -> None:
    cache = DynamicCache()
    assert cached(Newer(), cache) == {"cache": cache}
    assert cached(Older(), cache) == {"past_key_values": cache}


def test_shorter_rows_are_padded_on_the_left_and_counted_from_their_first_id() -> None:
    ids, known = pad_left([[5, 6, 7], [8]], torch.tensor([0]))
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert known.tolist() == [[True] * 3, [False, False, True]]
    assert count_places(known).tolist() == [[0, 1, 2], [0, 0, 0]]


def test_a_reading_goes_on_one_token_at_a_time() -> None:
    ids, known = pad_left([[5, 6, 7], [8]], torch.tensor([0]))
    first = Reading(ids, None, known, count_places(known), {"pixel_values": Tensor()})
    then = first.then([9, 10])
    assert then.input_ids.tolist() == [[9], [10]]
    assert then.mask.tolist() == [[True] * 4, [False, False, True, True]]
    assert then.positions.tolist() == [[3], [1]]
    assert then.inputs == {}
