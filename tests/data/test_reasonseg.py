"""The ReasonSeg format: rasterisation against records of the official code, and broken files."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.paths import GOLDEN
from lisa.data.prompts import PAPER_ANSWERS, PAPER_SENTENCE_QUESTIONS
from lisa.data.reasonseg import IGNORE, TARGET, ReasonSeg, Shape, rasterise
from lisa.errors import DataError, ImageError
from lisa.example import SEG_TOKEN, Example

needs_golden = pytest.mark.skipif(
    not (GOLDEN / "reasonseg").is_dir(),
    reason=f"no official records in '{GOLDEN}'; set LISA_GOLDEN to their folder",
)
# cv2.fillPoly fills slanted borders differently from 4.11 on; there is a record of each.
FILLS_AS_NEW = tuple(int(part) for part in cv2.__version__.split(".")[:2]) >= (4, 11)
RECORD = "masks_opencv_4.14_numpy_2.5.npz" if FILLS_AS_NEW else "masks.npz"

HEIGHT, WIDTH = 12, 16
SQUARE = [[2, 3], [5, 3], [5, 6], [2, 6]]


def square(x: float, y: float, side: float) -> list[list[float]]:
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side]]


def shape(points: list[list[float]], label: str = "target") -> dict[str, Any]:
    return {"label": label, "points": points}


def annotation(**changes: Any) -> dict[str, Any]:
    content = {"text": ["what to sit on"], "is_sentence": False, "shapes": [shape(SQUARE)]}
    return content | changes


def write_sample(folder: Path, name: str = "a", content: Any = None) -> Path:
    """Writes NAME.jpg (WIDTH x HEIGHT) and NAME.json, and returns the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (WIDTH, HEIGHT), "gray").save(folder / f"{name}.jpg")
    path = folder / f"{name}.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(json.dumps(annotation() if content is None else content))
    return path


def only(folder: Path, **changes: Any) -> Any:
    """The example of a folder with one sample, with these changes to its annotation."""
    write_sample(folder, content=annotation(**changes))
    return ReasonSeg(folder)[0]


def painted(*shapes: tuple[str, list[list[float]]]) -> np.ndarray:
    made = [Shape(label, np.array(points, np.float64).astype(np.int32)) for label, points in shapes]
    return rasterise(made, HEIGHT, WIDTH)


# Rasterisation


def test_a_polygon_covers_its_border() -> None:
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[3:7, 2:6] = TARGET
    np.testing.assert_array_equal(painted(("target", SQUARE)), expected)


def test_no_shapes_give_an_empty_map() -> None:
    assert not painted().any()


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        (TARGET, ["target", "", "flagged", "a flag", "ignoflag"]),
        (0, ["flag", "FLAG"]),
        (IGNORE, ["ignore", "Ignore region", "not-ignored"]),
    ],
)
def test_label_rules(value: int, labels: list[str]) -> None:
    assert [painted((label, SQUARE))[4, 4] for label in labels] == [value] * len(labels)


@pytest.mark.parametrize("order", [1, -1])
def test_the_smaller_shape_lies_on_top(order: int) -> None:
    shapes = [("target", square(0, 0, 8)), ("ignore", square(3, 3, 2))]
    label_map = painted(*shapes[::order])
    assert (label_map[4, 4], label_map[1, 1]) == (IGNORE, TARGET)


def test_of_equal_shapes_the_later_is_painted_first() -> None:
    assert painted(("target", SQUARE), ("ignore", SQUARE))[4, 4] == TARGET
    assert painted(("ignore", SQUARE), ("target", SQUARE))[4, 4] == IGNORE


def rectangles() -> st.SearchStrategy[tuple[str, int, int, int, int]]:
    return st.tuples(
        st.sampled_from(["target", "ignore", "flag"]),
        st.integers(-5, WIDTH + 5),
        st.integers(-5, HEIGHT + 5),
        st.integers(0, 9),
        st.integers(0, 9),
    )


