"""Merging, new rows, and what fits and what does not."""

from pathlib import Path

import pytest
import torch

from helpers.official_checkpoint import lisa_state, with_lora
from lisa.checkpoints.checkpoint import Checkpoint
from lisa.checkpoints.official_names import Names
from lisa.checkpoints.transfer import Tensors, as_stored, check, merged, with_rows
from lisa.errors import ModelError

ROWS = 40
Q = "model.layers.0.self_attn.q_proj"
NAMES: Names = (("their", "our"),)


def save(path: Path, state: dict[str, torch.Tensor]) -> Checkpoint:
    torch.save(state, path)
    return Checkpoint(path)


def test_low_rank_factors_are_merged(tmp_path: Path) -> None:
    state = lisa_state(ROWS)
    stored = with_lora(state)
    tensors = merged(save(tmp_path / "x.bin", stored), alpha=6.0)
    assert tensors.keys() == state.keys()
    down, up = (stored[f"base_model.model.{Q}.lora_{part}.default.weight"] for part in "AB")
    expected = state[f"{Q}.weight"] + 3.0 * up @ down  # alpha 6, rank 2
    torch.testing.assert_close(tensors[f"{Q}.weight"].read(), expected)
    untouched = "model.layers.0.self_attn.k_proj.weight"
    assert torch.equal(tensors[untouched].read(), state[untouched])


def test_merging_keeps_the_number_format(tmp_path: Path) -> None:
    stored = {key: value.bfloat16() for key, value in with_lora(lisa_state(ROWS)).items()}
    tensor = merged(save(tmp_path / "x.bin", stored))[f"{Q}.weight"]
    assert tensor.read().dtype == tensor.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        (f"base_model.model.{Q}.weight", f"{Q}.weight"),
        (f"base_model.model.{Q}.lora_B.default.weight", "lora_B"),
        (f"base_model.model.{Q}.lora_A.default.weight", "lora_A"),
    ],
)
def test_a_factor_without_its_matrix_or_pair(tmp_path: Path, lost: str, named: str) -> None:
    stored = with_lora(lisa_state(ROWS))
    del stored[lost]
    with pytest.raises(ModelError, match=rf"q_proj.* has no '.*{named}.*' beside it .*; expected"):
        merged(save(tmp_path / "x.bin", stored))


def test_factors_alone_are_not_a_model(tmp_path: Path) -> None:
    stored = {key: value for key, value in with_lora(lisa_state(ROWS)).items() if "lora_" in key}
    with pytest.raises(ModelError, match=r"has no 'model.layers.*' beside it"):
        merged(save(tmp_path / "adapter_model.bin", stored))


def test_factors_of_another_shape(tmp_path: Path) -> None:
    stored = with_lora(lisa_state(ROWS))
    stored[f"base_model.model.{Q}.lora_B.default.weight"] = torch.zeros(7, 2)
    with pytest.raises(ModelError, match=r"form \[7, 2\] x \[2, 16\]; expected .*\[16, 16\]"):
        merged(save(tmp_path / "x.bin", stored))


def test_new_rows_are_small_and_the_same_each_time(tmp_path: Path) -> None:
    table = as_stored(save(tmp_path / "x.bin", {"t": torch.ones(3, 500)}))["t"]
    grown = with_rows(table, 5)
    assert grown.shape == (5, 500)
    rows = grown.read()
    assert torch.equal(rows, grown.read())
    assert torch.equal(rows[:3], torch.ones(3, 500))
    assert rows[3:].std() == pytest.approx(0.02, rel=0.1)
    assert with_rows(table, 3) is table


def test_what_does_not_fit_is_named_as_the_checkpoint_names_it(tmp_path: Path) -> None:
    state = {"their.a": torch.zeros(2), "their.b": torch.zeros(3), "alien": torch.zeros(1)}
    tensors = Tensors().add(as_stored(save(tmp_path / "x.bin", state)).values(), NAMES, tmp_path)
    check(Tensors(), {}, NAMES, tmp_path)
    with pytest.raises(ModelError) as caught:
        check(tensors, {"our.b": (4,), "our.c": (1,)}, NAMES, Path("SOURCE"))
    assert str(caught.value) == (
        "the tensors of 'SOURCE' do not fit: 'their.c' is missing; 'alien' is left over; "
        "'their.a' is left over; and 1 more; expected exactly those of the model"
    )
    with pytest.raises(ModelError, match=r"'their.b' is \[3\] instead of \[4\]"):
        del tensors.planned["our.a"], tensors.origins["our.a"], tensors.left_over[0]
        check(tensors, {"our.b": (4,)}, NAMES, tmp_path)
