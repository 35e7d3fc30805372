"""Rows on their way through a language model."""

import torch
from torch import nn

from lisa.model.generation import DecodingState, cache_name, count_places, pad_left

ROWS = [[5], [7, 8, 9]]


def test_shorter_rows_begin_later() -> None:
    ids, known = pad_left(ROWS, torch.tensor(0))
    assert ids.tolist() == [[0, 0, 5], [7, 8, 9]]
    assert known.tolist() == [[False, False, True], [True, True, True]]
    assert count_places(known).tolist() == [[0, 0, 0], [0, 1, 2]]


def test_a_reading_goes_on_by_one_place() -> None:
    ids, known = pad_left(ROWS, torch.tensor(0))
    inputs = {"pixel_values": torch.zeros(1)}
    reading = DecodingState(ids, None, known, count_places(known), inputs).then([3, 4])
    assert reading.input_ids.tolist() == [[3], [4]]
    assert reading.mask.tolist() == [[False, False, True, True], [True] * 4]
    assert reading.positions.tolist() == [[1], [3]]
    assert reading.inputs == {}  # the picture has been read


def test_places_in_three_dimensions_go_on_in_each() -> None:
    positions = torch.tensor([[[0, 1]], [[0, 4]], [[0, 2]]])
    reading = DecodingState(torch.ones(1, 2).long(), None, torch.ones(1, 2).bool(), positions)
    assert reading.then([1]).positions.tolist() == [[[2]], [[5]], [[3]]]


class Older(nn.Module):
    def forward(self, input_ids: torch.Tensor, past_key_values: object = None) -> None: ...


class Newer(nn.Module):
    def forward(self, input_ids: torch.Tensor, cache: object = None) -> None: ...


def test_the_cache_goes_by_its_name() -> None:
    assert (cache_name(Older()), cache_name(Newer())) == ("past_key_values", "cache")
