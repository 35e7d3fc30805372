"""Conversions of tiny checkpoints: what arrives, what is refused, and how much memory it takes."""

from __future__ import annotations

import errno
import gc
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import LlavaForConditionalGeneration, SamModel

from helpers.official_checkpoint import (
    TEXT,
    llava_state,
    sam_state,
    with_lora,
    write_lisa,
    write_llava,
    write_shards,
)
from lisa.checkpoints import checkpoint as checkpoint_module
from lisa.checkpoints.checkpoint import Checkpoint
from lisa.checkpoints.convert import convert
from lisa.checkpoints.directory import read_config
from lisa.checkpoints.inspect import load_check
from lisa.checkpoints.official_names import LISA_NAMES, Kind, renamed
from lisa.errors import LisaError, ModelError, OutputError
from lisa.model.llama_tokenizer import LegacyTokenizer


@pytest.fixture(scope="session")
def lisa_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny official LISA, its tower beside it; tests that change it copy it first."""
    directory = tmp_path_factory.mktemp("official") / "lisa"
    write_lisa(directory)
    return directory


@pytest.fixture
def source(lisa_directory: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    shutil.copytree(lisa_directory.parent, tmp_path / "official")
    return tmp_path / "official" / "lisa"


def read_all(directory: Path) -> dict[str, torch.Tensor]:
    checkpoint = Checkpoint(directory)
    return {key: checkpoint.read(key).clone() for key in checkpoint.tensors}


# ------------------------------------------------------------------- what arrives


def test_a_lisa_arrives_bit_for_bit(lisa_directory: Path, tmp_path: Path) -> None:
    conversion = convert(lisa_directory, tmp_path / "ours")
    state, ours = read_all(lisa_directory), read_all(tmp_path / "ours")
    moved = {key: renamed(key, LISA_NAMES) for key in state if "inv_freq" not in key}
    assert all(torch.equal(ours[name], state[key]) for key, name in moved.items() if name)
    tower = read_all(lisa_directory.parent / "tower")
    name = "encoder.layers.2.mlp.fc1.weight"
    assert torch.equal(ours[f"vlm.model.model.vision_tower.{name}"], tower[f"vision_model.{name}"])
    assert sum(part.tensors for part in conversion.parts) == len(ours)
    assert conversion.left_out == (
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "vision_model.embeddings.position_ids",
        "logit_scale",
    )
    assert load_check(tmp_path / "ours").complete


def test_configuration_and_tokenizer(lisa_directory: Path, tmp_path: Path) -> None:
    convert(lisa_directory, tmp_path / "ours", conversation="llava_llama_2")
    config = read_config(tmp_path / "ours")
    tokenizer = LegacyTokenizer.read(tmp_path / "ours")
    assert config.seg_token_id == tokenizer.seg_token_id
    assert (config.projector, config.conversation) == ("linear", "llava_llama_2")
    assert (config.image_size, config.prompt_size) == (64, 256)
    assert config.language_config().hidden_size == TEXT["hidden_size"]
    assert "reasonseg/train" in config.trained_on
    generation = json.loads((tmp_path / "ours" / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def test_the_tower_may_be_elsewhere(source: Path, tmp_path: Path) -> None:
    (source.parent / "tower").rename(tmp_path / "clip")
    with pytest.raises(ModelError, match=r"no vision tower in '.*tower'; expected --vision-tower"):
        convert(source, tmp_path / "ours")
    convert(source, tmp_path / "ours", vision_tower=tmp_path / "clip")
    assert load_check(tmp_path / "ours").complete


def test_training_output_is_merged(lisa_directory: Path, tmp_path: Path) -> None:
    """Its tokenizer is that of the LLaVA it started from, which has no [SEG] yet."""
    base = tmp_path / "base"
    write_llava(base)
    stored = with_lora(
        {key: value for key, value in read_all(lisa_directory).items() if "inv_freq" not in key}
    )
    stored["base_model.model.model.vision_tower.vision_tower.x"] = torch.zeros(1)
    torch.save(stored, tmp_path / "pytorch_model.bin")
    conversion = convert(tmp_path / "pytorch_model.bin", tmp_path / "ours", base=base)
    assert conversion.kind == "unmerged training output"
    ours, name = read_all(tmp_path / "ours"), "model.layers.1.self_attn.v_proj"
    down, up = (stored[f"base_model.model.{name}.lora_{part}.default.weight"] for part in "AB")
    expected = stored[f"base_model.model.{name}.weight"] + 8 * up @ down  # alpha 16, rank 2
    torch.testing.assert_close(
        ours["vlm.model.model.language_model.layers.1.self_attn.v_proj.weight"], expected
    )
    tokenizer = LegacyTokenizer.read(tmp_path / "ours")
    assert list(tokenizer.added) == ["[SEG]", "<im_start>", "<im_end>"]


def test_segment_anything_becomes_a_decoder(tmp_path: Path) -> None:
    state = sam_state()
    torch.save(state, tmp_path / "sam.pth")
    assert convert(tmp_path / "sam.pth", tmp_path / "ours").kind == "SAM"
    model = SamModel.from_pretrained(tmp_path / "ours")
    weight = model.vision_encoder.layers[1].layer_norm2.weight
    assert torch.equal(weight, state["image_encoder.blocks.1.norm2.weight"])
    assert load_check(tmp_path / "ours").complete


def test_llava_becomes_a_language_side(tmp_path: Path) -> None:
    state = write_llava(tmp_path / "llava", layers=2)
    conversion = convert(tmp_path / "llava", tmp_path / "ours")
    assert "no mask decoder, no [SEG] head" in conversion.result
    model = LlavaForConditionalGeneration.from_pretrained(tmp_path / "ours")
    linear = model.model.multi_modal_projector.linear_2.weight
    assert torch.equal(linear, state["model.mm_projector.2.weight"])
    assert load_check(tmp_path / "ours").complete


def test_llava_with_a_decoder_becomes_an_untrained_lisa(tmp_path: Path) -> None:
    write_llava(tmp_path / "llava")
    torch.save(sam_state(), tmp_path / "sam.pth")
    conversion = convert(
        tmp_path / "llava", tmp_path / "ours", decoder=tmp_path / "sam.pth", kind=Kind.llava
    )
    assert conversion.result == "a LISA with an untrained head"
    checked = load_check(tmp_path / "ours")
    assert checked.complete and checked.seg_token_id == 400
    assert checked.sizes["vocabulary"] == 403
    assert checked.trained_on == ()


# ------------------------------------------------------------------- what is refused


def drop(state: dict[str, torch.Tensor]) -> None:
    del state["model.norm.weight"]


def rename(state: dict[str, torch.Tensor]) -> None:
    state["model.nrm.weight"] = state.pop("model.norm.weight")


def reshape(state: dict[str, torch.Tensor]) -> None:
    state["model.norm.weight"] = torch.zeros(3)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (drop, r"'model.norm.weight' is missing; expected"),
        (rename, r"'model.norm.weight' is missing; 'model.nrm.weight' is left over; expected"),
        (reshape, r"'model.norm.weight' is \[3\] instead of \[16\]; expected"),
    ],
)
def test_tensors_that_do_not_fit(
    source: Path, tmp_path: Path, damage: Callable[[dict[str, torch.Tensor]], None], problem: str
) -> None:
    state = read_all(source)
    damage(state)
    write_shards(source, state)
    with pytest.raises(ModelError, match=f"the tensors of '.*lisa' do not fit: {problem}"):
        convert(source, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
    checked = load_check(source)
    assert checked.kind == "official LISA" and not checked.complete


def test_a_shard_cut_short(source: Path, tmp_path: Path) -> None:
    shard = source / "pytorch_model-00002-of-00003.bin"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"cannot read '.*00002-of-00003.bin': .*; expected a"):
        convert(source, tmp_path / "ours")
    checked = load_check(source)
    assert not checked.complete and "00002-of-00003.bin" in checked.problems[0]


def test_a_tokenizer_without_seg(source: Path, tmp_path: Path) -> None:
    (source / "added_tokens.json").write_text("{}")
    problem = r"the tokenizer in '.*lisa' has no \[SEG\]; expected it among added_tokens.json"
    with pytest.raises(ModelError, match=problem):
        convert(source, tmp_path / "ours")
    assert "has no [SEG]" in load_check(source).problems[0]


def test_more_tokens_than_rows(source: Path, tmp_path: Path) -> None:
    tokenizer = LegacyTokenizer.read(source)
    tokenizer.add("<one_more>")
    tokenizer.save(source)
    with pytest.raises(ModelError, match=r"has 403 rows; expected 404, one for each token"):
        convert(source, tmp_path / "ours")


def test_low_rank_factors_without_their_base(tmp_path: Path) -> None:
    stored = with_lora(llava_state(403))
    torch.save({k: v for k, v in stored.items() if "lora_" in k}, tmp_path / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"'.*lora_.*' has no '.*weight' beside it in '.*adapter"):
        convert(tmp_path / "adapter_model.bin", tmp_path / "ours")


def test_training_output_without_a_configuration(tmp_path: Path) -> None:
    torch.save(with_lora(llava_state(403)), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no config.json in '.*'; expected .* or --base with"):
        convert(tmp_path / "pytorch_model.bin", tmp_path / "ours")


def test_weights_of_something_else(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    with pytest.raises(ModelError, match=r"holds names such as 'conv1.weight'; expected those of"):
        convert(tmp_path / "resnet.pth", tmp_path / "ours")


def test_a_decoder_for_what_has_one(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is official LISA and has a decoder; expected no --dec"):
        convert(source, tmp_path / "ours", decoder=tmp_path / "sam.pth")


def test_a_full_disk_leaves_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint_module.os, "fsync", fill)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match=r"cannot write '.*ours': No space left on device; exp"):
        convert(source, tmp_path / "ours")
    assert sorted(tmp_path.iterdir()) == before


def test_an_existing_destination_is_refused_before_anything_is_written(
    source: Path, tmp_path: Path
) -> None:
    (tmp_path / "ours").mkdir()
    with pytest.raises(OutputError, match="it exists; expected a new directory"):
        convert(source, tmp_path / "ours")
    assert not list((tmp_path / "ours").iterdir())


def test_nothing_at_the_source(tmp_path: Path) -> None:
    with pytest.raises(LisaError, match="no weights in"):
        convert(tmp_path / "nowhere", tmp_path / "ours")


# ------------------------------------------------------------------- memory


def peak_memory(work: Callable[[], object]) -> int:
    """Bytes by which resident memory rises during ``work``, files that are mapped included."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = resident("VmRSS")
    work()
    return resident("VmHWM") - before


def resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise AssertionError(field)


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="the system does not tell peak memory"
)
def test_memory_stays_below_the_largest_shard_and_a_third(tmp_path: Path) -> None:
    source = tmp_path / "official" / "lisa"
    source.parent.mkdir()
    state = write_lisa(source)
    convert(source, tmp_path / "first")  # what is imported on the way is not counted
    width, inner = TEXT["hidden_size"], 250_000
    fields = json.loads((source / "config.json").read_text()) | {"intermediate_size": inner}
    (source / "config.json").write_text(json.dumps(fields))
    for key, value in state.items():
        if ".mlp." in key and key.startswith("model.layers"):
            state[key] = torch.ones([inner if side != width else side for side in value.shape])
    write_shards(source, state)
    largest = max(shard.stat().st_size for shard in source.glob("*.bin"))
    total = sum(shard.stat().st_size for shard in source.glob("*.bin"))
    assert total > 2 * largest  # one at a time, or the limit is missed
    assert peak_memory(lambda: convert(source, tmp_path / "ours")) < 1.3 * largest
