"""Files that are read tensor by tensor, files that cannot be, and directories all or nothing."""

from __future__ import annotations

import errno
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lisa.checkpoints.checkpoint import Checkpoint, Planned, write_shards
from lisa.errors import ModelError, OutputError
from lisa.files import new_directory


def tensors(count: int = 4) -> dict[str, Tensor]:
    kinds = [torch.float32, torch.bfloat16, torch.float16, torch.int64]
    return {f"part.{n}": torch.arange(6).view(2, 3).to(kinds[n % 4]) for n in range(count)}


def planned(values: dict[str, Tensor]) -> list[Planned]:
    return [
        Planned(key, tuple(value.shape), value.dtype, lambda value=value: value)
        for key, value in values.items()
    ]


def write_pickles(directory: Path, values: dict[str, Tensor]) -> None:
    """Two shards with an index, as transformers 4 wrote them."""
    directory.mkdir(exist_ok=True)
    keys, table = list(values), {}
    for number, part in enumerate((keys[::2], keys[1::2]), 1):
        name = f"pytorch_model-{number:05d}-of-00002.bin"
        torch.save({key: values[key] for key in part}, directory / name)
        table |= dict.fromkeys(part, name)
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": table}))


def write_safetensors(directory: Path, values: dict[str, Tensor]) -> None:
    directory.mkdir(exist_ok=True)
    write_shards(planned(values), directory, limit=50)


@pytest.mark.parametrize("write", [write_pickles, write_safetensors])
def test_headers_and_tensors(tmp_path: Path, write: Any) -> None:
    values = tensors()
    write(tmp_path, values)
    checkpoint = Checkpoint(tmp_path)
    assert len(checkpoint.files) > 1
    assert checkpoint.tensors.keys() == values.keys()
    for key, value in values.items():
        stored = checkpoint.tensors[key]
        assert (stored.shape, stored.dtype) == (tuple(value.shape), value.dtype)
        assert stored.nbytes == value.numel() * value.element_size()
        assert torch.equal(checkpoint.read(key), value)


def test_a_file_from_before_archives(tmp_path: Path) -> None:
    file = tmp_path / "old.pth"
    torch.save(tensors(), file, _use_new_zipfile_serialization=False)
    checkpoint = Checkpoint(file)
    assert checkpoint.tensors["part.1"].shape == (2, 3)
    assert torch.equal(checkpoint.read("part.3"), tensors()["part.3"])


def test_what_is_written_is_what_others_read(tmp_path: Path) -> None:
    values = tensors() | {"scalar": torch.tensor(3.0), "none": torch.zeros(0, 4)}
    write_shards(planned(values), tmp_path)
    read = load_file(tmp_path / "model.safetensors")
    assert read.keys() == values.keys()
    assert all(torch.equal(read[key], value) for key, value in values.items())


def test_no_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no weights in .*; expected safetensors, .bin or .pth"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("write", [write_pickles, write_safetensors])
def test_a_shard_cut_short_is_named(tmp_path: Path, write: Any) -> None:
    write(tmp_path, tensors())
    shard = sorted(tmp_path.glob("*-00002-of-*"))[0]
    shard.write_bytes(shard.read_bytes()[:-7])
    with pytest.raises(ModelError, match=f"cannot read '.*{shard.name}'.*expected a complete"):
        Checkpoint(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_pickles(tmp_path, tensors())
    (tmp_path / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(ModelError, match=r"00002-of-00002.bin' is missing; .*index.json' names it"):
        Checkpoint(tmp_path)


def test_an_index_that_says_something_else(tmp_path: Path) -> None:
    write_pickles(tmp_path, tensors())
    index = tmp_path / "pytorch_model.bin.index.json"
    table = json.loads(index.read_text())["weight_map"]
    table["ghost"] = table["part.0"]
    index.write_text(json.dumps({"weight_map": table}))
    with pytest.raises(ModelError, match=r"puts 'ghost' into .*; expected no such tensor"):
        Checkpoint(tmp_path)
    index.write_text("{}")
    with pytest.raises(ModelError, match="has no weight_map"):
        Checkpoint(tmp_path)


def test_a_tensor_in_two_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_file({"x": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(ModelError, match=r"b.safetensors' holds 'x' a second time"):
        Checkpoint(tmp_path)


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_a_pickle_that_would_run_something_does_not(tmp_path: Path) -> None:
    mark, file = tmp_path / "it-ran", tmp_path / "pytorch_model.bin"
    torch.save({"x": Trap(mark)}, file)
    with pytest.raises(ModelError, match="is no plain tensor file, and was not run"):
        Checkpoint(file)
    file.write_bytes(pickle.dumps({"x": Trap(mark)}))
    with pytest.raises(ModelError, match="is no plain tensor file, and was not run"):
        Checkpoint(file)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([1, 2], "holds a list; expected named tensors"),
        ({"epoch": 3}, "holds a int under 'epoch'; expected a tensor"),
        ({"module": {"x": 1}}, "holds a dict under 'module'; expected a tensor"),
    ],
)
def test_a_pickle_of_other_things(tmp_path: Path, content: Any, problem: str) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ModelError, match=problem):
        Checkpoint(tmp_path / "x.pth")


def test_a_new_directory_is_complete_or_absent(tmp_path: Path) -> None:
    with new_directory(tmp_path / "whole") as directory:
        (directory / "x").write_text("x")
        assert not (tmp_path / "whole").exists()
    assert (tmp_path / "whole" / "x").is_file()
    with pytest.raises(KeyboardInterrupt), new_directory(tmp_path / "half") as directory:
        (directory / "x").write_text("x")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with (
        pytest.raises(
            OutputError, match=r"cannot write '.*new': No space left on device; expected"
        ),
        new_directory(tmp_path / "new") as directory,
    ):
        write_shards(planned(tensors()), directory)
        raise full
    assert not list(tmp_path.iterdir())


def test_an_existing_directory_is_left_alone(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="it exists; expected a new directory"),
        new_directory(tmp_path),
    ):
        pass
