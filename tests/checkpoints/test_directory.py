"""Loading: complete models come out ready, everything else is one line that names the thing."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoModelForImageTextToText

from helpers.lively_model import chat_tokenizer, lively_model, tiny_config
from helpers.parts import decoder_fields, tiny_processor, tokenizer, vlm_fields
from lisa.checkpoints.directory import (
    EMBEDDED,
    build,
    from_parts,
    model_directory,
    pick_device,
    read_config,
    save,
)
from lisa.errors import ModelError, OutputError
from lisa.model.config import as_config

LM_HEAD = "vlm.language.lm_head.weight"


@pytest.fixture
def directory(tiny_directory: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model to be damaged."""
    return Path(shutil.copytree(tiny_directory, tmp_path / "model"))


def change_config(directory: Path, **fields: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def change_weights(directory: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


# --------------------------------------------------------------------- what works


def test_a_model_is_ready_to_answer(tiny_directory: Path) -> None:
    model, processor = build(tiny_directory, "cpu")
    assert not model.training
    assert not any(module.training for module in model.modules())
    assert model.device.type == "cpu"
    assert processor.config is model.config
    tensors = [*model.state_dict().values(), *model.buffers()]
    assert not any(tensor.is_meta for tensor in tensors)
    assert {t.dtype for t in tensors} == {torch.float32, torch.int64}


def test_the_weights_are_those_on_disk(tiny_directory: Path) -> None:
    model, _ = build(tiny_directory, "cpu")
    stored = load_file(tiny_directory / "model.safetensors")
    state = model.state_dict()
    assert state.keys() - stored.keys() == {LM_HEAD}
    assert all(torch.equal(state[key], stored[key]) for key in stored)
    assert model.vlm.language.lm_head.weight is model.vlm.vocabulary


def test_what_is_derived_is_as_in_a_new_model(tiny_directory: Path) -> None:
    loaded, _ = build(tiny_directory, "cpu")
    new = lively_model(loaded.config)
    derived = dict(new.named_buffers()).keys() - new.state_dict().keys()
    assert derived  # the rotary frequencies
    for key in derived:
        assert torch.equal(loaded.get_buffer(key), new.get_buffer(key)), key


def test_what_the_weights_have_seen_is_kept(tiny_directory: Path) -> None:
    assert build(tiny_directory, "cpu")[0].config.trained_on == ["noise"]


def test_it_says_what_it_loaded(tiny_directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="lisa"):
        model, _ = build(tiny_directory, "cpu")
    count = len(model.state_dict()) - 1
    assert f"loaded {count} tensors" in caplog.text
    assert str(tiny_directory) in caplog.text
    assert "none missing, none left over" in caplog.text


def test_a_directory_saved_by_transformers_loads(tmp_path: Path, tiny_directory: Path) -> None:
    model, _ = build(tiny_directory, "cpu")
    model.save_pretrained(tmp_path)
    shutil.copy(tiny_directory / "tokenizer.json", tmp_path)
    again, _ = build(tmp_path, "cpu")
    state, state_again = model.state_dict(), again.state_dict()
    assert all(torch.equal(state[key], state_again[key]) for key in state)


def test_a_language_model_with_two_tables_keeps_both(tmp_path: Path, tiny_directory: Path) -> None:
    tokenizer = chat_tokenizer()
    language = tiny_config(tokenizer).language | {"tie_word_embeddings": False}
    model = lively_model(tiny_config(tokenizer, language=language))
    model.save_pretrained(tmp_path)
    shutil.copy(tiny_directory / "tokenizer.json", tmp_path)
    again, _ = build(tmp_path, "cpu")
    assert torch.equal(again.vlm.language.lm_head.weight, model.vlm.language.lm_head.weight)
    assert not torch.equal(again.vlm.language.lm_head.weight, again.vlm.vocabulary)


# ------------------------------------------------------------------------- devices


@pytest.mark.parametrize("device", [None, "auto"])
def test_the_best_device_is_picked(monkeypatch: pytest.MonkeyPatch, device: str | None) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device(device) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device(device) == torch.device("cuda")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", "", "cpu:x", "tpu"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    with pytest.raises(ModelError) as caught:
        pick_device(device)
    message = f"device '{device}' cannot be used; expected auto, cpu, cuda or cuda:N"
    assert str(caught.value) == message


# ------------------------------------------------------------------ what does not work


def remove(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).unlink()


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_bytes(text.encode("latin-1"))


def configure(**fields: Any) -> Callable[[Path], None]:
    return lambda directory: change_config(directory, **fields)


def reweigh(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    return lambda directory: change_weights(directory, change)


def truncate(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def into_file(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.write_text("a file")


NORM = "vlm.language.model.norm.weight"
LANGUAGE = {"vocab_size": 400, "hidden_size": 32, "num_attention_heads": 2}
NO_MODEL = "expected 'nano' or a LISA model directory"
DAMAGES: list[tuple[str, Callable[[Path], object], str, str]] = [
    ("missing", shutil.rmtree, "model' does not exist", NO_MODEL),
    ("a file", into_file, "model' is not a directory", NO_MODEL),
    ("no config", remove("config.json"), "model' holds no config.json", NO_MODEL),
    ("no JSON", write("config.json", "{not json"), "config.json': Expecting", "configuration of"),
    ("no text", write("config.json", "\xff\xfe{"), "config.json'", "configuration of"),
    ("a list", write("config.json", "[]"), "config.json' has model_type None", "expected 'lisa'"),
    ("another model", configure(model_type="llama"), "model_type 'llama'", "expected 'lisa'"),
    ("bad size", configure(image_size=33), "config.json': image_size is 33", "multiple of 32"),
    ("bad dtype", configure(dtype="float99"), "config.json'", "expected fields"),
    (
        "bad language",
        configure(language={"vocab_size": 400, "hidden_size": "wide"}),
        "config.json'",
        "expected fields",
    ),
    (
        "bad heads",
        configure(language={"vocab_size": 400, "hidden_size": 33, "num_attention_heads": 2}),
        "config.json'",
        "expected fields",
    ),
    (
        "other vocabulary",
        configure(language=LANGUAGE | {"vocab_size": 399}),
        "config.json': seg_token_id is 400",
        "expected 399",
    ),
    ("no tokenizer", remove("tokenizer.json"), "tokenizer.json': No such file", "a tokenizer file"),
    ("no tokenizer in it", write("tokenizer.json", "{}"), "tokenizer.json'", "a tokenizer file"),
    (
        "no [SEG]",
        lambda d: (d / "tokenizer.json").write_text(
            (d / "tokenizer.json").read_text().replace("[SEG]", "[GES]")
        ),
        "tokenizer.json': the tokenizer reads '[SEG]' as ids [",
        "expected the one id 400",
    ),
    ("no weights", remove("model.safetensors"), "no weights in '", "expected *.safetensors"),
    ("truncated", truncate, "model.safetensors': ", "expected a complete safetensors file"),
    ("no weights in it", write("model.safetensors", ""), "model.safetensors'", "complete"),
    (
        "one missing",
        reweigh(lambda tensors: tensors.pop(NORM)),
        f"'{NORM}' is missing",
        "expected shape [32] of float32",
    ),
    (
        "one left over",
        reweigh(lambda tensors: tensors.setdefault("vlm.extra", torch.zeros(1))),
        "'vlm.extra' is unexpected",
        "expected no such key",
    ),
    (
        "mis-shaped",
        reweigh(lambda tensors: tensors.update({NORM: torch.zeros(31)})),
        f"'{NORM}' has shape [31]",
        "expected shape [32]",
    ),
    (
        "mis-typed",
        reweigh(lambda tensors: tensors.update({NORM: torch.zeros(32, dtype=torch.int32)})),
        f"'{NORM}' has shape [32] of int32",
        "expected shape [32] of float32",
    ),
    (
        "orphan factor",
        reweigh(lambda tensors: tensors.setdefault(f"{NORM}.lora_A", torch.zeros(1, 32))),
        f"'{NORM}.lora_A' has no matrix to add to",
        "expected its base and pair",
    ),
    (
        "factors of another matrix",
        reweigh(
            lambda tensors: tensors.update(
                {
                    "head.layers.0.weight.lora_A": torch.zeros(2, 7),
                    "head.layers.0.weight.lora_B": torch.zeros(32, 2),
                }
            )
        ),
        "do not fit 'head.layers.0.weight'",
        "expected a product of [32, 32]",
    ),
    (
        "a stray table",
        reweigh(lambda tensors: tensors.setdefault(LM_HEAD, torch.zeros(400, 32))),
        f"'{LM_HEAD}' is unexpected",
        "expected no such key",
    ),
]


@pytest.mark.parametrize(
    ("damage", "named", "expected"),
    [case[1:] for case in DAMAGES],
    ids=[case[0] for case in DAMAGES],
)
def test_a_bad_model_directory_is_one_line_that_names_the_thing(
    directory: Path, damage: Callable[[Path], object], named: str, expected: str
) -> None:
    damage(directory)
    with pytest.raises(ModelError) as caught:
        build(directory, "cpu")
    message = str(caught.value)
    assert str(directory) in message
    assert named in message
    assert expected in message
    assert "\n" not in message


def test_an_unknown_device_is_said_before_anything_is_read(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="device 'cuda:99' cannot be used"):
        build(directory, "cuda:99")


def test_the_embedded_model_travels_with_the_package() -> None:
    directory = model_directory(EMBEDDED)
    assert directory.parts[-3:] == ("lisa", "assets", "nano")


def test_a_configuration_alone_can_be_read(tiny_directory: Path) -> None:
    assert read_config(tiny_directory).language["vocab_size"] == 400


# ------------------------------------------------------------------ full size


@pytest.fixture(scope="module")
def published_parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A vision-language model and a mask decoder as their authors publish them."""
    folder = tmp_path_factory.mktemp("parts")
    processor = tiny_processor("smolvlm", "sam")
    fields = vlm_fields("smolvlm")
    fields["text_config"]["vocab_size"] = len(tokenizer())  # no room for [SEG]
    torch.manual_seed(0)
    vlm = AutoModelForImageTextToText.from_config(as_config("vlm", fields))
    vlm.save_pretrained(folder / "vlm")
    tokenizer().save_pretrained(folder / "vlm")
    processor.image_processor.save_pretrained(folder / "vlm")
    decoder = AutoModel.from_config(as_config("mask_decoder", decoder_fields("sam")))
    decoder.save_pretrained(folder / "decoder")
    return folder / "vlm", folder / "decoder"


def test_a_model_is_made_of_pretrained_parts(
    published_parts: tuple[Path, Path], tmp_path: Path
) -> None:
    model, processor = from_parts(*published_parts, mask_threshold=0.4)
    assert model.config.seg_token_id == len(tokenizer())
    words = model.vlm.model.get_input_embeddings().weight
    assert len(words) == len(tokenizer()) + 1
    assert words is model.vlm.model.get_output_embeddings().weight
    stored = load_file(published_parts[1] / "model.safetensors")
    state = model.decoder.model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in stored.items())
    language = load_file(published_parts[0] / "model.safetensors")
    (table,) = [value for key, value in language.items() if key.endswith("embed_tokens.weight")]
    assert torch.equal(words[:-1], table)
    save(model, processor, tmp_path / "saved")
    again, _ = build(tmp_path / "saved", "cpu")
    assert again.config.mask_threshold == 0.4
    expected = model.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in again.state_dict().items())


def test_a_part_that_lacks_a_weight_is_refused(
    published_parts: tuple[Path, Path], tmp_path: Path
) -> None:
    decoder = shutil.copytree(published_parts[1], tmp_path / "decoder")
    change_weights(decoder, lambda tensors: tensors.pop("mask_decoder.iou_token.weight"))
    with pytest.raises(ModelError, match=r"has no weight 'mask_decoder\.iou_token\.weight'"):
        from_parts(published_parts[0], decoder)


def test_a_part_that_is_not_there_is_named(published_parts: tuple[Path, Path]) -> None:
    with pytest.raises(ModelError, match=r"cannot use '/no/such': .*; expected a model of"):
        from_parts("/no/such", published_parts[1])
    with pytest.raises(ModelError, match=r"mask_decoder is '/no/such'; expected a configuration"):
        from_parts(published_parts[0], "/no/such")


def test_nothing_is_written_over(published_parts: tuple[Path, Path], tmp_path: Path) -> None:
    model, processor = from_parts(*published_parts)
    with pytest.raises(OutputError, match="it exists"):
        save(model, processor, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", ["missing", "left over", "mis-shaped"])
def test_a_damaged_model_of_full_size_is_refused(
    published_parts: tuple[Path, Path], tmp_path: Path, change: str
) -> None:
    save(*from_parts(*published_parts), tmp_path / "saved")
    key = "head.layers.0.weight"

    def damage(tensors: dict[str, Tensor]) -> None:
        if change == "missing":
            del tensors[key]
        else:
            name = key if change == "mis-shaped" else f"{key}.more"
            tensors[name] = torch.zeros(1)

    change_weights(tmp_path / "saved", damage)
    with pytest.raises(ModelError, match=r"head\.layers\.0\.weight"):
        build(tmp_path / "saved", "cpu")
