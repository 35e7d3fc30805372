"""Tables: every figure of every run, in its row and its column."""

import numpy as np

from lisa.evaluation.metrics import SegmentationMetrics, SegmentationScores
from lisa.evaluation.score_table import score_table, with_interval

FULL, EMPTY = np.ones((2, 5), bool), np.zeros((2, 5), bool)


def scores(*pairs: tuple[np.ndarray, np.ndarray], tags: str = "") -> SegmentationScores:
    metrics = SegmentationMetrics()
    for prediction, target in pairs:
        metrics.update(prediction, target, answered=True, tags=set(tags), named=True)
    return metrics.compute()


def rows(text: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}


def test_figures_stand_in_their_rows_and_columns() -> None:
    good, bad = scores((FULL, FULL), (EMPTY, EMPTY)), scores((EMPTY, FULL), (FULL, EMPTY))
    found = rows(score_table({"good": good, "bad": bad}))
    assert found["95%"] == ["intervals", "good", "bad"]
    assert found["n"] == ["2", "2"]
    for name in (
        "gIoU",
        "gIoU_present",
        "cIoU",
        "boundary_IoU",
        "P@0.5",
        "P@0.9",
        "N_acc",
        "T_acc",
    ):
        assert (found[name][0], found[name][4]) == ("1.0000", "0.0000"), name
    assert found["emission_rate"][0] == found["naming_rate"][0] == "1.0000"
    assert found["failures"] == ["0", "0"]


def test_groups_have_their_rows() -> None:
    text = score_table({"one": scores((FULL, FULL), (EMPTY, FULL), tags="ab")})
    assert rows(text)["b"][:2] == ["(2)", "0.5000"]
    assert "by group" not in score_table({"one": scores((FULL, FULL))})


def test_what_cannot_be_had_is_a_dash() -> None:
    found = rows(score_table({"absent": scores((EMPTY, EMPTY))}))
    assert found["gIoU_present"] == found["P@0.5"] == found["ECE"] == ["-"]
    assert with_interval(None, None) == "-"
    assert with_interval(0.5, (0.25, 0.75)) == "0.5000 (0.2500 to 0.7500)"
