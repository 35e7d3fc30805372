"""The tuned model as a directory: factors in their places, everything else as it was."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.lively_model import chat_tokenizer, lively_model, save_directory, tiny_config
from helpers.tuning import write_full_size
from lisa.checkpoints.directory import build
from lisa.checkpoints.merge import Learnt, sort_learnt, write_merged
from lisa.checkpoints.packed import read_weights
from lisa.errors import ModelError

LAYER = "vlm.language.model.layers.0.self_attn.q_proj"


def factors(rows: int, columns: int, rank: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(rank)
    return {"A": torch.randn(rank, columns) / 8, "B": torch.randn(rows, rank) / 8}


def test_what_was_learnt_is_sorted_and_scaled() -> None:
    pair = factors(4, 4)
    state = {
        f"model.{LAYER}.lora_A.default.weight": pair["A"],
        f"model.{LAYER}.lora_B.default.weight": pair["B"],
        "model.head.layers.0.weight": torch.ones(2),
    }
    learnt = sort_learnt(state, 2.0)
    assert list(learnt.tensors) == ["head.layers.0.weight"]
    expected = 2 * pair["B"] @ pair["A"]
    torch.testing.assert_close(learnt.difference(f"{LAYER}.weight"), expected)


def nano_with(source: Path, learnt: Learnt, out: Path) -> dict[str, torch.Tensor]:
    write_merged(source, learnt, build(source, "cpu")[1], out)
    build(out, "cpu")
    return read_weights(out)


def test_nano_gets_factors_beside_its_files(tiny_directory: Path, tmp_path: Path) -> None:
    before = read_weights(tiny_directory)
    rows, columns = before[f"{LAYER}.weight"].shape
    head = next(name for name in before if name.startswith("head.") and "weight" in name)
    learnt = Learnt(
        {head: torch.full_like(before[head], 0.5)}, {f"{LAYER}.weight": factors(rows, columns)}
    )
    after = nano_with(tiny_directory, learnt, tmp_path / "model")
    expected = before[f"{LAYER}.weight"] + learnt.difference(f"{LAYER}.weight")
    torch.testing.assert_close(after[f"{LAYER}.weight"], expected, atol=1e-3, rtol=0)
    assert after[head].eq(0.5).all()
    same = before.keys() - {head, f"{LAYER}.weight"}
    assert all(torch.equal(before[name], after[name]) for name in same)


def test_a_tuned_nano_does_not_recall_the_old_names(tmp_path: Path) -> None:
    tokenizer = chat_tokenizer()
    config = tiny_config(tokenizer, recall_names=["cat", "cup"])
    save_directory(lively_model(config), tokenizer, tmp_path / "source")
    assert build(tmp_path / "source", "cpu")[0].vlm.recall is not None
    after = nano_with(tmp_path / "source", Learnt(), tmp_path / "model")
    assert not any("recall" in name for name in after)
    assert build(tmp_path / "model", "cpu")[0].vlm.recall is None


def test_nano_can_be_tuned_again(tiny_directory: Path, tmp_path: Path) -> None:
    before = read_weights(tiny_directory)[f"{LAYER}.weight"]
    first, second = (
        Learnt(factors={f"{LAYER}.weight": factors(*before.shape, rank=rank)}) for rank in (2, 3)
    )
    nano_with(tiny_directory, first, tmp_path / "once")
    after = nano_with(tmp_path / "once", second, tmp_path / "twice")[f"{LAYER}.weight"]
    both = first.difference(f"{LAYER}.weight") + second.difference(f"{LAYER}.weight")
    torch.testing.assert_close(after, before + both, atol=1e-3, rtol=0)


def test_a_model_of_full_size_keeps_names_and_formats(tmp_path: Path) -> None:
    source = write_full_size(tmp_path / "source")
    before = load_file(source / "model.safetensors")
    (query,) = (n for n in before if "language_model.layers.0.self_attn.q_proj.weight" in n)
    before[query] = before[query].bfloat16()
    save_file(before, source / "model.safetensors", {"format": "pt"})
    learnt = Learnt(
        {"vlm.model.lm_head.weight": torch.ones_like(before["vlm.model.lm_head.weight"])},
        {query: factors(*before[query].shape)},
    )
    write_merged(source, learnt, build(source, "cpu")[1], tmp_path / "model")
    after = load_file(tmp_path / "model" / "model.safetensors")
    assert {n: v.dtype for n, v in after.items()} == {n: v.dtype for n, v in before.items()}
    expected = (before[query].float() + learnt.difference(query)).bfloat16()
    assert torch.equal(after[query], expected)
    assert after["vlm.model.lm_head.weight"].eq(1).all()
    same = before.keys() - {query, "vlm.model.lm_head.weight"}
    assert all(torch.equal(before[name], after[name]) for name in same)


def test_what_has_no_place_is_an_error_and_leaves_what_was_there(
    tiny_directory: Path, tmp_path: Path
) -> None:
    nano_with(tiny_directory, Learnt(), tmp_path / "model")
    with pytest.raises(ModelError, match=r"'head\.unknown' was trained"):
        nano_with(tiny_directory, Learnt({"head.unknown": torch.ones(1)}), tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    build(tmp_path / "model", "cpu")
