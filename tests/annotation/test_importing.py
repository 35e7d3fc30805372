"""Importing: every format becomes one folder; clean splits; all or nothing."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from helpers.own_files import (
    MAKERS,
    boxes,
    make_class_folders,
    make_jsonl,
    make_labelme,
    make_yolo,
    mask,
    picture,
    shape,
    write_json,
)
from lisa.annotation.formats.source import Source
from lisa.annotation.importing import Imported, import_data, shares
from lisa.data.own import OwnData
from lisa.errors import DataError, OutputError


def bring(source: Path, out: Path, **options: object) -> Imported:
    return import_data(Source(source), out, **options)  # type: ignore[arg-type]


def found(data: OwnData) -> dict[str, dict[str, np.ndarray]]:
    """Masks by picture and name."""
    masks: dict[str, dict[str, np.ndarray]] = {}
    for example in data:
        masks.setdefault(example.name.split(":")[0], {})[example.phrase] = example.mask
    return masks


@pytest.mark.parametrize("form", [name for name in MAKERS if name != "jsonl"])
def test_every_format_gives_the_same_masks(form: str, tmp_path: Path) -> None:
    imported = bring(MAKERS[form](tmp_path / "source"), tmp_path / "out")
    assert (imported.format, imported.recognised) == (form, True)
    assert imported.names == ["blue fip", "zarp"]
    assert imported.pictures == {"train": 8, "val": 2}
    masks = found(OwnData(tmp_path / "out"))
    assert len(masks) == 10
    for number in range(10):
        for box in boxes(number):
            shown = masks[f"p{number:02}.png"][box[0].replace("_", " ")]
            np.testing.assert_array_equal(shown, mask(box))


def test_a_folder_of_masks_for_each_class(tmp_path: Path) -> None:
    bring(make_class_folders(tmp_path / "source"), tmp_path / "out")
    np.testing.assert_array_equal(
        found(OwnData(tmp_path / "out"))["p01.png"]["blue fip"], mask(boxes(1)[1])
    )


def test_questions_of_jsonl_stay_as_they_are_written(tmp_path: Path) -> None:
    imported = bring(make_jsonl(tmp_path / "source"), tmp_path / "out")
    assert imported.questions == 11
    data = OwnData(tmp_path / "out")
    asked = {example.question for example in data}
    assert "where is the fip?" in asked
    glowing = [example for example in data if example.answer == "The zarp."]
    assert len(glowing) == 10
    for example in glowing:
        number = int(example.name[1:3])
        np.testing.assert_array_equal(example.mask, mask(boxes(number)[0]))
        assert example.tags == {"written", "attribute"}


def test_nearly_equal_pictures_lie_on_one_side(tmp_path: Path) -> None:
    source = make_labelme(tmp_path / "source", 6)
    for number in range(6):  # a darker copy of each
        content = json.loads((source / f"p{number:02}.json").read_text())
        content["imagePath"] = f"copy{number}.png"
        write_json(source / f"copy{number}.json", content)
        darker = picture(number).point(lambda value: value * 0.8)
        darker.save(source / f"copy{number}.png")
    imported = bring(source, tmp_path / "out", share=0.5)
    assert imported.alike == 6
    train = {path.name for path in OwnData(tmp_path / "out", "train").photos}
    assert all((f"p{n:02}.png" in train) == (f"copy{n}.png" in train) for n in range(6))


def test_a_near_duplicate_moves_to_the_training_side_of_the_source(tmp_path: Path) -> None:
    source = make_yolo(tmp_path / "source")
    picture(0).save(source / "images" / "val" / "again.png")
    (source / "labels" / "val" / "again.txt").write_text("")
    imported = bring(source, tmp_path / "out")
    assert imported.pictures == {"train": 9, "val": 2}


def test_the_same_seed_gives_the_same_split(tmp_path: Path) -> None:
    source = make_labelme(tmp_path / "source")
    sides = []
    for seed, out in ((1, "a"), (1, "b"), (2, "c")):
        bring(source, tmp_path / out, seed=seed)
        sides.append({path.name for path in OwnData(tmp_path / out, "val").photos})
    assert sides[0] == sides[1] != sides[2]


def test_shares_leave_no_side_empty_unless_told_to() -> None:
    assert shares([1, 1], 0.99) == ["train", "val"]
    assert shares([1, 1], 0.01) == ["train", "val"]
    assert shares([1, 1, 1], 1.0) == ["train"] * 3
    assert shares([1, 1, 1], 0.0) == ["val"] * 3
    assert shares([1], 0.5) == ["train"] or shares([1], 0.5) == ["val"]


def test_pictures_of_one_name_are_all_kept(tmp_path: Path) -> None:
    for number, folder in enumerate(["one", "two"]):
        make_labelme(tmp_path / "source" / folder, 1)
        picture(number).save(tmp_path / "source" / folder / "p00.png")
    bring(tmp_path / "source", tmp_path / "out")
    names = {path.name for path in (tmp_path / "out" / "images").iterdir()}
    assert names == {"p00.png", "p00-2.png"}


def test_a_picture_inside_the_labelme_file_is_written_out(tmp_path: Path) -> None:
    import base64

    source = make_labelme(tmp_path / "source", 2)
    content = json.loads((source / "p00.json").read_text())
    content["imageData"] = base64.b64encode((source / "p00.png").read_bytes()).decode()
    write_json(source / "p00.json", content)
    (source / "p00.png").unlink()
    bring(source, tmp_path / "out")
    assert PIL.Image.open(tmp_path / "out" / "images" / "p00.png").size == picture(0).size


def test_a_broken_record_leaves_nothing_behind(tmp_path: Path) -> None:
    source = make_labelme(tmp_path / "source")
    content = json.loads((source / "p03.json").read_text())
    content["shapes"].append({**shape(boxes(3)[0]), "points": [[1, 1], [2, 2]]})
    write_json(source / "p03.json", content)
    with pytest.raises(DataError, match=r"p03\.json': shape 2: .*"):
        bring(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_broken_record_is_skipped_and_counted(tmp_path: Path) -> None:
    source = make_labelme(tmp_path / "source")
    (source / "p04.json").write_text('{"shapes": [')
    (source / "p05.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (source / "p06.png").unlink()
    imported = bring(source, tmp_path / "out", skip_bad=True)
    assert sum(imported.pictures.values()) == 7
    assert len(imported.skipped) == 3
    for name, message in zip(["p04", "p05", "p06"], imported.skipped, strict=True):
        assert name in message and "\n" not in message


def test_a_picture_with_a_skipped_thing_is_not_said_to_lack_its_name(tmp_path: Path) -> None:
    source = make_labelme(tmp_path / "source", 4)
    content = json.loads((source / "p01.json").read_text())
    content["shapes"][1]["points"] = [[1, 1]]
    write_json(source / "p01.json", content)
    bring(source, tmp_path / "out", skip_bad=True)
    asked = [example for example in OwnData(tmp_path / "out") if example.name.startswith("p01")]
    assert [example.phrase for example in asked] == ["zarp"]


def test_an_out_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    source = make_labelme(tmp_path / "source", 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match="is there already"):
        bring(source, tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"


def test_a_source_without_usable_pictures_is_refused(tmp_path: Path) -> None:
    source = make_labelme(tmp_path / "source", 1)
    (source / "p00.png").unlink()
    with pytest.raises(DataError, match=r"no picture of .* can be used"):
        bring(source, tmp_path / "out", skip_bad=True)
    with pytest.raises(DataError, match="there is nothing at"):
        bring(tmp_path / "none", tmp_path / "out")
    with pytest.raises(DataError, match="expected 0 to 1"):
        bring(source, tmp_path / "out", share=1.5)
