"""The records of the official LISA: where they are, how they are read, how close is close."""

import json
import re
from typing import Any

import numpy as np

from helpers.paths import GOLDEN


def read_json(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


def read_arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / name) as arrays:
        return dict(arrays)


def tolerance(name: str, quantity: str = "") -> dict[str, float]:
    """``rtol`` and ``atol`` that the manifest states for a file, after the word ``quantity``."""
    (entry,) = [entry for entry in read_json("MANIFEST.json")["files"] if entry["path"] == name]
    return stated(entry["tolerance"], quantity)


def stated(text: str, quantity: str) -> dict[str, float]:
    """The figures that stand after the word ``quantity``."""
    found = re.search(re.escape(quantity) + r"[^,;:]*?(atol|rtol)[^,;:]*", text)
    assert found, f"no tolerance of '{quantity}': {text}"
    figures = dict(re.findall(r"(atol|rtol) (\d[\d.e-]*)", found[0]))
    return {kind: float(figures.get(kind, 0)) for kind in ("rtol", "atol")}