@given(st.lists(rectangles(), max_size=6))
def test_rectangles_against_slices(boxes: list[tuple[str, int, int, int, int]]) -> None:
    regions = []
    for label, x, y, width, height in boxes:
        region = np.zeros((HEIGHT, WIDTH), bool)
        region[max(y, 0) : max(y + height + 1, 0), max(x, 0) : max(x + width + 1, 0)] = True
        if label != "flag":
            regions.append((region, TARGET if label == "target" else IGNORE))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    for region, value in sorted(regions[::-1], key=lambda item: -item[0].sum()):
        expected[region] = value
    corners = [
        (label, [[x, y], [x + w, y], [x + w, y + h], [x, y + h]]) for label, x, y, w, h in boxes
    ]
    np.testing.assert_array_equal(painted(*corners), expected)


# Examples


def test_an_annotation_becomes_an_example(tmp_path: Path) -> None:
    example = only(
        tmp_path,
        shapes=[shape(SQUARE), shape(square(10, 8, 1)), shape(square(8, 0, 2), "ignore")],
        text=["what to sit on", "a seat"],
        answer="The chair.",
    )
    assert (example.question, example.answer) == ("what to sit on", "The chair.")
    assert example.name == "a.jpg"
    assert example.image.size == (WIDTH, HEIGHT)
    assert (example.masks.shape, example.masks.dtype) == ((1, HEIGHT, WIDTH), bool)
    assert (example.mask.sum(), example.ignore.sum()) == (16 + 4, 9)
    assert ReasonSeg(tmp_path).questions(0) == ("what to sit on", "a seat")


@pytest.mark.parametrize(("is_sentence", "tag"), [(True, "long"), (False, "short")])
def test_sentences_are_long_and_phrases_short(tmp_path: Path, is_sentence: bool, tag: str) -> None:
    assert only(tmp_path, is_sentence=is_sentence).tags == {tag}


def test_the_kind_of_a_question_is_a_tag_too(tmp_path: Path) -> None:
    assert only(tmp_path, is_sentence=True, kind="function").tags == {"long", "function"}


@pytest.mark.parametrize(
    "changes",
    [
        {"shapes": []},
        {"absent": True},
        {"shapes": [shape(SQUARE, "ignore"), shape(SQUARE, "flag")]},
        {"shapes": [shape(square(100, 100, 5))]},
    ],
    ids=["no shapes", "absent", "no target", "outside the photo"],
)
def test_an_absent_target_has_no_masks(tmp_path: Path, changes: dict[str, Any]) -> None:
    example = only(tmp_path, **changes)
    assert example.masks.shape == (0, HEIGHT, WIDTH)
    assert not example.mask.any()


def test_absent_may_be_false_and_answer_null(tmp_path: Path) -> None:
    example = only(tmp_path, absent=False, answer=None)
    assert example.mask.any()
    assert example.answer is None


@pytest.mark.parametrize("inside", [2.0, 2.99])
def test_fractions_are_cut_off_towards_zero(tmp_path: Path, inside: float) -> None:
    example = only(tmp_path, shapes=[shape([[-0.9, -0.9], [inside, -0.9], [inside, 1.5]])])
    assert example.mask[0].tolist() == [True] * 3 + [False] * (WIDTH - 3)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_both_published_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    text = "the café\u2019s sign"
    content = json.dumps(annotation(text=[text]), ensure_ascii=False).encode(encoding)
    write_sample(tmp_path, content=content)
    assert ReasonSeg(tmp_path)[0].question == text


# The sequence


def test_samples_are_sorted_by_file_name_and_repeatable(tmp_path: Path) -> None:
    for name in ["b", "a10", "a2"]:
        write_sample(tmp_path, name)
    dataset = ReasonSeg(tmp_path)
    names = ["a10.jpg", "a2.jpg", "b.jpg"]
    assert len(dataset) == 3
    assert [example.name for example in dataset] == names
    assert [example.name for example in dataset[1:]] == names[1:]
    assert dataset[-1].name == "b.jpg"
    np.testing.assert_array_equal(dataset[0].masks, dataset[0].masks)
    with pytest.raises(IndexError):
        dataset[3]


