"""Memory told in advance: parts, bytes of each precision, and what fits."""

import json
from pathlib import Path

import pytest
import torch

from lisa.errors import ModelError
from lisa.model.lisa import LisaModel
from lisa.model.plan import PRECISIONS, Part, Place, make_plan, plan, this_machine

SMALL, LARGE = Place("small", 2**20, 2**10), Place("large", 2**40, 2**40)


def test_a_part_takes_the_bytes_of_its_format() -> None:
    part = Part("language model", numbers=1000 + 64 * 256, quantised=64 * 256, rows=64)
    assert part.bytes("float32") == 4 * part.numbers
    assert part.bytes("bfloat16") == 2 * part.numbers
    assert part.bytes("8bit") == 2000 + 64 * 256 + 4 * 64
    assert part.bytes("4bit") == 2000 + 64 * 128 + 256 + 4


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_the_bytes_are_those_of_the_quantiser(bits: str) -> None:
    quantiser = pytest.importorskip("bitsandbytes")
    rows, columns = 96, 256
    weight = torch.randn(rows, columns)
    if bits == "8bit":
        codes, scales, _ = quantiser.functional.int8_vectorwise_quant(weight.half())
        taken = codes.nbytes + scales.nbytes
    else:
        codes, state = quantiser.functional.quantize_4bit(
            weight, quant_type="nf4", compress_statistics=True
        )
        taken = codes.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes
    assert Part("language model", rows * columns, rows * columns, rows).bytes(bits) == taken


def test_every_stored_number_is_counted_once(model: LisaModel) -> None:
    planned = make_plan(model, "tiny", places=())
    assert planned.numbers == sum(p.numel() for p in model.parameters()) + sum(
        b.numel() for name, b in model.named_buffers() if name in model.state_dict()
    )
    assert planned.needs[0].weights == 4 * planned.numbers


def test_a_plan_needs_no_memory(model: LisaModel) -> None:
    with torch.device("meta"):
        empty = LisaModel(model.config)
    assert make_plan(empty, "tiny", places=()) == make_plan(model, "tiny", places=())


def test_finer_formats_take_less_and_longer_questions_more(model: LisaModel) -> None:
    short, long = (make_plan(model, "tiny", tokens, places=()).needs for tokens in (64, 128))
    weights = [need.weights for need in short]
    assert [need.precision for need in short] == list(PRECISIONS)
    assert weights == sorted(weights, reverse=True) and len(set(weights)) == len(weights)
    assert [need.cache for need in long] == [2 * need.cache for need in short]
    language = model.config.language_config()
    values = 2 * language.num_hidden_layers * language.num_key_value_heads * language.head_dim
    assert short[0].cache == values * 64 * 4


def test_what_fits_is_said_place_by_place(model: LisaModel) -> None:
    for need in make_plan(model, "tiny", places=(SMALL, LARGE)).needs:
        assert need.fits == {"small": False, "large": True}
        assert need.total == need.weights + need.cache + need.activations


def test_a_tenth_of_what_is_free_is_left_alone(model: LisaModel) -> None:
    total = make_plan(model, "tiny", places=()).needs[0].total
    places = (Place("tight", total, total), Place("roomy", total, int(total / 0.9) + 1))
    assert make_plan(model, "tiny", places=places).needs[0].fits == {"tight": False, "roomy": True}


def test_this_machine_has_memory() -> None:
    memory, *cards = this_machine()
    assert 0 < memory.free <= memory.total
    assert len(cards) == torch.cuda.device_count()


def test_the_plan_of_a_directory_is_that_of_its_model(
    tiny_directory: Path, model: LisaModel
) -> None:
    planned = plan(str(tiny_directory), tokens=32)
    assert planned.parts == make_plan(model, "").parts
    assert (planned.model, planned.tokens) == (str(tiny_directory), 32)


def test_weights_are_not_read(tiny_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((tiny_directory / "config.json").read_bytes())
    assert plan(str(tmp_path)).parts == plan(str(tiny_directory)).parts


def test_a_plan_is_told_in_a_table_and_in_json(model: LisaModel) -> None:
    planned = make_plan(model, "tiny", places=(SMALL, LARGE))
    lines = str(planned).splitlines()
    rows = {line.split("  ")[0] for line in lines}
    assert {"weights", "cache", "activations", "total", "fits small", "fits large"} <= rows
    assert {part.name for part in planned.parts} <= rows
    told = json.loads(json.dumps(planned.to_dict()))
    assert told["numbers"] == planned.numbers
    assert [need["total"] for need in told["needs"]] == [need.total for need in planned.needs]
    assert set(told["formulas"]) == {"weights", "cache", "activations", "fits"}


@pytest.mark.parametrize(
    "asked",
    [{}, {"vlm": "a"}, {"decoder": "b"}, {"model": "nano", "vlm": "a", "decoder": "b"}],
)
def test_a_plan_is_for_a_model_or_for_two_parts(asked: dict[str, str]) -> None:
    with pytest.raises(ModelError, match="expected a model, or --vlm and --decoder"):
        plan(**asked)


def test_a_model_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelError, match="nowhere"):
        plan("nowhere")
