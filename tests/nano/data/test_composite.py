"""Composite scenes: masks say what is seen, words are true, and a seed decides everything."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from helpers.coco_folder import make_cutouts, make_folder
from lisa.data.regions import Scene
from lisa.errors import DataError
from lisa.nano.data import composite
from lisa.nano.data.composite import (
    Backdrops,
    Composer,
    Piece,
    Placed,
    a_place,
    descriptions,
    everyday,
    kinds_of,
    paint,
    seen_well,
)
from lisa.nano.data.photos import Cutouts, MaskedThings, PhotoFolder
from lisa.nano.data.views import flip

SIDE = 64
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> PhotoFolder:
    return PhotoFolder(make_folder(tmp_path_factory.mktemp("photos") / "coco_union"))


@pytest.fixture(scope="module")
def composer(folder: PhotoFolder, tmp_path_factory: pytest.TempPathFactory) -> Composer:
    stamps = Cutouts(make_cutouts(tmp_path_factory.mktemp("stamps") / "stamps"))
    return Composer([stamps, MaskedThings(folder)], Backdrops(Path("nowhere"), [folder]))


def block(left: int, top: int, width: int, height: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top : top + height, left : left + width] = True
    return mask


def placed(name: str, whole: np.ndarray, hidden: np.ndarray | None = None) -> Placed:
    return Placed(name, whole, whole if hidden is None else whole & ~hidden)


def texts(things: list[Placed]) -> dict[str, str]:
    """What each description's answer is."""
    return {one.text: one.name for one in descriptions(things)}


# What scenes are made of


def test_nothing_to_put_on_or_to_put_there_is_an_error(folder: PhotoFolder) -> None:
    with pytest.raises(DataError, match="no pictures in 'nowhere'"):
        Backdrops(Path("nowhere"))
    with pytest.raises(DataError, match="expected at least one cut-out"):
        Composer([], Backdrops(Path("nowhere"), [folder]))


def test_a_thing_goes_by_its_everyday_name() -> None:
    assert everyday("feline") == "cat"
    assert everyday("cat") == "cat"
    assert everyday("gulab jamun") == "gulab jamun"


# Scenes


def bytes_of(scene: Scene) -> list[object]:
    masks = [(region.name, region.mask.tobytes()) for region in scene.regions]
    return [scene.image.tobytes(), *masks, *(one.text for one in scene.described)]


def test_a_seed_decides_the_scene(composer: Composer) -> None:
    one, again, other = (composer.draw(np.random.default_rng(n), SIDE) for n in (5, 5, 6))
    assert bytes_of(one) == bytes_of(again) != bytes_of(other)


@settings(deadline=None, max_examples=30)
@given(SEEDS)
def test_a_scene_is_consistent(composer: Composer, seed: int) -> None:
    scene = composer.draw(np.random.default_rng(seed), SIDE)
    assert scene.image.shape == (SIDE, SIDE, 3) and scene.image.dtype == np.uint8
    assert sum(region.mask.astype(int) for region in scene.regions).max(initial=0) <= 1
    assert not set(scene.elsewhere) & set(scene.names)
    masks = {region.mask.tobytes() for region in scene.regions}
    assert {one.mask.tobytes() for one in scene.described} <= masks
    assert len({one.text for one in scene.described}) == len(scene.described)
    for region in scene.regions:
        assert region.mask.mean() >= composite.MINIMUM_REGION_SHARE


def test_a_thing_is_where_its_mask_is(composer: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composite, "LIGHT", 0.0)
    monkeypatch.setattr(composite, "recolour", lambda image, random: image)
    for seed in range(20):
        scene = composer.compose(["cat", "cup"], np.random.default_rng(seed), SIDE)
        for region in scene.regions:
            channel = {"cat": 0, "cup": 2}[region.name]
            inside = scene.image[region.mask].argmax(-1) == channel
            assert inside.mean() > 0.85  # soft edges


def test_names_of_the_scene_can_be_chosen(composer: Composer) -> None:
    scenes = [composer.compose(["dog"], np.random.default_rng(n), SIDE) for n in range(10)]
    assert {tuple(scene.names) for scene in scenes} == {("dog",)}


def test_nearer_things_hide_what_is_behind_them() -> None:
    solid = np.full((20, 20, 4), 255, np.uint8)
    near, far, lost = (
        Piece(name, solid, left, 30) for name, left in zip("nfl", (20, 30, 22), strict=True)
    )
    seen = seen_well([near, far, lost], SIDE)
    assert [one.name for _, one in seen] == ["n", "f"]
    assert np.array_equal(seen[1][1].seen, block(40, 30, 10, 20))
    assert np.array_equal(seen[1][1].whole, block(30, 30, 20, 20))


@given(SEEDS, st.integers(1, 12), st.tuples(st.integers(1, 300), st.integers(1, 300)))
def test_a_place_is_inside_the_picture(seed: int, count: int, shape: tuple[int, int]) -> None:
    left, top, width, height = a_place(shape, count, np.random.default_rng(seed), SIDE)
    assert left >= 0 and left + width <= SIDE and width > 0
    assert top >= 0 and top + height <= SIDE and height > 0


