"""Embedding-as-mask: which hidden states are taken, and what becomes of them."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from lisa.model.lisa import EmbeddingAsMask, pick_seg_hidden, predicts_seg

SEG = 7
rows = st.integers(1, 6).flatmap(
    lambda length: st.lists(
        st.lists(st.sampled_from([0, 1, SEG]), min_size=length, max_size=length), min_size=1
    )
)


@given(rows)
def test_the_state_before_each_seg_is_taken_row_by_row(ids: list[list[int]]) -> None:
    input_ids = torch.tensor(ids)
    hidden = torch.arange(input_ids.numel() * 2.0).view(*input_ids.shape, 2)
    expected = [
        (row, hidden[row, place].tolist())
        for row in range(len(ids))
        for place in range(len(ids[0]) - 1)
        if ids[row][place + 1] == SEG
    ]
    taken, from_rows = pick_seg_hidden(hidden, input_ids, SEG)
    assert list(zip(from_rows.tolist(), taken.tolist(), strict=True)) == expected
    assert taken.shape == (len(expected), 2)


def test_nothing_precedes_the_first_token_and_nothing_follows_the_last() -> None:
    assert predicts_seg(torch.tensor([[SEG, 0, SEG]]), SEG).tolist() == [[False, True, False]]


def test_prompts_are_two_linear_layers_with_a_relu_between() -> None:
    torch.manual_seed(0)
    head = EmbeddingAsMask(4, 3)
    first, _, second = head.layers
    state = torch.randn(5, 4)
    middle = (state @ first.weight.T + first.bias).clamp(min=0)
    assert torch.allclose(head(state), middle @ second.weight.T + second.bias, atol=1e-6)


def test_no_seg_gives_no_prompts() -> None:
    assert EmbeddingAsMask(4, 3)(torch.empty(0, 4)).shape == (0, 3)
