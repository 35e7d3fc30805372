"""Weights on disk: every spelling read as the formats say, nothing lost, damage named."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from lisa.checkpoints.checkpoint import check_complete, read_file, write_file
from lisa.checkpoints.packed import assemble, read_weights, unpack_q4_1, unpack_q8_0
from lisa.errors import LisaError, ModelError, OutputError

halves = st.floats(-100, 100, width=16)


def one_line(raises: Callable[[], object], kind: type[LisaError] = ModelError) -> str:
    """The message of the error that must come, which must be one line."""
    with pytest.raises(kind) as caught:
        raises()
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


# ------------------------------------------------------------------ block formats


def q4_1_by_the_book(block: bytes) -> list[float]:
    """ggml-common.h, block_q4_1: half d, half m, 16 bytes; low nibbles first, then high ones."""
    scale, minimum = struct.unpack("<ee", block[:4])
    codes = [byte & 15 for byte in block[4:]] + [byte >> 4 for byte in block[4:]]
    return [scale * code + minimum for code in codes]


def q8_0_by_the_book(block: bytes) -> list[float]:
    """ggml-common.h, block_q8_0: half d, 32 signed bytes."""
    (scale,) = struct.unpack("<e", block[:2])
    return [scale * code for code in struct.unpack("<32b", block[2:])]


def as_blocks(rows: list[list[bytes]]) -> Tensor:
    return torch.tensor([[list(block) for block in row] for row in rows], dtype=torch.uint8)


def grids(block: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[list[bytes]]]:
    """Rows of one to three blocks each."""
    return st.integers(1, 3).flatmap(
        lambda n: st.lists(st.lists(block, min_size=n, max_size=n), min_size=1, max_size=3)
    )


@settings(max_examples=50)
@given(
    grids(
        st.builds(
            lambda d, m, q: struct.pack("<ee", d, m) + q,
            halves,
            halves,
            st.binary(min_size=16, max_size=16),
        )
    )
)
def test_q4_1_is_unpacked_as_the_specification_says(rows: list[list[bytes]]) -> None:
    expected = [[x for block in row for x in q4_1_by_the_book(block)] for row in rows]
    np.testing.assert_allclose(unpack_q4_1(as_blocks(rows)).numpy(), expected, rtol=1e-5, atol=1e-4)


@settings(max_examples=50)
@given(
    grids(
        st.builds(
            lambda d, q: struct.pack("<e", d) + q, halves, st.binary(min_size=32, max_size=32)
        )
    )
)
def test_q8_0_is_unpacked_as_the_specification_says(rows: list[list[bytes]]) -> None:
    expected = [[x for block in row for x in q8_0_by_the_book(block)] for row in rows]
    unpacked = unpack_q8_0(as_blocks(rows))
    assert unpacked.dtype == torch.float32
    np.testing.assert_allclose(unpacked.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(("name", "unpack"), [("Q4_1", unpack_q4_1), ("Q8_0", unpack_q8_0)])
def test_blocks_are_unpacked_as_the_gguf_package_does(
    name: str, unpack: Callable[[Tensor], Tensor]
) -> None:
    gguf = pytest.importorskip("gguf", reason="extra starting-weights is not installed")
    kind = gguf.GGMLQuantizationType[name]
    numbers = np.random.default_rng(0).normal(size=(5, 96)).astype(np.float32)
    packed = gguf.quants.quantize(numbers, kind)  # uint8 [rows, bytes]
    expected = gguf.quants.dequantize(packed, kind)
    unpacked = unpack(torch.from_numpy(packed).unflatten(1, (3, -1)))
    np.testing.assert_allclose(unpacked.numpy(), expected, rtol=1e-6, atol=1e-7)
    assert np.abs(unpacked.numpy() - numbers).max() < 0.3  # it is the same matrix


# ------------------------------------------------------------------ assembling


def test_every_spelling_becomes_a_float32_tensor_of_its_name() -> None:
    q4, q8 = torch.zeros(2, 3, 20, dtype=torch.uint8), torch.zeros(2, 1, 34, dtype=torch.uint8)
    state = assemble(
        {
            "a.weight.q4_1": q4,
            "b.weight.q8_0": q8,
            "c.bias": torch.ones(3, dtype=torch.float16),
            "count": torch.tensor(7),
        }
    )
    assert {k: (v.dtype, list(v.shape)) for k, v in state.items()} == {
        "a.weight": (torch.float32, [2, 96]),
        "b.weight": (torch.float32, [2, 32]),
        "c.bias": (torch.float32, [3]),
        "count": (torch.int64, []),
    }


@pytest.mark.parametrize("first", ["factors", "matrix"])
def test_a_low_rank_difference_is_added_in_whatever_order_it_is_stored(first: str) -> None:
    torch.manual_seed(0)
    matrix, down, up = torch.randn(4, 6), torch.randn(2, 6), torch.randn(4, 2)
    factors = {"w.lora_A": down.half(), "w.lora_B": up.half()}
    stored = factors | {"w": matrix} if first == "factors" else {"w": matrix} | factors
    expected = matrix.numpy() + up.half().float().numpy() @ down.half().float().numpy()
    np.testing.assert_allclose(assemble(stored)["w"].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_low_rank_difference_is_added_to_packed_blocks_too() -> None:
    blocks = torch.zeros(2, 1, 34, dtype=torch.uint8)
    down, up = torch.ones(1, 32), torch.tensor([[1.0], [2.0]])
    stored = {"w.lora_B": up, "w.lora_A": down, "w.q8_0": blocks}
    assert assemble(stored)["w"].tolist() == [[1.0] * 32, [2.0] * 32]


BLOCKS = torch.zeros(2, 1, 34, dtype=torch.uint8)
UNFIT: list[tuple[str, dict[str, Tensor], str, str]] = [
    ("twice", {"w": torch.zeros(2, 32), "w.q8_0": BLOCKS}, "'w'", "expected one"),
    ("wrong bytes", {"w.q4_1": BLOCKS}, "'w.q4_1' holds uint8 [2, 1, 34]", "blocks, 20]"),
    ("no blocks", {"w.q8_0": BLOCKS[0]}, "'w.q8_0' holds uint8 [1, 34]", "blocks, 34]"),
    ("floats", {"w.q8_0": BLOCKS.float()}, "'w.q8_0' holds float32", "expected uint8"),
    ("lone factor", {"w": torch.zeros(2, 3), "w.lora_A": torch.zeros(1, 3)}, "'w.lora_A'", "pair"),
    ("other factor", {"w": torch.zeros(2, 3), "w.lora_B": torch.zeros(2, 1)}, "'w.lora_B'", "pair"),
    (
        "no base",
        {"w.lora_A": torch.zeros(1, 3), "w.lora_B": torch.zeros(2, 1)},
        "'w.lora_A'",
        "base",
    ),
    (
        "ranks differ",
        {"w": torch.zeros(2, 3), "w.lora_A": torch.zeros(1, 3), "w.lora_B": torch.zeros(2, 2)},
        "[2, 2] and [1, 3] do not fit 'w'",
        "expected a product of [2, 3]",
    ),
    (
        "factor of nothing",
        {"w": torch.zeros(2, 3), "w.lora_A": torch.tensor(1.0), "w.lora_B": torch.zeros(2, 1)},
        "[2, 1] and [] do not fit 'w'",
        "expected a product of [2, 3]",
    ),
]


@pytest.mark.parametrize(
    ("stored", "named", "expected"), [u[1:] for u in UNFIT], ids=[u[0] for u in UNFIT]
)
def test_stored_tensors_that_do_not_fit_are_named(
    stored: dict[str, Tensor], named: str, expected: str, tmp_path: Path
) -> None:
    message = one_line(lambda: assemble(stored))
    assert named in message
    assert expected in message
    save_file(stored, tmp_path / "x.safetensors")
    assert str(tmp_path) in one_line(lambda: read_weights(tmp_path))


# ------------------------------------------------------------------ files


def test_what_is_written_is_read_back_to_the_bit(tmp_path: Path) -> None:
    tensors = {
        "half": torch.randn(3, 4).half(),
        "bytes": torch.arange(34, dtype=torch.uint8).view(1, 1, 34),
        "count": torch.tensor(3),
        "transposed": torch.randn(2, 5).T,
        "empty": torch.zeros(0, 4),
    }
    write_file(tensors, tmp_path / "new" / "folder" / "x.safetensors")
    back = read_file(tmp_path / "new" / "folder" / "x.safetensors")
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[key], tensors[key]) for key in tensors)
    assert all(back[key].dtype == tensors[key].dtype for key in tensors)


def test_the_same_tensors_give_the_same_bytes_that_others_may_read(tmp_path: Path) -> None:
    tensors = {"b": torch.ones(3), "a": torch.zeros(2, 2)}
    write_file(tensors, tmp_path / "one.safetensors")
    write_file(dict(reversed(tensors.items())), tmp_path / "two.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (
        tmp_path / "two.safetensors"
    ).read_bytes()
    (tmp_path / "plain").touch()
    assert (tmp_path / "one.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_directory_is_all_its_files_together(tmp_path: Path) -> None:
    write_file({"w": torch.zeros(2, 32), "v": torch.ones(1)}, tmp_path / "base.safetensors")
    write_file(
        {"w.lora_A": torch.ones(1, 32), "w.lora_B": torch.ones(2, 1)},
        tmp_path / "adapter.safetensors",
    )
    state = read_weights(tmp_path)
    assert state.keys() == {"w", "v"}
    assert state["w"].unique().tolist() == [1.0]


def test_a_tensor_in_two_files_is_an_error(tmp_path: Path) -> None:
    write_file({"w": torch.zeros(2)}, tmp_path / "a.safetensors")
    write_file({"w": torch.ones(2)}, tmp_path / "b.safetensors")
    message = one_line(lambda: read_weights(tmp_path))
    assert "'w'" in message
    assert "b.safetensors" in message


def test_a_directory_without_weights_is_named(tmp_path: Path) -> None:
    message = one_line(lambda: read_weights(tmp_path))
    assert str(tmp_path) in message
    assert "*.safetensors" in message


@settings(max_examples=30)
@given(keep=st.floats(0, 0.999))
def test_a_truncated_file_is_named_wherever_it_ends(
    tmp_path_factory: pytest.TempPathFactory, keep: float
) -> None:
    path = tmp_path_factory.mktemp("cut") / "x.safetensors"
    write_file({"w": torch.zeros(64, 3)}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    message = one_line(lambda: read_file(path))
    assert str(path) in message
    assert "expected a complete safetensors file" in message


@pytest.mark.parametrize("kind", ["missing", "folder", "text"])
def test_what_is_no_weight_file_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.safetensors"
    if kind == "folder":
        path.mkdir()
    if kind == "text":
        path.write_text("not weights\n" * 40)
    message = one_line(lambda: read_file(path))
    assert str(path) in message
    assert "expected" in message


def test_a_failed_write_names_the_path_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file" / "x.safetensors", tmp_path / "file" / "sub" / "x.safetensors"):
        message = one_line(lambda path=path: write_file({"w": torch.ones(1)}, path), OutputError)
        assert str(path) in message
        assert "expected" in message
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "in the way"


# ------------------------------------------------------------------ completeness

EXPECTED = {"a": torch.zeros(2, 3), "b": torch.zeros(4), "n": torch.tensor(0)}
MISFITS: list[tuple[str, dict[str, Tensor], str]] = [
    ("missing", {"a": EXPECTED["a"], "n": EXPECTED["n"]}, "'b' is missing; expected shape [4]"),
    ("left over", EXPECTED | {"c": torch.zeros(1)}, "'c' is unexpected; expected no such key"),
    (
        "mis-shaped",
        EXPECTED | {"a": torch.zeros(3, 2)},
        "'a' has shape [3, 2] of float32; expected shape [2, 3] of float32",
    ),
    (
        "mis-typed",
        EXPECTED | {"b": torch.zeros(4, dtype=torch.int64)},
        "'b' has shape [4] of int64; expected shape [4] of float32",
    ),
]


def test_complete_weights_pass() -> None:
    check_complete({k: v + 1 for k, v in EXPECTED.items()}, EXPECTED, Path("x"))


@pytest.mark.parametrize(("state", "said"), [m[1:] for m in MISFITS], ids=[m[0] for m in MISFITS])
def test_incomplete_weights_are_named(state: dict[str, Tensor], said: str) -> None:
    message = one_line(lambda: check_complete(state, EXPECTED, Path("some/where")))
    assert said in message
    assert "'some/where'" in message
    assert "more)" not in message


def test_further_problems_are_counted() -> None:
    assert "(and 2 more)" in one_line(lambda: check_complete({}, EXPECTED, Path("x")))