def test_a_split_is_a_folder_of_the_root(tmp_path: Path) -> None:
    write_sample(tmp_path / "train", "t")
    write_sample(tmp_path / "val", "v")
    assert ReasonSeg(tmp_path, "val")[0].name == "v.jpg"
    assert ReasonSeg(tmp_path / "train")[0].name == "t.jpg"
    with pytest.raises(DataError, match=r"no samples in .* or one of the splits train, val$"):
        ReasonSeg(tmp_path)
    with pytest.raises(DataError, match=r"cannot open ReasonSeg folder '.*test': no such folder"):
        ReasonSeg(tmp_path, "test")


def test_several_splits_are_joined(tmp_path: Path) -> None:
    write_sample(tmp_path / "train", "t")
    write_sample(tmp_path / "val", "v")
    assert [example.name for example in ReasonSeg(tmp_path, "train_val")] == ["t.jpg", "v.jpg"]
    with pytest.raises(DataError, match=r"train_test': no such folder"):
        ReasonSeg(tmp_path, "train_test")


@pytest.mark.parametrize("home", ["", "ReasonSeg", "reason_seg/ReasonSeg"])
def test_the_folder_of_all_data_sets_will_do(tmp_path: Path, home: str) -> None:
    write_sample(tmp_path / home / "train_1")
    assert len(ReasonSeg(tmp_path, "train_1")) == 1


# Drawing


def draws(dataset: ReasonSeg, count: int = 60) -> list[Example]:
    """What some generators draw from the first photo."""
    return [e for seed in range(count) for e in dataset.draw(0, np.random.default_rng(seed))]


def test_at_most_three_wordings_are_asked_as_in_the_paper(tmp_path: Path) -> None:
    texts = ["Where to sit?", "a seat", "the chair", "to rest"]
    write_sample(tmp_path, content=annotation(text=texts, is_sentence=True))
    dataset = ReasonSeg(tmp_path)
    assert len(dataset.draw(0, np.random.default_rng(0))) == 3
    asked = {template.format(text) for template in PAPER_SENTENCE_QUESTIONS for text in texts}
    assert {example.question for example in draws(dataset)} == asked
    answers = {answer.format(SEG_TOKEN) for answer in PAPER_ANSWERS}
    assert {example.answer for example in draws(dataset)} == answers


def test_phrases_are_lower_cased_and_sentences_are_not(tmp_path: Path) -> None:
    write_sample(tmp_path, content=annotation(text=["The LAMP"]))
    assert all("the lamp" in example.question for example in draws(ReasonSeg(tmp_path)))
    write_sample(tmp_path, content=annotation(text=["The LAMP"], is_sentence=True))
    assert all("The LAMP" in example.question for example in draws(ReasonSeg(tmp_path)))


def test_an_answer_of_the_file_stays(tmp_path: Path) -> None:
    write_sample(tmp_path, content=annotation(answer="The chair."))
    assert {example.answer for example in draws(ReasonSeg(tmp_path))} == {"The chair."}


@pytest.mark.parametrize(("name", "said"), [("lamp", "lamp"), (None, "such thing")])
def test_what_is_absent_is_answered_so(tmp_path: Path, name: str | None, said: str) -> None:
    changes = {"target_name": name} if name else {}
    write_sample(tmp_path, content=annotation(absent=True, **changes))
    (example,) = ReasonSeg(tmp_path).draw(0, np.random.default_rng(0))
    assert example.answer == f"There is no {said} in this picture."
    assert len(example.masks) == 0


