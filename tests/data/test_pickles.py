"""Pickles of plain values are read; a pickle that wants to run something is refused."""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lisa.data.pickles import read_pickle
from lisa.errors import DataError

REFS = [{"ref_id": 1, "sentences": [{"sent": "the café"}], "box": (1, 2.5, None, True)}]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_are_read(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "refs(unc).p"
    path.write_bytes(pickle.dumps(REFS, protocol))
    assert read_pickle(path) == REFS


def test_text_of_python_2_is_read(tmp_path: Path) -> None:
    path = tmp_path / "refs(unc).p"
    path.write_bytes(b"(lp0\nS'a caf\\xc3\\xa9'\np1\na.")
    assert read_pickle(path) == ["a café"]


class Command:
    """What a malicious pickle holds: a call that loading makes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_malicious_pickle_runs_nothing(tmp_path: Path) -> None:
    path, trace = tmp_path / "refs(unc).p", tmp_path / "trace"
    path.write_bytes(pickle.dumps([Command(trace)]))
    pickle.loads(path.read_bytes())
    assert trace.exists(), "the pickle would do its harm"
    trace.unlink()
    with pytest.raises(DataError, match=r"refs\(unc\)\.p': it asks for .*; expected plain") as said:
        read_pickle(path)
    assert not trace.exists()
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("value", [OrderedDict(a=1), np.int64(3), {1, 2}, eval], ids=repr)
def test_only_containers_and_scalars_are_admitted(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "refs.p"
    path.write_bytes(pickle.dumps(value, 2))
    with pytest.raises(DataError, match=r"it asks for "):
        read_pickle(path)


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps(REFS)[:-9], b"P0\n."])
def test_what_is_no_pickle_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "refs.p"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read '.*refs\.p': it ") as said:
        read_pickle(path)
    assert "\n" not in str(said.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read '.*refs\.p': No such file"):
        read_pickle(tmp_path / "refs.p")
