"""Other people's checkpoints: every tensor under its key, and the same numbers come out."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer, LlamaForCausalLM

from helpers.lively_model import CONTROL_TOKENS, chat_tokenizer
from helpers.published_tower import published_state
from helpers.tiny_model import tiny_model
from lisa.checkpoints.checkpoint import read_file
from lisa.checkpoints.directory import build
from lisa.checkpoints.packed import assemble
from lisa.errors import ModelError
from lisa.nano.model import starting_weights
from lisa.nano.model.processor import LisaProcessor
from lisa.nano.model.projector import NAME_TOKENS
from lisa.nano.model.tower import VisionTower

WIDTH, LAYERS, HEADS, KEY_HEADS, INNER = 64, 3, 4, 2, 96
NAMES = [f"class {n}" for n in range(1000)]


def gguf_package() -> Any:
    return pytest.importorskip("gguf", reason="extra starting-weights is not installed")


def write_gguf(path: Path, *, changes: dict[str, Any] | None = None) -> Path:
    """A small Llama with random weights, packed as SmolLM2 is: blocks, and plain norms."""
    gguf = gguf_package()
    changes = changes or {}
    writer = gguf.GGUFWriter(str(path), changes.get("architecture", "llama"))
    if not changes.get("no fields"):
        writer.add_context_length(256)
        writer.add_embedding_length(WIDTH)
        writer.add_block_count(LAYERS)
        writer.add_feed_forward_length(INNER)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(KEY_HEADS)
        writer.add_rope_freq_base(50000.0)
        writer.add_layer_norm_rms_eps(1e-5)
    write_tokenizer(writer, gguf)
    kind = gguf.GGMLQuantizationType
    generator = np.random.default_rng(0)

    def add(name: str, rows: int, columns: int, quantization: Any) -> None:
        values = (generator.normal(size=(rows, columns)) * 0.3).astype(np.float32)
        if quantization == kind.F32:
            writer.add_tensor(name, values)
        else:
            packed = gguf.quants.quantize(values, quantization)
            writer.add_tensor(name, packed, raw_dtype=quantization)

    def norm(name: str) -> None:
        writer.add_tensor(name, generator.random(WIDTH, dtype=np.float32) + 0.5)

    norm("output_norm.weight")  # not first, as the embeddings happen to be in the published file
    add("token_embd.weight", 400, WIDTH, changes.get("embeddings", kind.Q8_0))
    head = WIDTH // HEADS
    for layer in range(LAYERS):
        norm(f"blk.{layer}.attn_norm.weight")
        norm(f"blk.{layer}.ffn_norm.weight")
        add(f"blk.{layer}.attn_q.weight", WIDTH, WIDTH, kind.Q4_1)
        add(f"blk.{layer}.attn_k.weight", head * KEY_HEADS, WIDTH, kind.Q4_1)
        add(f"blk.{layer}.attn_v.weight", head * KEY_HEADS, WIDTH, kind.Q8_0)
        add(f"blk.{layer}.attn_output.weight", WIDTH, WIDTH, kind.Q4_1)
        add(f"blk.{layer}.ffn_gate.weight", INNER, WIDTH, kind.Q4_1)
        add(f"blk.{layer}.ffn_up.weight", INNER, WIDTH, kind.F32)
        add(f"blk.{layer}.ffn_down.weight", WIDTH, INNER, kind.Q4_1)
    if changes.get("untied"):
        add("output.weight", 400, WIDTH, kind.Q8_0)
    if changes.get("extra"):
        norm(changes["extra"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_tokenizer(writer: Any, gguf: Any) -> None:
    """The test tokenizer without [SEG], as GGUF spells a byte-level BPE."""
    stored = json.loads(chat_tokenizer().to_str())["model"]
    tokens = sorted(stored["vocab"], key=stored["vocab"].get)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([control if token in CONTROL_TOKENS else normal for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in stored["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("language") / "tiny.gguf")


@pytest.fixture(scope="module")
def tower_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tower") / "tower.pth"
    torch.save(published_state(), path)
    return path


# ----------------------------------------------------------------- the language model


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("output_norm.weight", "model.norm.weight"),
        ("output.weight", "lm_head.weight"),
        ("blk.12.attn_q.weight", "model.layers.12.self_attn.q_proj.weight"),
        ("blk.0.ffn_down.weight", "model.layers.0.mlp.down_proj.weight"),
        ("blk.0.attn_norm.weight", "model.layers.0.input_layernorm.weight"),
    ],
)
def test_llama_keys(published: str, ours: str) -> None:
    assert starting_weights.llama_key(published) == ours


@pytest.mark.parametrize("name", ["rope_freqs.weight", "blk.0.attn_q.bias", "blk.x.attn_q.weight"])
def test_a_tensor_that_no_llama_has_is_named(name: str) -> None:
    with pytest.raises(ModelError, match=f"'{name}' is no tensor of a Llama; expected"):
        starting_weights.llama_key(name)


def test_rotary_rows_go_back_to_halves() -> None:
    """llama.cpp permutes by `reshape(heads, 2, half, columns).swapaxes(1, 2)`."""
    rows = np.arange(2 * 6 * 3).reshape(12, 3)  # two heads of six rows
    permuted = rows.reshape(2, 2, 3, 3).swapaxes(1, 2).reshape(12, 3)
    assert (starting_weights.unpermute(torch.from_numpy(permuted), 2).numpy() == rows).all()


@pytest.mark.parametrize("untied", [False, True])
def test_the_language_model_is_the_one_that_transformers_reads(
    tmp_path: Path, untied: bool
) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", changes={"untied": untied})
    stored, fields = starting_weights.read_gguf(path)
    theirs = LlamaForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
    ours = assemble(stored)
    expected = theirs.state_dict()
    assert ours.keys() | {"lm_head.weight"} == expected.keys()
    for key, tensor in ours.items():
        torch.testing.assert_close(tensor, expected[key], rtol=1e-5, atol=1e-6)
    assert fields["tie_word_embeddings"] is not untied
    for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"):
        assert fields[name] == getattr(theirs.config, name), name
    for name in ("num_attention_heads", "num_key_value_heads", "max_position_embeddings"):
        assert fields[name] == getattr(theirs.config, name), name
    assert fields["rms_norm_eps"] == pytest.approx(theirs.config.rms_norm_eps)
    assert fields["rope_parameters"]["rope_theta"] == theirs.config.rope_parameters["rope_theta"]


def test_blocks_are_kept_byte_for_byte(gguf_file: Path) -> None:
    stored, _ = starting_weights.read_gguf(gguf_file)
    published = {tensor.name: tensor for tensor in gguf_package().GGUFReader(gguf_file).tensors}
    values = stored["model.layers.1.mlp.gate_proj.weight.q4_1"]
    assert values.shape == (INNER, WIDTH // 32, 20)
    assert values.numpy().tobytes() == published["blk.1.ffn_gate.weight"].data.tobytes()
    assert stored["model.embed_tokens.weight.q8_0"].shape == (400, WIDTH // 32, 34)
    assert stored["model.norm.weight"].dtype == torch.float32


BAD_GGUF: list[tuple[str, dict[str, Any], str]] = [
    ("other architecture", {"architecture": "mamba"}, "has no field 'llama.embedding_length'"),
    ("no fields", {"no fields": True}, "has no field 'llama.embedding_length'"),
    ("extra tensor", {"extra": "blk.0.attn_q_norm.weight"}, "'blk.0.attn_q_norm.weight' is no"),
]


@pytest.mark.parametrize(
    ("changes", "said"), [b[1:] for b in BAD_GGUF], ids=[b[0] for b in BAD_GGUF]
)
def test_a_gguf_file_of_something_else_is_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", changes=changes)
    with pytest.raises(ModelError) as caught:
        starting_weights.read_gguf(path)
    assert said in str(caught.value)
    assert "expected" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_blocks_of_another_kind_are_refused(tmp_path: Path) -> None:
    kind = gguf_package().GGMLQuantizationType.Q5_0
    path = write_gguf(tmp_path / "tiny.gguf", changes={"embeddings": kind})
    with pytest.raises(
        ModelError, match=r"'token_embd.weight' in '.*tiny.gguf' is packed as q5_0;"
    ):
        starting_weights.read_gguf(path)


@pytest.mark.parametrize("content", [None, b"", b"GGUF", b"not a gguf file at all" * 9])
def test_a_damaged_gguf_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    gguf_package()
    path = tmp_path / "tiny.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        starting_weights.read_gguf(path)
    assert str(path) in str(caught.value)
    assert "expected a GGUF file" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_the_gguf_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(ModelError, match=r"'x.gguf' without gguf; expected lisa-seg\[starting-w"):
        starting_weights.read_gguf(Path("x.gguf"))


# -------------------------------------------------------------------- the vision tower


def test_every_published_key_finds_its_place() -> None:
    published = published_state()
    ours = VisionTower().state_dict()
    renamed = {starting_weights.tower_key(key): value for key, value in published.items()}
    assert len(renamed) == len(published)
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in ours.items()}


@pytest.mark.parametrize(
    "key", ["features.0.weight", "_blocks.16._bn0.weight", "_blocks.1._se.weight", "_blocks.1", ""]
)
def test_a_key_that_the_tower_has_not_is_named(key: str) -> None:
    with pytest.raises(ModelError, match=f"'{key}' is no tensor of an EfficientNet-Lite0"):
        starting_weights.tower_key(key)


def test_a_published_tower_is_read(tower_file: Path) -> None:
    tower = VisionTower()
    tower.load_state_dict(starting_weights.read_tower(tower_file))
    assert torch.equal(tower.classifier.weight, published_state()["_fc.weight"])


def without(key: str) -> dict[str, Tensor]:
    return {k: v for k, v in published_state().items() if k != key}


BAD_TOWERS: list[tuple[str, Any, str]] = [
    ("a list", [1, 2], "holds a list; expected a state dict"),
    ("other keys", {"layer1.weight": torch.zeros(1)}, "'layer1.weight' is no tensor"),
    ("one missing", without("_fc.bias"), "'classifier.bias' is missing; expected shape [1000]"),
    (
        "mis-shaped",
        published_state() | {"_fc.bias": torch.zeros(9)},
        "'classifier.bias' has shape [9]",
    ),
]


@pytest.mark.parametrize(
    ("state", "said"), [b[1:] for b in BAD_TOWERS], ids=[b[0] for b in BAD_TOWERS]
)
def test_weights_of_another_tower_are_refused(tmp_path: Path, state: Any, said: str) -> None:
    torch.save(state, tmp_path / "tower.pth")
    with pytest.raises(ModelError) as caught:
        starting_weights.read_tower(tmp_path / "tower.pth")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


class Surprise:
    """What a pickle of unknown origin may hold."""

    def __reduce__(self) -> Any:
        return (print, ("this must not run",))


@pytest.mark.parametrize("content", [None, b"", b"text", pickle.dumps(Surprise(), protocol=2)])
def test_a_damaged_tower_is_named_and_nothing_in_it_runs(
    tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tower.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        starting_weights.read_tower(path)
    message = str(caught.value)
    assert str(path) in message
    assert "expected a PyTorch state dict" in message
    assert "\n" not in message
    assert capsys.readouterr().out == ""


# -------------------------------------------------------------------- the model directory


@pytest.fixture(scope="module")
def starting(gguf_file: Path, tower_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "new" / "start"
    starting_weights.starting_weights(gguf_file, tower_file, NAMES, ["cat", "cup of tea"], out)
    return out


def test_starting_weights_are_a_model_directory(starting: Path, gguf_file: Path) -> None:
    assert sorted(path.name for path in starting.iterdir()) == [
        "config.json",
        "language-embeddings.safetensors",
        "language-layers-1.safetensors",
        "language-layers-2.safetensors",
        "lisa.safetensors",
        "tokenizer.json",
        "tower.safetensors",
    ]
    model, processor = build(starting, "cpu")
    assert model.config.concepts == ["cat", "cup of tea"]
    assert processor.tokenizer.token_to_id("[SEG]") == model.config.seg_token_id == 400
    published = assemble(starting_weights.read_gguf(gguf_file)[0])
    state = model.vlm.language.state_dict()
    assert all(torch.equal(state[key], published[key]) for key in published)
    tower = model.decoder.tower.state_dict()
    for key, value in published_state().items():
        torch.testing.assert_close(
            tower[starting_weights.tower_key(key)], value, rtol=1e-3, atol=1e-6
        )


def test_the_language_model_says_what_the_published_one_says(
    starting: Path, gguf_file: Path
) -> None:
    theirs = LlamaForCausalLM.from_pretrained(
        gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.float32
    )
    model, processor = build(starting, "cpu")
    ids = torch.tensor([processor.question_ids("what is the cat?")])
    with torch.no_grad():
        expected = theirs(input_ids=ids).logits
        hidden = model.vlm.language.model(inputs_embeds=model.vlm.embed(ids)).last_hidden_state
        torch.testing.assert_close(
            model.vlm.logits(hidden)[..., :-1], expected, rtol=1e-3, atol=1e-4
        )


def test_the_tokenizer_is_the_published_one_and_seg(starting: Path, gguf_file: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    _, processor = build(starting, "cpu")
    for text in ("what is the cat?", " umbrella", "\n", "dónde está?"):
        expected = theirs(text, add_special_tokens=False).input_ids
        assert processor.tokenizer.encode(text, add_special_tokens=False).ids == expected


def test_names_are_written_in_the_language_models_own_tokens(starting: Path) -> None:
    model, processor = build(starting, "cpu")
    projector = model.vlm.projector
    for row, name in [
        (projector.concept_ids[1], "cup of tea"),
        (projector.class_ids[999], NAMES[999]),
    ]:
        ids = [token_id for token_id in row.tolist() if token_id >= 0]
        assert processor.tokenizer.decode(ids) == f" {name}"
        assert row.tolist() == ids + [-1] * (len(row) - len(ids))
    assert processor.tokenizer.decode([int(projector.comma_id)]) == ","


def test_tokens_of_names_are_kept_as_whole_numbers(starting: Path) -> None:
    """Half precision would make other names of them."""
    stored = read_file(starting / "lisa.safetensors")
    for name in ("class_ids", "concept_ids", "comma_id"):
        assert stored[f"vlm.projector.{name}"].dtype == torch.int64


def test_a_name_without_room_is_named() -> None:
    model, processor = tiny_model()
    long = "extraordinarily long-winded denomination"
    count = len(processor.phrase_ids(long))
    assert count > NAME_TOKENS
    with pytest.raises(ModelError, match=f"'{long}' has {count} tokens; expected at most 12"):
        starting_weights.write_names(model, processor, [*NAMES[:-1], long])


def test_the_same_checkpoints_give_the_same_files(
    starting: Path, gguf_file: Path, tower_file: Path, tmp_path: Path
) -> None:
    torch.manual_seed(99)
    before = torch.get_rng_state()
    starting_weights.starting_weights(gguf_file, tower_file, NAMES, ["cat", "cup of tea"], tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    for path in starting.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_configuration_written_is_read_back(tmp_path: Path, processor: LisaProcessor) -> None:
    starting_weights.write_config(processor.config, tmp_path)
    text = (tmp_path / "config.json").read_text()
    fields = json.loads(text)
    assert (fields["model_type"], fields["trained_on"]) == ("lisa", ["noise"])
    assert text.endswith("}\n")
    assert list(fields) == sorted(fields)