def write_explanation(root: Path, content: Any) -> None:
    (root / "explanatory").mkdir(parents=True)
    (root / "explanatory" / "train.json").write_text(json.dumps(content))


def test_a_photo_with_an_explanation_is_asked_in_three_ways(tmp_path: Path) -> None:
    write_sample(tmp_path / "train", "a")
    write_explanation(tmp_path, [{"image": "a.jpg", "query": "q", "outputs": "It is soft."}])
    drawn = draws(ReasonSeg(tmp_path, "train"), 400)
    alone = [example for example in drawn if len(example.masks) == 0]
    beside = [example for example in drawn if "explanation" in example.question]
    beside += [example for example in drawn if "explain" in example.question]
    assert {(example.question, example.answer) for example in alone} == {
        ("what to sit on", "It is soft.")
    }
    assert all(example.answer.endswith(". It is soft.") for example in beside)
    assert all(example.mask.any() for example in beside)
    assert 20 < len(alone) < 65  # one in ten
    assert 140 < len(beside) < 220  # half of the others


def test_the_share_of_explanations_can_be_told(tmp_path: Path) -> None:
    write_sample(tmp_path / "train", "a")
    write_explanation(tmp_path, [{"image": "a.jpg", "query": "q", "outputs": "It is soft."}])
    assert all(len(e.masks) == 0 for e in draws(ReasonSeg(tmp_path, "train", explain=1.0)))


def test_a_malformed_explanation_is_named(tmp_path: Path) -> None:
    write_sample(tmp_path / "train", "a")
    write_explanation(tmp_path, [{"image": "a.jpg"}])
    with pytest.raises(DataError, match=r"explanation 0 of '.*train\.json': 'outputs' is missing"):
        ReasonSeg(tmp_path, "train")


