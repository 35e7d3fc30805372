"""The page of results: its tables say what was measured, and no photograph gets beside it."""

import copy
import shutil
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from helpers.training_data import EVERYDAY, write_stamps_of, write_state, write_training_data
from lisa.errors import LisaError
from lisa.nano.evaluation import page
from lisa.nano.evaluation.page import Claim, Measured, claim_row, claims, table, write_page
from lisa.nano.training import symbolic


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_training_data(tmp_path_factory.mktemp("data"))
    write_stamps_of(root / "photos" / "stamps", EVERYDAY)
    return root


@pytest.fixture(scope="module")
def written(data: Path, tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a page about a run with a log and about the same model without one."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(tiny_directory, folder / "run" / "model")
    log = [{"step": 20, "loss": 3.0}, {"step": 40, "loss": 1.5}]
    write_state(folder / "run" / "eyes" / "checkpoint-40", log)
    models = {"release": str(folder / "run" / "model"), "zero-shot": str(tiny_directory)}
    (folder / "docs").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(symbolic, "MEASURED", 1)
        out = folder / "docs" / "nano.md"
        assert write_page(models, data, out, folder / "cache", "cpu", limit=2) == out
    return folder


def test_the_page_has_a_section_for_each_question(written: Path) -> None:
    text = (written / "docs" / "nano.md").read_text(encoding="utf-8")
    heads = [line for line in text.splitlines() if line.startswith("## ")]
    assert len(heads) == len(set(heads)) == 8
    assert "A trial: at most 2 questions" in text
    assert "--model release=run/model" in text and str(written) not in text
    for name in ("release", "zero-shot"):
        assert f"| {name} | teacher-forced |" in text
    assert "**release**: noise." in text


def test_every_table_is_rectangular(written: Path) -> None:
    rows: list[int] = []
    for line in (written / "docs" / "nano.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            rows.append(line.count(" | "))
        elif rows:
            assert len(set(rows)) == 1
            rows = []


def test_plots_lie_beside_the_page_and_photographs_do_not(written: Path) -> None:
    files = {path.name for path in (written / "docs" / "nano").iterdir()}
    assert files == {"reliability.svg", "curves-release.svg"}
    text = (written / "docs" / "nano.md").read_text(encoding="utf-8")
    assert all(f"(nano/{name})" in text for name in files)
    sheets = list((written / "cache").glob("sheet-*.png"))
    assert len(sheets) == 2
    with PIL.Image.open(sheets[0]) as sheet:
        assert sheet.size[0] > 0


def test_no_model_is_an_error(data: Path, tmp_path: Path) -> None:
    with pytest.raises(LisaError, match="no model to report on; expected at least one NAME=DIR"):
        write_page({}, data, tmp_path / "a.md", tmp_path)


# Claims


def scores(giou: float, ious: list[float], **changes: Any) -> dict[str, Any]:
    """As an evaluation has them, of samples that all have a target."""
    samples = [{"iou": iou, "present": True} for iou in ious]
    values = {"gIoU": giou, "gIoU_present": giou, "gIoU_present_ci": [giou, giou], "cIoU": giou}
    values |= {"N_acc": 0.8, "emission_rate": 1.0, "naming_rate": 0.5, "ECE": 0.05, "n": len(ious)}
    extra = {"samples": samples, "reliability": [], "failures": [], "by": {}}
    return {**values, **extra, **changes}


def measured(name: str, ious: list[float], **changes: Any) -> Measured:
    one = scores(sum(ious) / len(ious), ious)
    choice = {"n": 9, "right": 0.75, "right_ci": [0.7, 0.8], "named": 0.7}
    figures: dict[str, Any] = dict.fromkeys(["generate", "by-name", "teacher-forced"], one)
    controls = ["shuffled", "largest thing", "centre ellipse", "no language model", "no names"]
    figures |= {control: scores(0.1, [0.1] * len(ious)) for control in controls}
    figures |= {"composite-phrasings": choice, "composite-things": choice}
    figures["held-out knowledge"] = {"phrasings": 0.7, "things": 0.6}
    figures["referring"] = one | {"ceiling": 0.9, "ceiling_by": {}}
    return Measured(name, copy.deepcopy(figures) | changes, ["coco_union"], {})


def held(models: list[Measured]) -> dict[str, str]:
    return {claim.text: claim.holds for claim in claims(models)}


def test_claims_are_held_against_what_was_measured() -> None:
    found = held([measured("release", [0.5, 0.4, 0.6])])
    assert found["release, generate"] == "yes"
    assert found["release minus its shuffled"] == "yes"
    assert found["release minus its no language model"] == "yes"
    assert found["calibration error"] == "yes"
    assert found["zero-shot"] == found["ft239 minus zero-shot"] == "not measured"
    poor = held([measured("release", [0.2, 0.1, 0.12])])
    assert poor["release, generate"] == poor["release minus its shuffled"] == "no"


def test_a_gain_must_be_clear_of_zero() -> None:
    zero = measured("zero-shot", [0.2, 0.3, 0.4, 0.2])
    clear = measured("ft239", [0.25, 0.36, 0.44, 0.25])
    unclear = measured("ft239", [0.9, 0.1, 0.3, 0.1])
    assert held([zero, clear])["ft239 minus zero-shot"] == "yes"
    assert held([zero, unclear])["ft239 minus zero-shot"] == "no"


def test_an_error_is_shown_as_it_is_and_must_be_small() -> None:
    large = measured("release", [0.5] * 3, generate=scores(0.5, [0.5] * 3, ECE=0.2))
    (claim,) = (one for one in claims([large]) if one.text == "calibration error")
    assert claim_row(claim) == ["calibration error", "under 0.08", "0.200", "no"]
    assert claim_row(Claim("x", "y", None, 0.1)) == ["x", "y", "-", "not measured"]


def test_all_three_weights_fit_on_the_page() -> None:
    models = [measured(name, [0.3, 0.5]) for name in ("release", "zero-shot", "ft239")]
    text = page.page(models, "nano", "--model release=nano", None)
    assert "ft239 minus zero-shot" in text
    assert "trial" not in text.replace("for a quick trial", "")
    assert "## Training" not in text


def test_a_model_that_was_measured_in_brief_has_the_rows_that_it_can_fill() -> None:
    full, brief = measured("release", [0.3, 0.5]), measured("zero-shot", [0.2, 0.4])
    asked = {"generate": brief.figures["generate"]}
    text = page.page([full, Measured("zero-shot", asked, ["coco_union"], {})], "nano", "", None)
    rows = [line for line in text.splitlines() if line.startswith("| zero-shot |")]
    assert [row.split(" | ")[1] for row in rows] == ["gIoU 0.22", "generate"]


def test_a_table_is_markdown() -> None:
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_a_run_is_called_without_what_stands_above_it() -> None:
    assert page.name_of_run("/somebody/home/runs/a/model") == "a/model"
    assert page.name_of_run("runs/a/model") == "runs/a/model"
    assert page.name_of_run("nano") == "nano"
