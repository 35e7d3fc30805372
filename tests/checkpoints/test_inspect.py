"""What is told of directories, complete and not, of our kind and of others."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.official_checkpoint import lisa_state, sam_state, with_lora, write_lisa, write_llava
from lisa.checkpoints.inspect import load_check
from lisa.errors import ModelError


def test_a_model_of_ours(tiny_directory: Path) -> None:
    found = load_check(tiny_directory)
    assert (found.kind, found.complete, found.problems) == ("ours", True, ())
    assert found.trained_on == ("noise",)
    config = json.loads((tiny_directory / "config.json").read_text())
    assert found.seg_token_id == config["seg_token_id"]
    assert found.sizes["language layers"] == 2


def test_a_model_of_ours_without_a_tensor_or_tokenizer(
    tiny_directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_bytes((tiny_directory / "config.json").read_bytes())
    tensors: dict[str, torch.Tensor] = {}
    for file in tiny_directory.glob("*.safetensors"):
        tensors |= load_file(file)
    lost = next(key for key in tensors if key.startswith("head."))
    value = tensors.pop(lost)
    save_file(tensors | {"extra": value}, tmp_path / "model.safetensors")
    found = load_check(tmp_path)
    assert not found.complete
    assert found.problems[:2] == (f"'{lost}' is missing", "'extra' is left over")
    assert "in config.json and None in the tokenizer; expected one id" in found.problems[2]


def test_an_official_lisa(tmp_path: Path) -> None:
    state = write_lisa(tmp_path / "lisa")
    found = load_check(tmp_path / "lisa")
    assert (found.kind, found.complete, found.files) == ("official LISA", True, 3)
    assert found.numbers == sum(value.numel() for value in state.values())
    assert found.sizes["image encoder layers"] == 2
    assert found.seg_token_id == 400
    assert found.to_dict() == json.loads(json.dumps(found.to_dict())) | {
        name: getattr(found, name) for name in ("problems", "formats", "licences", "trained_on")
    }


def test_a_llava(tmp_path: Path) -> None:
    write_llava(tmp_path / "llava")
    found = load_check(tmp_path / "llava")
    assert (found.kind, found.complete, found.seg_token_id) == ("LLaVA base", True, None)


def test_a_segment_anything_file(tmp_path: Path) -> None:
    state = sam_state()
    torch.save(state, tmp_path / "sam.pth")
    assert load_check(tmp_path / "sam.pth").complete
    del state["mask_decoder.iou_token.weight"]
    torch.save(state, tmp_path / "sam.pth")
    assert load_check(tmp_path / "sam.pth").problems == (
        "'mask_decoder.iou_token.weight' is missing",
    )


def test_training_output(tmp_path: Path) -> None:
    torch.save(with_lora(lisa_state(403)), tmp_path / "pytorch_model.bin")
    found = load_check(tmp_path)
    assert found.kind == "unmerged training output"
    assert found.problems == (
        f"no config.json in '{tmp_path}'; expected LLaVA's beside the weights",
    )


def test_something_else(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    found = load_check(tmp_path / "resnet.pth")
    assert (found.kind, found.complete) == ("unknown", False)
    with pytest.raises(ModelError, match="does not exist; expected a model directory"):
        load_check(tmp_path / "nowhere")


def test_licences_as_the_directory_states_them(tmp_path: Path) -> None:
    torch.save(sam_state(), tmp_path / "sam.pth")
    (tmp_path / "README.md").write_text("---\nlicense: llama2\ntags: x\n---\n# Model\n")
    (tmp_path / "LICENSE").write_text("\n  Apache License  \nVersion 2.0\n")
    assert load_check(tmp_path).licences == ("llama2", "Apache License")
