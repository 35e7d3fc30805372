"""A tiny model with random weights: as a directory that `lisa.load` takes, and loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# what the embedded model learns from is not in an installed package, but in the checkout
TEXTS = Path(__file__).parents[1] / "src" / "lisa" / "nano" / "data" / "texts"
os.environ.setdefault("LISA_NANO_TEXTS", str(TEXTS))
if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:  # a core for each file of tests
    os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:  # the tests that need no model do not wait for torch
    from lisa.model.lisa import LisaModel
    from lisa.nano.model.processor import LisaProcessor
    from lisa.predict import Segmenter


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete model directory; tests that change it copy it first."""
    from helpers.lively_model import chat_tokenizer, lively_model, save_directory, tiny_config

    out = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = chat_tokenizer()
    save_directory(lively_model(tiny_config(tokenizer, trained_on=["noise"])), tokenizer, out)
    return out


@pytest.fixture(scope="session")
def tiny(tiny_directory: Path) -> tuple[LisaModel, LisaProcessor]:
    """The model in `tiny_directory`, loaded as users load it; tests leave it as it is."""
    from lisa.checkpoints.directory import build

    return build(tiny_directory, "cpu")


@pytest.fixture
def model(tiny: tuple[LisaModel, LisaProcessor]) -> LisaModel:
    return tiny[0]


@pytest.fixture
def processor(tiny: tuple[LisaModel, LisaProcessor]) -> LisaProcessor:
    return tiny[1]


@pytest.fixture
def segmenter(tiny: tuple[LisaModel, LisaProcessor]) -> Segmenter:
    """The same, behind the interface that people use, with nothing remembered."""
    from lisa.nano.model.segmenter import NanoAnswering
    from lisa.predict import Segmenter

    return Segmenter(NanoAnswering(*tiny), name="tiny")
