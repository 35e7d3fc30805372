"""The script that measures models of full size, on a model that has no size."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from typer.testing import CliRunner

from helpers.paths import CHECKOUT
from lisa.checkpoints.directory import empty_model
from lisa.checkpoints.plan import make_plan
from lisa.checkpoints.precision import Precision, kept_layers, quantised_layers

SCRIPT = CHECKOUT / "benchmarks" / "full_size.py"
CPU = torch.device("cpu")
CLIP_NUMBERS = 303_179_776  # of the vision tower, which the published checkpoints leave out
ROTARY_NUMBERS = {"7b": 32 * 64, "13b": 40 * 64}  # which they have, and nobody needs
PUBLISHED_NUMBERS = {"7b": 7_401_569_840, "13b": 13_689_766_960}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    specification = importlib.util.spec_from_file_location("full_size", SCRIPT)
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules["full_size"] = module  # where dataclasses look for their module
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("size", ["7b", "13b"])
def test_the_shapes_are_those_of_the_published_models(script: ModuleType, size: str) -> None:
    planned = make_plan(empty_model(script.shape(size), Path(".")), size, places=())
    published = PUBLISHED_NUMBERS[size] - ROTARY_NUMBERS[size] + CLIP_NUMBERS
    assert planned.numbers == published


def test_random_models_have_memory_and_real_buffers(script: ModuleType) -> None:
    model = script.build_random(script.shape("tiny"), CPU, Precision(dtype="bfloat16"))
    tensors = [*model.parameters(), *model.buffers()]
    assert {tensor.device for tensor in tensors} == {CPU}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    rotary = model.vlm.model.model.language_model.rotary_emb.inv_freq
    expected = 10000.0 ** (-torch.arange(0, 16, 2) / 16)
    torch.testing.assert_close(rotary, expected)


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_only_the_language_models_layers_are_quantised(script: ModuleType, bits: str) -> None:
    pytest.importorskip("bitsandbytes")
    config = script.shape("tiny")
    quantised = quantised_layers(empty_model(config, Path(".")))
    model = script.build_random(config, CPU, Precision(quantize=bits))
    kinds = {model.get_submodule(name).weight.dtype for name in quantised}
    assert kinds == {torch.int8 if bits == "8bit" else torch.uint8}
    kept = set(kept_layers(model)) - set(quantised)
    assert {model.get_submodule(name).weight.dtype for name in kept} == {torch.bfloat16}


@pytest.mark.parametrize("precision", ["bfloat16", "8bit", "4bit"])
def test_the_table_is_printed_and_written(
    script: ModuleType, tmp_path: Path, precision: str
) -> None:
    if precision != "bfloat16":
        pytest.importorskip("bitsandbytes")
    app = script.typer.Typer()
    app.command()(script.main)
    out = tmp_path / "table.md"
    options = ["--size", "tiny", "--device", "cpu", "--out", str(out)]
    done = CliRunner().invoke(app, [*options, "--precision", precision], catch_exceptions=False)
    assert done.exit_code == 0 and out.read_text() == done.stdout
    head, _, row, *_ = done.stdout.splitlines()
    assert len(head.split("|")) == len(row.split("|"))
    _, named, *figures, _ = (cell.strip() for cell in row.split("|"))
    assert named == precision and all(float(figure) > 0 for figure in figures)
    assert f"torch {torch.__version__}" in done.stdout and "(CPU)" in done.stdout
