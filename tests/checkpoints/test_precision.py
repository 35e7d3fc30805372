"""How precisely and where: what may be asked for, which part is which, what is quantised."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import lisa
from helpers.full_size_parts import LAYERS, WIDTH, FullSize
from helpers.official_checkpoint import write_lisa
from lisa.checkpoints import precision
from lisa.checkpoints.checkpoint import Planned, write_shards
from lisa.checkpoints.convert import convert
from lisa.checkpoints.precision import (
    Precision,
    bitsandbytes_config,
    check_packing,
    kept_layers,
    load_model,
    part_of,
    quantised_layers,
    spread,
    whole_modules,
)
from lisa.errors import ModelError


@pytest.fixture
def model() -> FullSize:
    with torch.device("meta"):
        return FullSize()


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"dtype": "int8"}, "dtype is 'int8'; expected float32"),
        ({"quantize": "2bit"}, "quantize is '2bit'; expected 8bit, 4bit"),
        ({"device_map": "everywhere"}, "device_map is 'everywhere'; expected auto"),
    ],
)
def test_what_nobody_knows_is_refused_by_name(asked: dict[str, str], named: str) -> None:
    with pytest.raises(ModelError, match=named):
        Precision(**asked)


def test_formats_have_defaults_that_fit_what_is_asked() -> None:
    assert Precision().torch_dtype == torch.float32 and Precision().plain
    assert Precision(dtype="fp32").plain
    assert Precision(dtype="fp16").torch_dtype == torch.float16
    assert not Precision(dtype="fp16").plain
    quantised = Precision(quantize="4bit")
    assert quantised.torch_dtype == torch.bfloat16 and not quantised.plain
    assert not Precision(device_map={"": "cpu"}).plain


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("head.layers.0.weight", "projector and head"),
        ("decoder.tower.blocks.0.weight", "image encoder"),
        ("decoder.vision_encoder.neck.conv1.weight", "image encoder"),
        ("decoder.sam.vision_encoder.layers.0.attn.qkv.weight", "image encoder"),
        ("decoder.mask_decoder.iou_token.weight", "mask decoder"),
        ("vlm.model.vision_tower.encoder.layers.0.mlp.fc1.weight", "vision tower"),
        ("vlm.model.visual.blocks.0.attn.qkv.weight", "vision tower"),
        ("vlm.model.visual.merger.mlp.0.weight", "projector and head"),
        ("vlm.model.multi_modal_projector.linear_1.weight", "projector and head"),
        ("vlm.model.connector.modality_projection.proj.weight", "projector and head"),
        ("vlm.model.language_model.layers.0.mlp.up_proj.weight", "language model"),
        ("vlm.lm_head.weight", "language model"),
    ],
)
def test_every_familys_names_are_put_in_their_part(name: str, part: str) -> None:
    assert part_of(name) == part


def test_only_the_layers_of_the_language_model_are_quantised(model: FullSize) -> None:
    kinds = ["self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o"]
    kinds += ["mlp.gate", "mlp.up", "mlp.down"]
    assert sorted(quantised_layers(model)) == sorted(
        f"vlm.model.language_model.layers.{number}.{kind}_proj"
        for number in range(LAYERS)
        for kind in kinds
    )


def test_every_other_linear_layer_is_kept(model: FullSize) -> None:
    kept = set(kept_layers(model))
    assert kept >= {"vlm.lm_head", "head.0", "vlm.model.multi_modal_projector.linear_1"}
    assert not kept & set(quantised_layers(model))
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert kept | set(quantised_layers(model)) == linear


def test_nothing_is_quantised_unless_it_is_asked_for(model: FullSize) -> None:
    assert bitsandbytes_config(model, Precision(dtype="bf16")) is None


def test_a_missing_package_is_named_with_its_cure(
    model: FullSize, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"needs bitsandbytes.*lisa-seg\[quantise\]"):
        bitsandbytes_config(model, Precision(quantize="8bit"))


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_the_quantiser_is_told_what_to_keep(model: FullSize, bits: str) -> None:
    pytest.importorskip("bitsandbytes")
    config = bitsandbytes_config(model, Precision(quantize=bits))
    assert config is not None and set(config.llm_int8_skip_modules) == set(kept_layers(model))
    assert (config.load_in_8bit, config.load_in_4bit) == (bits == "8bit", bits == "4bit")


# Places -------------------------------------------------------------------------------------------

KIB = 2**10


@pytest.fixture
def no_headroom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "HEADROOM", 0)


def memory(model: FullSize, precision: Precision, card: float, rest: float) -> dict[int | str, int]:
    """A card with room for all but the language side and this share of that, and a memory."""
    size = precision.torch_dtype.itemsize
    language = size * sum(p.numel() for p in model.vlm.parameters())
    others = size * sum(p.numel() for p in model.parameters()) - language
    return {0: int(others + card * language), "cpu": int(rest * language)}


@pytest.mark.usefixtures("no_headroom")
def test_the_language_side_fills_one_device_after_the_other(model: FullSize) -> None:
    places = spread(model, Precision(), memory(model, Precision(), 0.7, 0.25))
    assert places["decoder"] == places["head"] == 0
    assert set(places.values()) == {0, "cpu", "disk"}
    assert all(name.startswith("vlm.") for name, place in places.items() if place != 0)


@pytest.mark.usefixtures("no_headroom")
@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_a_quantised_model_needs_less_room(model: FullSize, bits: str) -> None:
    plain, quantised = Precision(dtype="bf16"), Precision(quantize=bits)
    places = memory(model, plain, 0.9, 9.0)
    assert "cpu" in spread(model, plain, places).values()
    assert set(spread(model, quantised, places).values()) == {0}


def test_room_is_left_on_the_first_device(model: FullSize) -> None:
    places = spread(model, Precision(), {0: precision.HEADROOM, "cpu": 2**30})
    assert {place for name, place in places.items() if name.startswith("vlm")} == {"cpu"}


def test_a_layer_stays_in_one_piece(model: FullSize) -> None:
    assert {"LlamaDecoderLayer", "CLIPEncoderLayer"} <= set(whole_modules(model.vlm))


# Loading ------------------------------------------------------------------------------------------

IDS = torch.arange(8)[None]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """A model's directory, in two shards and more, and what the model says."""
    torch.manual_seed(0)
    model = FullSize().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    directory = tmp_path_factory.mktemp("full-size")
    tensors = {k: v for k, v in model.state_dict().items() if k not in model.all_tied_weights_keys}
    planned = [Planned(k, tuple(v.shape), v.dtype, lambda v=v: v) for k, v in tensors.items()]
    write_shards(planned, directory, limit=200_000)
    assert len(list(directory.glob("*.safetensors"))) > 1
    with torch.inference_mode():
        return directory, model(IDS)


