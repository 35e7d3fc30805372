"""Memory told in advance: parts, bytes of each precision, and what fits."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlavaConfig,
    SamConfig,
    SamModel,
)

from helpers.official_checkpoint import CLIP, SAM, TEXT, write_lisa, write_llava
from lisa.checkpoints.checkpoint import Checkpoint
from lisa.checkpoints.directory import empty_model
from lisa.checkpoints.official_names import STANDARD_CLIP
from lisa.checkpoints.plan import (
    PARTS,
    PRECISIONS,
    Part,
    Place,
    Plan,
    make_plan,
    plan,
    this_machine,
)
from lisa.errors import ModelError
from lisa.model.config import LisaConfig
from lisa.model.lisa import LisaModel
from lisa.nano.model.lisa import NanoModel

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
        empty = NanoModel(model.config)
    assert make_plan(empty, "tiny", places=()) == make_plan(model, "tiny", places=())


@pytest.fixture
def full_size() -> LisaModel:
    """A small model of full size, without memory."""
    text = TEXT | {"vocab_size": 50, "model_type": "llama"}
    llava = LlavaConfig(vision_config=CLIP, text_config=text, image_token_index=49)
    return empty_model(LisaConfig.from_parts(llava, SamConfig(**SAM)), Path("."))


def test_finer_formats_take_less_and_longer_questions_more(full_size: LisaModel) -> None:
    short, long = (make_plan(full_size, "tiny", tokens, places=()).needs for tokens in (64, 128))
    weights = [need.weights for need in short]
    assert [need.precision for need in short] == list(PRECISIONS)
    assert weights == sorted(weights, reverse=True) and len(set(weights)) == len(weights)
    assert [need.cache for need in long] == [2 * need.cache for need in short]
    language = full_size.config.language_config()
    values = 2 * language.num_hidden_layers * language.num_key_value_heads * language.head_dim
    assert short[0].cache == values * 64 * 4


def test_the_embedded_models_make_has_one_precision(model: LisaModel) -> None:
    assert [need.precision for need in make_plan(model, "", places=()).needs] == ["float32"]


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


# Official checkpoints and parts -------------------------------------------------------------------


@pytest.fixture
def official(tmp_path: Path) -> Path:
    write_lisa(tmp_path / "LISA")
    return tmp_path / "LISA"


def numbers(planned: Plan) -> dict[str, int]:
    return {part.name: part.numbers for part in planned.parts}


def stored_numbers(directory: Path, *beginnings: str) -> int:
    """Of the tensors in a checkpoint of another project."""
    tensors = Checkpoint(directory).tensors
    return sum(
        math.prod(tensor.shape) for name, tensor in tensors.items() if name.startswith(beginnings)
    )


def test_an_official_checkpoint_is_planned_from_its_headers(official: Path) -> None:
    sam = stored_numbers(official, "model.visual_model.")
    bridges = stored_numbers(official, "model.mm_projector", "model.text_hidden_fcs")
    words = ("lm_head", "model.embed_tokens", "model.layers", "model.norm")
    rotary = stored_numbers(official, "model.layers.0.self_attn.rotary_emb.inv_freq")
    planned = numbers(plan(str(official)))
    assert planned["language model"] == stored_numbers(official, *words) - rotary
    assert planned["projector and head"] == bridges
    assert planned["image encoder"] + planned["mask decoder"] == sam
    tower = stored_numbers(official.parent / "tower", "vision_model.")
    positions = 5  # stored by older versions
    assert planned["vision tower"] == tower - positions


def test_a_tower_that_is_not_there_counts_as_the_papers(official: Path) -> None:
    shutil.rmtree(official.parent / "tower")
    config = CLIPVisionConfig(**STANDARD_CLIP)
    with torch.device("meta"):
        tower = sum(p.numel() for p in CLIPVisionModel(config).parameters())
    fields = json.loads((official / "config.json").read_text()) | {"mm_hidden_size": 1024}
    (official / "config.json").write_text(json.dumps(fields))
    assert numbers(plan(str(official)))["vision tower"] == tower


def test_a_checkpoint_that_is_no_lisa_is_refused(tmp_path: Path) -> None:
    write_llava(tmp_path / "LLaVA")
    with pytest.raises(ModelError, match="LLaVA base; expected a LISA"):
        plan(str(tmp_path / "LLaVA"))


def test_two_parts_are_planned_from_their_configurations(tmp_path: Path) -> None:
    SamConfig(**SAM).save_pretrained(tmp_path / "sam")
    text = TEXT | {"vocab_size": 50, "model_type": "llama"}
    llava = LlavaConfig(vision_config=CLIP, text_config=text, image_token_index=49)
    llava.save_pretrained(tmp_path / "llava")
    planned = plan(vlm=str(tmp_path / "llava"), decoder=str(tmp_path / "sam"))
    assert set(numbers(planned)) == set(PARTS)
    with torch.device("meta"):
        decoder = SamModel(SamConfig(**SAM))
    counted = numbers(planned)["image encoder"] + numbers(planned)["mask decoder"]
    assert counted == sum(p.numel() for p in decoder.parameters())


def test_attention_over_a_whole_picture_is_counted() -> None:
    """SAM ViT-H at 1024 pixels: 16 heads, 64 x 64 places, three maps (arXiv 2304.02643)."""
    sam = SamConfig(
        vision_config={
            "hidden_size": 1280,
            "num_hidden_layers": 2,
            "num_attention_heads": 16,
            "global_attn_indexes": [1],
            "mlp_dim": 5120,
        }
    )
    llava = LlavaConfig(vision_config=CLIP, text_config=TEXT | {"model_type": "llama"})
    config = LisaConfig.from_parts(llava, sam)
    planned = make_plan(empty_model(config, Path(".")), "", places=())
    assert planned.needs[0].activations == 3 * 16 * 4096**2 * 4
    assert planned.needs[1].activations == 3 * 16 * 4096**2 * 2


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