@given(SEEDS, st.integers(1, SIDE), st.integers(1, SIDE))
def test_painting_stays_in_the_picture(seed: int, width: int, height: int) -> None:
    image = np.full((SIDE, SIDE, 3), 100, np.float32)
    piece = Piece("x", np.full((height, width, 4), 200, np.uint8), SIDE - width, SIDE - height)
    paint(image, piece, np.random.default_rng(seed))
    assert np.isfinite(image).all()
    assert (image[piece.where] != 100).any()


def test_a_changed_picture_has_no_descriptions(composer: Composer) -> None:
    for seed in range(9):
        scene = composer.compose(["cat", "dog", "cup"], np.random.default_rng(seed), SIDE)
        if scene.described:
            assert flip(scene).described == ()
            return
    raise AssertionError("no scene had a description")


# Words


def test_things_of_one_name_are_told_apart_by_their_order() -> None:
    row = [placed("cup", block(left, 20, 8, 8)) for left in (40, 4, 22, 54)]
    found = {one.text: one.mask for one in descriptions(row)}
    for text, left in {
        "cup on the far left": 4,
        "second cup from the left": 22,
        "third cup from the left": 40,
        "second cup from the right": 40,
        "third cup from the right": 22,
        "cup on the far right": 54,
    }.items():
        assert np.array_equal(found[text], block(left, 20, 8, 8)), text


def test_what_stands_too_close_is_not_numbered() -> None:
    row = [placed("cup", block(left, 20, 8, 8)) for left in (4, 7, 40)]
    assert not [text for text in texts(row) if text.startswith("second")]


def test_sizes_are_compared_among_all_and_among_those_of_a_name() -> None:
    things = [
        placed("cup", block(0, 0, 10, 10)),
        placed("cup", block(0, 40, 16, 16)),
        placed("plate", block(30, 30, 30, 30)),
    ]
    found = texts(things)
    assert found["largest thing"] == "plate"
    assert found["largest cup"] == "large cup"
    assert found["smallest cup"] == "small cup"


def test_sides_of_another_thing() -> None:
    things = [
        placed("cup", block(0, 0, 10, 10)),
        placed("plate", block(25, 0, 10, 10)),
        placed("cup", block(50, 0, 10, 10)),
    ]
    found = texts(things)
    assert found["cup to the left of the plate"] == "left cup"
    assert found["cup to the right of the plate"] == "right cup"
    assert "plate to the left of the cup" not in found  # which cup?


def test_behind_and_in_front() -> None:
    front = placed("cup", block(20, 20, 20, 20))
    back = placed("plate", block(30, 10, 25, 25), hidden=front.whole)
    found = texts([front, back])
    assert found["thing behind the cup"] == "plate"
    assert found["thing in front of the plate"] == "cup"
    assert not {"thing in front of the cup", "thing behind the plate"} & found.keys()


def test_a_touch_is_not_behind() -> None:
    front = placed("cup", block(20, 20, 20, 20))
    back = placed("plate", block(39, 10, 25, 40), hidden=front.whole)
    assert "thing behind the cup" not in texts([front, back])


def test_the_only_one_is_said_only_when_the_others_are_known() -> None:
    boxes = [block(0, 0, 9, 9), block(20, 20, 9, 9), block(40, 40, 9, 9)]
    things = [placed(n, b) for n, b in zip(("zebra", "banana", "hammer"), boxes, strict=True)]
    found = texts(things)
    assert found["only animal"] == "zebra"
    assert found["only fruit"] == "banana"
    unknown = [*things[:2], placed("gulab jamun", boxes[2])]
    assert not [text for text in texts(unknown) if text.startswith("only")]
    two = [*things, placed("cow", block(40, 0, 9, 9))]
    assert "only animal" not in texts(two)


def test_kinds_are_those_of_wordnet() -> None:
    assert kinds_of("zebra") == {"animal"}
    assert kinds_of("ostrich") == {"animal", "bird"}
    assert kinds_of("hammer") == frozenset()
    assert kinds_of("gulab jamun") is None


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 50), st.integers(0, 50)),
        min_size=2,
        max_size=6,
    )
)
def test_a_mirrored_row_swaps_left_and_right(rows: list[tuple[str, int, int]]) -> None:
    pieces = [Piece(n, np.full((14, 14, 4), 255, np.uint8), x, y) for n, x, y in rows]
    seen = [one for _, one in seen_well(pieces, SIDE)]
    assume(len(seen) > 1)
    mirrored = [Placed(one.name, one.whole[:, ::-1], one.seen[:, ::-1]) for one in seen]
    swap = str.maketrans({"<": ">", ">": "<"})

    def said(things: list[Placed]) -> set[str]:
        return {t.replace("left", "<").replace("right", ">") for t in texts(things)}

    sides = {t for t in said(seen) if "<" in t or ">" in t}
    assert {t.translate(swap) for t in sides} == {t for t in said(mirrored) if "<" in t or ">" in t}