def says(model: FullSize) -> torch.Tensor:
    with torch.inference_mode():
        return model(IDS).float()


def test_what_is_loaded_says_the_same(model: FullSize, saved: tuple[Path, torch.Tensor]) -> None:
    loaded = load_model(model, saved[0], "cpu", Precision())
    assert torch.equal(says(loaded), saved[1])
    assert not loaded.training
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bits_are_close(
    model: FullSize, saved: tuple[Path, torch.Tensor], dtype: str
) -> None:
    loaded = load_model(model, saved[0], "cpu", Precision(dtype=dtype))
    assert {parameter.dtype for parameter in loaded.parameters()} == {getattr(torch, dtype)}
    assert 0 < (says(loaded) - saved[1]).abs().max() < 0.05 * saved[1].abs().max()


@pytest.mark.usefixtures("no_headroom")
def test_a_model_larger_than_the_memory_says_the_same(
    model: FullSize, saved: tuple[Path, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "get_max_memory", lambda: {"cpu": 500 * KIB})
    loaded = load_model(model, saved[0], "cpu", Precision(device_map="auto"))
    assert set(loaded.hf_device_map.values()) == {"cpu", "disk"}
    assert torch.equal(says(loaded), saved[1])


def test_parts_on_the_disk_say_the_same(model: FullSize, saved: tuple[Path, torch.Tensor]) -> None:
    places = {"vlm": "disk", "decoder": "cpu", "head": "cpu"}
    loaded = load_model(model, saved[0], "cpu", Precision(device_map=places))
    assert loaded.vlm.lm_head.weight.is_meta
    assert torch.equal(says(loaded), saved[1])


@pytest.mark.parametrize(("bits", "closeness"), [("8bit", 0.1), ("4bit", 0.5)])
def test_a_quantised_model_says_nearly_the_same(
    model: FullSize, saved: tuple[Path, torch.Tensor], bits: str, closeness: float
) -> None:
    pytest.importorskip("bitsandbytes")
    loaded = load_model(model, saved[0], "cpu", Precision(quantize=bits))
    weights = {name: loaded.get_submodule(name).weight.dtype for name in quantised_layers(model)}
    assert set(weights.values()) == {torch.int8 if bits == "8bit" else torch.uint8}
    kept = {loaded.get_submodule(name).weight.dtype for name in kept_layers(model)}
    assert kept == {torch.bfloat16}
    assert 0 < (says(loaded) - saved[1]).abs().max() < closeness * saved[1].abs().max()


def test_layers_that_a_cpu_cannot_pack_are_refused(model: FullSize) -> None:
    check_packing(model)
    odd = "vlm.model.language_model.layers.1.mlp.down_proj"
    model.set_submodule(odd, nn.Linear(WIDTH + 32, WIDTH, device="meta"))
    with pytest.raises(ModelError, match=rf"{odd}.* is 64 x 96: .*8bit"):
        check_packing(model)


@pytest.mark.parametrize("harm", ["missing", "unexpected", "shape"])
def test_weights_that_do_not_fit_are_named(
    model: FullSize, saved: tuple[Path, torch.Tensor], tmp_path: Path, harm: str
) -> None:
    tensors = {k: v for file in saved[0].glob("*.safetensors") for k, v in load_file(file).items()}
    weight = tensors.pop("head.0.weight")
    if harm == "shape":
        tensors["head.0.weight"] = weight[1:]
    elif harm == "unexpected":
        tensors |= {"head.0.weight": weight, "head.9.weight": weight.clone()}
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"head\.[09]\.weight"):
        load_model(model, tmp_path, "cpu", Precision())


def test_what_the_loader_says_becomes_one_line(
    model: FullSize, saved: tuple[Path, torch.Tensor]
) -> None:
    with pytest.raises(ModelError, match=r"cannot load .*device_map=.*lisa plan") as caught:
        load_model(model, saved[0], "cpu", Precision(device_map={"": "cuda:99"}))
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An official checkpoint of small size, as a directory of ours."""
    folder = tmp_path_factory.mktemp("official")
    write_lisa(folder / "LISA")
    convert(folder / "LISA", folder / "ours")
    return folder / "ours"


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"dtype": "bfloat16"},
        {"quantize": "8bit"},
        {"device_map": "auto"},
        {"device_map": {"vlm": "disk", "decoder": "cpu", "head": "cpu"}},
    ],
    ids=str,
)
def test_a_model_of_full_size_answers_in_every_precision(
    converted: Path, asked: dict[str, Any]
) -> None:
    if "quantize" in asked:
        pytest.importorskip("bitsandbytes")
    segmenter = lisa.load(converted, "cpu", **asked)
    photo = np.zeros((30, 40, 3), np.uint8)
    result = segmenter.segment(photo, "what is it?", answer="Sure, [SEG].")
    (mask,) = result.masks
    assert mask.mask.shape == (30, 40)
