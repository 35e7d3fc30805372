"""Own data: what is asked about a picture, what is drawn for training, and broken folders."""

import json
from pathlib import Path

import numpy as np
import pytest

from helpers.own_files import HEIGHT, WIDTH, boxes, make_jsonl, make_labelme, mask
from lisa.annotation.formats.source import Source
from lisa.annotation.importing import import_data
from lisa.data.datasets import Drawable, open_dataset
from lisa.data.own import OwnData
from lisa.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Imported labelme files: eight for training, two for validation."""
    root = tmp_path_factory.mktemp("own")
    import_data(Source(make_labelme(root / "source")), root / "mine")
    return root / "mine"


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A copy of the same that a test may break."""
    import shutil

    return Path(shutil.copytree(folder, tmp_path / "mine"))


def break_line(path: Path, **changes: object) -> None:
    """Change fields of the second record of a split."""
    lines = path.read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | changes)
    path.write_text("\n".join(lines) + "\n")


def test_the_table_of_data_sets_opens_it(folder: Path) -> None:
    data = open_dataset("own", folder, "train")
    assert isinstance(data, Drawable)
    assert (data.name, data.split, len(data.photos)) == ("own:mine", "train", 8)


def test_the_same_index_gives_the_same_example(folder: Path) -> None:
    one, other = OwnData(folder), OwnData(folder)
    assert [example.question for example in one] == [example.question for example in other]
    last = one[len(one) - 1]
    assert (one[-1].question, one[-1].name) == (last.question, last.name)
    with pytest.raises(IndexError):
        one[len(one)]


def test_each_name_is_asked_for_once_and_an_absent_one(folder: Path) -> None:
    data = OwnData(folder)
    for number in range(10):
        asked = [example for example in data if example.name.startswith(f"p{number:02}")]
        present = {example.phrase for example in asked if example.mask.any()}
        absent = {example.phrase for example in asked if not example.mask.any()}
        assert present == {box[0].replace("_", " ") for box in boxes(number)}
        assert absent == {"zarp", "blue fip"} - present
        for example in asked:
            assert example.phrase in example.question
            assert example.tags == {"named" if example.phrase in present else "absent"}
            says_no = (example.answer or "").startswith("There is no")
            assert says_no == (example.phrase in absent)


def test_the_wording_of_questions_varies(folder: Path) -> None:
    data = OwnData(folder)
    wordings = {example.question.replace(example.phrase, "…") for example in data}
    assert len(wordings) > 3


def test_a_draw_is_decided_by_its_random_numbers(folder: Path) -> None:
    data = OwnData(folder, "train")
    drawn = [
        [example.question for example in data.draw(3, np.random.default_rng(seed))]
        for seed in (0, 0, 1, 2, 3)
    ]
    assert drawn[0] == drawn[1]
    assert len({tuple(questions) for questions in drawn}) > 1


def test_a_draw_shares_one_picture_and_asks_at_most_so_much(folder: Path) -> None:
    data = OwnData(folder, questions=2)
    random = np.random.default_rng(0)
    asked = [data.draw(index, random) for index in range(len(data.photos)) for _ in range(5)]
    assert {len(examples) for examples in asked} <= {1, 2}
    assert all(len({id(example.image) for example in examples}) == 1 for examples in asked)
    absent = [example for examples in asked for example in examples if not example.mask.any()]
    assert absent and all(example.phrase == "blue fip" for example in absent)


def test_written_questions_are_drawn_in_all_their_wordings(tmp_path: Path) -> None:
    import_data(Source(make_jsonl(tmp_path / "source", 3)), tmp_path / "mine", share=1.0)
    data, random = OwnData(tmp_path / "mine"), np.random.default_rng(0)
    place = [path.name for path in data.photos].index("p00.png")
    drawn = [example for _ in range(20) for example in data.draw(place, random)]
    assert {example.question for example in drawn} == {
        "what glows in 0?",
        "which one glows in 0?",
        "where is the fip?",
    }
    (glowing, *_) = (example for example in drawn if "glows" in example.question)
    np.testing.assert_array_equal(glowing.mask, mask(boxes(0)[0]))
    (missing, *_) = (example for example in drawn if "fip" in example.question)
    assert missing.masks is not None and missing.masks.shape == (0, HEIGHT, WIDTH)


def test_the_larger_of_two_things_can_be_asked_for(tmp_path: Path) -> None:
    source = make_labelme(tmp_path / "source", 1)
    content = json.loads((source / "p00.json").read_text())
    small = [[50, 30], [55, 30], [55, 35], [50, 35]]
    content["shapes"].append({"label": "zarp", "points": small, "group_id": None})
    (source / "p00.json").write_text(json.dumps(content))
    import_data(Source(source), tmp_path / "mine", share=1.0)
    data, random = OwnData(tmp_path / "mine"), np.random.default_rng(0)
    drawn = {example.phrase: example for _ in range(40) for example in data.draw(0, random)}
    assert {"zarp", "large zarp", "small zarp", "left zarp"} <= set(drawn)
    assert drawn["small zarp"].mask.sum() == 25
    assert drawn["zarp"].mask.sum() == drawn["large zarp"].mask.sum() + 25


def test_an_ignored_place_counts_for_every_question(tmp_path: Path) -> None:
    source = make_labelme(tmp_path / "source", 1)
    content = json.loads((source / "p00.json").read_text())
    somewhere = [[50, 30], [55, 30], [55, 35], [50, 35]]
    content["shapes"].append({"label": "__ignore__", "points": somewhere, "group_id": None})
    (source / "p00.json").write_text(json.dumps(content))
    import_data(Source(source), tmp_path / "mine", share=1.0)
    data = OwnData(tmp_path / "mine")
    assert [example.phrase for example in data] == ["zarp"]
    assert data[0].ignore is not None and data[0].ignore.sum() == 25


def test_a_split_that_is_not_there_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no split 'test'; expected one of train, val"):
        OwnData(folder, "test")
    with pytest.raises(DataError, match=r"expected a folder that `lisa data import` wrote"):
        OwnData(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": "images/none.png"}, "none.png' is missing"),
        ({"height": "tall"}, "'height' is a str"),
        ({"things": [{"name": "cup"}]}, "a mask of None"),
        ({"things": [{"name": "cup", "mask": {"size": [2, 2], "counts": "04"}}]}, "a mask of"),
        ({"written": [{"questions": []}]}, "has no text"),
        ({"complete": None}, "'complete' is missing"),
    ],
)
def test_a_broken_record_is_named(copied: Path, changes: dict[str, object], message: str) -> None:
    break_line(copied / "train.jsonl", **changes)
    with pytest.raises(DataError, match=message) as caught:
        OwnData(copied)
    assert "line 2 of" in str(caught.value) and "\n" not in str(caught.value)


def test_broken_files_are_named(copied: Path) -> None:
    (copied / "val.jsonl").write_text('{"image": ')
    with pytest.raises(DataError, match=r"line 1 of .*val\.jsonl': it is not valid JSON"):
        OwnData(copied)
    (copied / "val.jsonl").unlink()
    with pytest.raises(DataError, match=r"cannot read .*val\.jsonl'"):
        OwnData(copied)
    (copied / "lisa.json").write_text('{"format": "other", "version": 1}')
    with pytest.raises(DataError, match="import the data again"):
        OwnData(copied)