# Broken files


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is not JSON"),
        (b'{"text": [', "it is not JSON"),
        (b'{"text": "\x81"}', "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        ([1], "it holds a list; expected an object"),
        (annotation(text=[]), "'text' is empty"),
        (annotation(text="what"), "'text' is a str; expected a list"),
        (annotation(text=["  "]), "question '  ' is empty"),
        (annotation(text=[3]), "question is a int"),
        (annotation(is_sentence="yes"), "'is_sentence' is a str; expected a bool"),
        ({"text": ["a"], "is_sentence": True}, "'shapes' is missing; expected a list"),
        (annotation(answer=3), "'answer' is a int; expected a str"),
        (annotation(absent=1), "'absent' is a int; expected a bool"),
        (annotation(shapes=[shape(SQUARE), 7]), "shape 1: 'label' is missing"),
        (annotation(shapes=[{"label": "x"}]), "shape 0: 'points' is missing"),
        (annotation(shapes=[shape(SQUARE[:2])]), "shape 0: its points form [2, 2]"),
        (annotation(shapes=[shape([])]), "shape 0: its points form [0]"),
        (annotation(shapes=[shape([[1, 2, 3]] * 3)]), "shape 0: its points form [3, 3]"),
        (annotation(shapes=[shape([[1, 2], [3], [4, 5]])]), "its points are not all numbers"),
        (annotation(shapes=[shape([[1, None]] * 3)]), "a point is NaN or beyond"),
        (annotation(shapes=[shape([[1, "x"]] * 3)]), "its points are not all numbers"),
        (annotation(shapes=[shape([[1, float("nan")]] * 3)]), "a point is NaN or beyond"),
        (annotation(shapes=[shape([[1, float("inf")]] * 3)]), "a point is NaN or beyond"),
        (annotation(shapes=[shape([[1, 10**7]] * 3)]), "a point is NaN or beyond"),
        (annotation(shapes=[shape([[1, 10**400]] * 3)]), "its points are not all numbers"),
    ],
)
def test_a_malformed_annotation_is_named_in_one_line(
    tmp_path: Path, content: Any, reason: str
) -> None:
    path = write_sample(tmp_path, content=content)
    with pytest.raises(DataError, match=re.escape(reason)) as caught:
        ReasonSeg(tmp_path)
    assert str(caught.value).startswith(f"cannot read annotation '{path}': ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("gone", "left"), [("jpg", "json"), ("json", "jpg")])
def test_a_photo_and_its_annotation_come_together(tmp_path: Path, gone: str, left: str) -> None:
    write_sample(tmp_path)
    (tmp_path / f"a.{gone}").unlink()
    with pytest.raises(DataError, match=rf"a\.{left}' stands alone; expected 'a\.{gone}' too"):
        ReasonSeg(tmp_path)


def test_an_empty_folder_has_no_samples(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected NAME\.jpg and NAME\.json$"):
        ReasonSeg(tmp_path)


def test_a_broken_photo_is_named_when_asked_for(tmp_path: Path) -> None:
    write_sample(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"not a photo")
    dataset = ReasonSeg(tmp_path)
    with pytest.raises(ImageError, match=r"a\.jpg"):
        dataset[0]


# Records of the official code


@pytest.fixture(scope="module")
def golden() -> tuple[list[dict], dict[str, np.ndarray]]:
    cases = json.loads((GOLDEN / "reasonseg" / "cases.json").read_text())
    return cases, dict(np.load(GOLDEN / "reasonseg" / RECORD))


def golden_shapes(name: str) -> list[Shape]:
    text = (GOLDEN / "reasonseg" / name).read_bytes().decode("cp1252")
    return [
        Shape(entry["label"], np.array(entry["points"], np.float64).astype(np.int32))
        for entry in json.loads(text)["shapes"]
    ]


@needs_golden
def test_official_label_maps(golden: tuple[list[dict], dict[str, np.ndarray]]) -> None:
    cases, masks = golden
    for case in cases:
        label_map = rasterise(golden_shapes(case["json"]), *case["image_size"])
        expected = masks[case["name"]]
        if case.get("tie_order_unspecified"):
            label_map, expected = label_map > 0, expected > 0
        np.testing.assert_array_equal(label_map, expected, err_msg=case["name"])


@needs_golden
def test_official_annotations_through_the_data_set(
    tmp_path: Path, golden: tuple[list[dict], dict[str, np.ndarray]]
) -> None:
    cases, masks = golden
    for case in cases:
        folder = tmp_path / case["name"]
        folder.mkdir()
        shutil.copy(GOLDEN / "reasonseg" / case["json"], folder)
        height, width = case["image_size"]
        PIL.Image.new("RGB", (width, height)).save(folder / f"{case['name']}.jpg")
        if case["name"] == "degenerate":  # the official code paints points and lines; we refuse
            with pytest.raises(DataError, match="shape 0: its points form"):
                ReasonSeg(folder)
            continue
        dataset = ReasonSeg(folder)
        assert list(dataset.questions(0)) == case["comments"]
        assert dataset[0].tags == {"long" if case["is_sentence"] else "short"}
        if not case.get("tie_order_unspecified"):
            expected = masks[case["name"]]
            np.testing.assert_array_equal(dataset[0].mask, expected == 1, err_msg=case["name"])
            np.testing.assert_array_equal(dataset[0].ignore, expected == 255)


@needs_golden
def test_official_validation_set() -> None:
    """Recorded with OpenCV 4.8 only: newer ones may differ in as many border pixels as stated."""
    masks = np.load(GOLDEN / "dataset" / "arrays.npz")
    tolerance = 16 if FILLS_AS_NEW else 0
    dataset = ReasonSeg(GOLDEN / "dataset" / "tree" / "reason_seg" / "ReasonSeg", "val")
    assert len(dataset) == 3
    for index, example in enumerate(dataset):
        (expected,) = masks[f"val_reason.{index}.masks"]
        assert np.count_nonzero(example.mask != (expected == 1)) <= tolerance
        assert np.count_nonzero(example.ignore != (expected == 255)) <= tolerance
