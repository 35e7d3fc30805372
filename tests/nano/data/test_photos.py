"""Photographs with named regions: they are read as they are stored, and views stay true to them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.coco_folder import (
    BACKGROUND,
    COLOURS,
    HEIGHT,
    THINGS,
    WIDTH,
    content,
    make_cutouts,
    make_folder,
    painted,
    rectangle,
)
from lisa.data.regions import Region, Scene
from lisa.errors import DataError, ImageError
from lisa.masks import run_lengths
from lisa.nano.data import photos, views
from lisa.nano.data.photos import Cutouts, LabelledPhotos, MaskedThings, PhotoFolder, plain_name
from lisa.nano.data.views import augment, crop, crop_box, flip, paste, recolour, whole, window

SEEDS = st.integers(0, 2**32 - 1)
MAGENTA = np.array([255, 0, 255])
ALL = np.ones((HEIGHT, WIDTH), bool)


def scene(name: str = "a.png") -> Scene:
    """One of the folder's photographs, made without reading it."""
    things = THINGS[name]
    regions = tuple(Region(thing, rectangle(*box)) for thing, *box in things)
    return Scene(painted(things), regions, absent=("zebra",), instances=True)


# Reading


def test_a_scene_is_what_the_folder_holds(tmp_path: Path) -> None:
    folder = PhotoFolder(make_folder(tmp_path / "pets"))
    assert len(folder) == 3
    for index, name in enumerate(sorted(THINGS)):
        read, expected = folder[index], scene(name)
        assert np.array_equal(read.image, expected.image)
        assert [region.name for region in read.regions] == [r.name for r in expected.regions]
        for region, other in zip(read.regions, expected.regions, strict=True):
            assert np.array_equal(region.mask, other.mask)
        assert read.absent == ()


def test_names_and_unions() -> None:
    assert scene().names == ["cat", "dog"]
    cats = rectangle(5, 10, 20, 30) | rectangle(50, 20, 24, 34)
    assert np.array_equal(scene().union("cat"), cats)
    assert not scene().union("zebra").any()
    assert scene().union("zebra").shape == (HEIGHT, WIDTH)


def test_in_an_exhaustive_folder_what_is_not_annotated_is_not_there(tmp_path: Path) -> None:
    folder = PhotoFolder(make_folder(tmp_path / "pets"), exhaustive=True)
    assert [folder[index].absent for index in range(3)] == [("cup",), ("cat",), ("cat", "dog")]


def test_a_crowd_is_no_region_but_is_not_absent_either(tmp_path: Path) -> None:
    annotations = content()
    for annotation in annotations["annotations"]:
        annotation["iscrowd"] = int(annotation["category_id"] == 1)
    folder = PhotoFolder(make_folder(tmp_path / "pets", annotations), exhaustive=True)
    assert folder[0].names == ["dog"]
    assert folder[0].absent == ("cup",)


@pytest.mark.parametrize(
    ("info", "instances"),
    [
        ({}, True),
        ({"info": {"masks": "instances (coarse)"}}, True),
        ({"info": {"masks": "class union"}}, False),
    ],
)
def test_the_folder_says_whether_a_region_is_one_thing(
    info: dict[str, Any], instances: bool, tmp_path: Path
) -> None:
    annotations = content()
    del annotations["info"]
    folder = PhotoFolder(make_folder(tmp_path / "pets", {**annotations, **info}))
    assert folder[0].instances is instances


def test_every_twentieth_photograph_is_held_out(tmp_path: Path) -> None:
    annotations = content()
    annotations["images"] = [{"id": n, "file_name": f"{n:03}.png"} for n in range(45)]
    annotations["annotations"] = []
    folder = make_folder(tmp_path / "pets", annotations)
    names = {
        part: [image["file_name"] for image in PhotoFolder(folder, part).images]
        for part in ("train", "held-out", "all")
    }
    assert names["held-out"] == ["000.png", "020.png", "040.png"]
    assert sorted(names["train"] + names["held-out"]) == names["all"]
    assert len(names["train"]) == 42


def test_a_part_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"part 'test' .* expected one of train, held-out, all"):
        PhotoFolder(make_folder(tmp_path / "pets"), "test")


def broken(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """The right annotations with one change."""
    annotations = content()
    change(annotations)
    return annotations


@pytest.mark.parametrize(
    ("annotations", "said"),
    [
        ([], "'categories' is missing; expected a list"),
        ({"categories": {}}, "'categories' is a dict; expected a list"),
        (broken(lambda c: c.pop("images")), "'images' is missing"),
        (broken(lambda c: c.update(info="instances")), "'info' is a str; expected a dict"),
        (broken(lambda c: c["categories"][1].pop("name")), "category 1 of "),
        (broken(lambda c: c["categories"][2].update(id="3")), "'id' is a str; expected a int"),
        (broken(lambda c: c["images"].append(7)), "image 3 of "),
        (broken(lambda c: c["images"][0].pop("file_name")), "'file_name' is missing"),
        (broken(lambda c: c["images"][0].pop("id")), "image 'c.png' of "),
        (broken(lambda c: c["annotations"][4].pop("image_id")), "annotation 4 of "),
        (broken(lambda c: c["annotations"][0].update(image_id=99)), "image_id 99 is not among"),
        (broken(lambda c: c["annotations"][0].update(category_id=9)), "category_id 9 is not among"),
        (
            broken(lambda c: c["annotations"][2].update(segmentation=[[1, 2, 3, 4, 5, 6]])),
            "'segmentation' is a list; expected a dict",
        ),
    ],
)
def test_a_malformed_record_is_named_before_anything_starts(
    annotations: Any, said: str, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "pets", annotations)
    with pytest.raises(DataError) as caught:
        PhotoFolder(folder)
    assert said in str(caught.value)
    assert str(folder / "annotations.json") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        ({"counts": "05"}, "malformed run lengths (KeyError('size'))"),
        ({"size": [HEIGHT, WIDTH], "counts": [1, 2]}, "malformed run lengths"),
        ({**run_lengths(ALL), "size": [6, 8]}, "malformed run lengths (ValueError"),
        (run_lengths(ALL[:4, :5]), "mask of [4, 5], photograph of [60, 80]; expected the same"),
    ],
)
def test_a_mask_that_cannot_be_used_names_its_annotation(
    segmentation: dict[str, Any], said: str, tmp_path: Path
) -> None:
    annotations = broken(lambda c: c["annotations"][1].update(segmentation=segmentation))
    folder = PhotoFolder(make_folder(tmp_path / "pets", annotations))
    with pytest.raises(DataError) as caught:
        folder[0]
    assert said in str(caught.value)
    assert f"annotation 2 of '{tmp_path / 'pets' / 'annotations.json'}'" in str(caught.value)


def test_a_missing_photograph_is_an_image_error(tmp_path: Path) -> None:
    folder = PhotoFolder(make_folder(tmp_path / "pets"))
    (tmp_path / "pets" / "images" / "a.png").unlink()
    with pytest.raises(ImageError, match=r"a\.png"):
        folder[0]


@pytest.mark.parametrize(
    ("text", "said"), [(None, "cannot read"), ("{", "is not valid JSON"), ("\xff", "JSON")]
)
@pytest.mark.parametrize("kind", [PhotoFolder, LabelledPhotos, Cutouts])
def test_a_file_that_is_missing_or_no_json_is_named(
    kind: Callable[[Path], Any], text: str | None, said: str, tmp_path: Path
) -> None:
    name = "index.json" if kind is Cutouts else "annotations.json"
    if text is not None:
        (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError) as caught:
        kind(tmp_path)
    assert said in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def test_labelled_photographs_in_the_order_of_their_names(tmp_path: Path) -> None:
    images = [{"file_name": "b.png", "label": "dog"}, {"file_name": "a.png", "label": "cat"}]
    folder = LabelledPhotos(make_folder(tmp_path / "pets", {"images": images}))
    assert [label for _, label in folder] == ["cat", "dog"]
    assert np.array_equal(folder[0][0], painted(THINGS["a.png"]))


def test_labelled_folders_are_those_that_are_there(tmp_path: Path) -> None:
    assert photos.labelled_folders(tmp_path) == []
    images = [{"file_name": "b.png", "label": "dog"}]
    for name in ("imagelevel_caltech101", "coco_union", "imagelevel_unknown"):
        make_folder(tmp_path / "photos" / name, {"images": images})
    (folder,) = photos.labelled_folders(tmp_path)
    assert folder.folder.name == "imagelevel_caltech101"
    assert [label for _, label in folder] == ["dog"]


def test_a_photograph_without_a_label_is_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets", {"images": [{"file_name": "b.png"}]})
    with pytest.raises(DataError, match=r"'b\.png' in .*'label' is missing; expected a str"):
        LabelledPhotos(folder)


def test_cutouts_with_a_plain_name_are_kept(tmp_path: Path) -> None:
    cutouts = Cutouts(make_cutouts(tmp_path / "stamps"))
    ((pixels, name),) = cutouts
    assert name == "plate"
    assert (pixels.shape, pixels.dtype) == ((40, 40, 4), np.uint8)
    assert pixels[20, 20].tolist() == [255, 0, 255, 255]
    assert pixels[0, 0, 3] == 0


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({}, "holds a dict; expected a list"),
        ([{"file": "x.png"}], "entry 0 of "),
        ([{"file": 3, "text": "A cup."}], "'file' is a int; expected a str"),
    ],
)
def test_a_malformed_list_of_cutouts_is_named(entries: Any, said: str, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(json.dumps(entries))
    with pytest.raises(DataError) as caught:
        Cutouts(tmp_path)
    assert said in str(caught.value)
    assert str(tmp_path / "index.json") in str(caught.value)


def test_a_cutout_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    cutouts = Cutouts(make_cutouts(tmp_path / "stamps"))
    (tmp_path / "stamps" / "disc.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"cannot read cut-out '.*disc\.png'"):
        cutouts[0]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("A trumpet.", "trumpet"),
        ("An yellow pear.", "pear"),
        ("The hot air balloon.", "hot air balloon"),
        ("A very small green apple tree.", ""),
        ("A Seville orange, also called a bitter orange.", ""),
        ("Trumpet", ""),
        ("A plain red.", ""),
    ],
)
def test_plain_names(text: str, name: str) -> None:
    assert plain_name(text) == name


# Things cut out along their masks


def test_whole_things_are_cut_out_in_their_own_colours(tmp_path: Path) -> None:
    cuts = MaskedThings(PhotoFolder(make_folder(tmp_path / "folder")))
    assert cuts.names == ["cat", "cat", "dog", "dog", "cup", "cup"]
    for (pixels, name), expected in zip(cuts, cuts.names, strict=True):
        inside = pixels[pixels[..., 3] > 0]
        assert name == expected
        assert {tuple(pixel[:3]) for pixel in inside.tolist()} == {COLOURS[name]}


def test_what_the_edge_cuts_off_and_crumbs_are_left_out(tmp_path: Path) -> None:
    records = [[0, 10, 20, 20], [30, 59 - 20, 20, 21], [30, 30, 4, 4], [10, 10, 20, 20]]
    content = annotations([rectangle(*box) for box in records])
    cuts = MaskedThings(PhotoFolder(make_folder(tmp_path / "folder", content)))
    assert len(cuts) == 1
    assert cuts[0][0].shape == (20, 20, 4)


def test_of_a_mask_in_pieces_the_largest_is_taken(tmp_path: Path) -> None:
    mask = rectangle(10, 10, 20, 20) | rectangle(32, 12, 5, 5)
    cuts = MaskedThings(PhotoFolder(make_folder(tmp_path / "folder", annotations([mask]))))
    assert cuts[0][0].shape == (20, 20, 4)


def annotations(masks: list[np.ndarray]) -> dict[str, Any]:
    return {
        "categories": [{"id": 1, "name": "cat"}],
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": 1, "segmentation": run_lengths(mask)}
            for n, mask in enumerate(masks)
        ],
    }


def test_broken_run_lengths_are_named(tmp_path: Path) -> None:
    content = annotations([rectangle(10, 10, 20, 20)])
    content["annotations"][0]["segmentation"] = {"size": [60, 80]}  # type: ignore[index]
    folder = PhotoFolder(make_folder(tmp_path / "folder", content))
    with pytest.raises(DataError, match=r"malformed run lengths in '.*annotations\.json'"):
        MaskedThings(folder)


# Views


def boxes() -> st.SearchStrategy[tuple[int, int, int, int]]:
    """Boxes (left, top, width, height) inside the photograph."""
    sizes = st.tuples(st.integers(16, WIDTH), st.integers(16, HEIGHT))
    return sizes.flatmap(
        lambda size: st.tuples(
            st.integers(0, WIDTH - size[0]), st.integers(0, HEIGHT - size[1]), *map(st.just, size)
        )
    )


def check_alignment(view: Scene, slack: int) -> None:
    """Each name's regions lie where the picture has its colour, up to `slack` pixels of border."""
    for name, colour in COLOURS.items():
        distance = np.abs(view.image.astype(int) - colour).sum(axis=2)
        other = np.abs(view.image.astype(int) - BACKGROUND).sum(axis=2)
        pure, trace = distance <= 6, (distance < other)
        around = np.ones((2 * slack + 1, 2 * slack + 1), np.uint8)
        near = cv2.dilate(trace.astype(np.uint8), around).astype(bool)
        mask = view.union(name)
        if mask.any():
            assert not (mask & ~near).any()
            assert not (cv2.erode(pure.astype(np.uint8), around).astype(bool) & ~mask).any()
        else:
            assert pure.mean() < 2 * views.MINIMUM_REGION_SHARE


@settings(deadline=None, max_examples=60)
@given(boxes(), st.sampled_from([24, 48, 97]), st.sampled_from(sorted(THINGS)), st.booleans())
def test_a_view_keeps_regions_where_the_picture_has_them(
    box: tuple[int, int, int, int], side: int, name: str, mirrored: bool
) -> None:
    view = crop(scene(name), box, side)
    view = flip(view) if mirrored else view
    assert view.image.shape == (side, side, 3)
    assert view.image.dtype == np.uint8
    assert all(region.mask.shape == (side, side) for region in view.regions)
    assert all(region.mask.dtype == bool for region in view.regions)
    check_alignment(view, slack=1 + side // min(box[2:]))
    assert (view.absent, view.instances) == (("zebra",), True)


@settings(deadline=None, max_examples=40)
@given(st.integers(8, HEIGHT), st.data())
def test_a_view_shows_the_box(side: int, data: st.DataObject) -> None:
    left = data.draw(st.integers(0, WIDTH - side))
    top = data.draw(st.integers(0, HEIGHT - side))
    view = crop(scene(), (left, top, side, side), side)
    assert np.array_equal(view.image, scene().image[top : top + side, left : left + side])
    for region in view.regions:
        shown = scene().union(region.name)[top : top + side, left : left + side]
        assert not (region.mask & ~shown).any()


def test_a_region_outside_the_box_or_too_small_to_see_is_dropped() -> None:
    assert crop(scene(), (0, 0, 28, 60), 32).names == ["cat"]
    speck = Scene(scene().image, (Region("cat", rectangle(3, 3, 1, 1)),), (), True)
    assert crop(speck, whole(speck), 64).names == []


def test_a_window_is_a_part_of_its_own_size() -> None:
    whole_scene = scene()
    seen = {window(whole_scene, np.random.default_rng(n), 20).image.tobytes() for n in range(20)}
    assert len(seen) > 1
    assert all(len(pixels) == 20 * 20 * 3 for pixels in seen)
    parts = [
        whole_scene.image[y : y + 20, x : x + 20].tobytes()
        for y in range(HEIGHT - 19)
        for x in range(WIDTH - 19)
    ]
    assert seen <= set(parts)
    square = crop(whole_scene, whole(whole_scene), 20)
    assert window(square, np.random.default_rng(0), 20) is square


@settings(deadline=None, max_examples=200)
@given(SEEDS)
def test_a_random_box_lies_inside_the_picture(seed: int) -> None:
    left, top, width, height = crop_box(scene(), np.random.default_rng(seed))
    assert 0 <= left <= left + width <= WIDTH
    assert 0 <= top <= top + height <= HEIGHT
    assert width >= 32 and height >= 32


def test_most_random_boxes_hold_some_of_a_region() -> None:
    tiny = Scene(scene().image, (Region("cat", rectangle(77, 57, 3, 3)),), (), True)
    drawn = [crop_box(tiny, np.random.default_rng(seed)) for seed in range(300)]
    held = [left + width > 77 and top + height > 57 for left, top, width, height in drawn]
    assert np.mean(held) > 0.7  # a box anywhere holds the corner in less than half of the cases


def test_a_mirror_image_twice_is_the_scene_again() -> None:
    once, twice = flip(scene()), flip(flip(scene()))
    assert np.array_equal(twice.image, scene().image)
    assert np.array_equal(once.regions[0].mask, rectangle(WIDTH - 25, 10, 20, 30))


@settings(deadline=None, max_examples=60)
@given(SEEDS, st.integers(8, 60), st.integers(8, 60))
def test_a_pasted_cutout_covers_what_is_under_it(seed: int, height: int, width: int) -> None:
    view = crop(scene(), whole(scene()), 96)
    cutout = np.full((height, width, 4), (*MAGENTA, 255), np.uint8)
    pasted = paste(view, cutout, "plate", np.random.default_rng(seed))
    *others, plate = pasted.regions
    assert plate.name == "plate"
    assert np.array_equal(plate.mask, (pasted.image == MAGENTA).all(axis=2))
    assert np.array_equal(pasted.image[~plate.mask], view.image[~plate.mask])
    for other in others:
        assert not (other.mask & plate.mask).any()
        assert other.mask.mean() >= views.MINIMUM_REGION_SHARE
    assert not view.union("plate").any()  # the scene itself is left as it was
    check_alignment(pasted, slack=2)


def test_where_a_cutout_is_transparent_the_scene_shows_through() -> None:
    view = crop(scene(), whole(scene()), 96)
    glass = np.zeros((20, 20, 4), np.uint8)
    pasted = paste(view, glass, "glass", np.random.default_rng(0))
    assert np.array_equal(pasted.image, view.image)
    assert not pasted.regions[-1].mask.any()


@settings(deadline=None, max_examples=60)
@given(SEEDS, st.sampled_from(sorted(THINGS)))
def test_an_augmented_scene_stays_aligned(seed: int, name: str) -> None:
    cutouts = [(np.full((20, 30, 4), (*MAGENTA, 255), np.uint8), "plate")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views, "recolour", lambda image, random: image)
        view = augment(scene(name), np.random.default_rng(seed), side=96, cutouts=cutouts)
    assert np.array_equal(view.union("plate"), (view.image == MAGENTA).all(axis=2))
    check_alignment(view, slack=4)


def test_a_scene_whose_names_say_left_and_right_is_not_mirrored() -> None:
    light = np.zeros((HEIGHT, WIDTH), bool)
    light[:, : WIDTH // 4] = True
    car = Scene(painted([]), (Region("left light", light),), (), True)
    for mirror, sides in ((False, {"left"}), (True, {"left", "right"})):
        found = set()
        for seed in range(40):
            view = augment(car, np.random.default_rng(seed), side=32, mirror=mirror)
            for region in view.regions:
                if not region.mask.all():
                    found.add("left" if region.mask[:, 0].any() else "right")
        assert found == sides


def test_the_same_generator_gives_the_same_view() -> None:
    one, two, other = (augment(scene(), np.random.default_rng(s), side=64) for s in (5, 5, 6))
    assert np.array_equal(one.image, two.image)
    assert not np.array_equal(one.image, other.image)


@settings(deadline=None, max_examples=30)
@given(SEEDS)
def test_recolouring_moves_no_pixel(seed: int) -> None:
    image = scene().image
    changed = recolour(image, np.random.default_rng(seed))
    assert (changed.shape, changed.dtype) == (image.shape, np.uint8)
    for colour in (*COLOURS.values(), BACKGROUND):
        same = (image == colour).all(axis=2)
        assert not same.any() or len(np.unique(changed[same], axis=0)) == 1
    assert abs(int(changed.mean()) - int(image.mean())) < 0.35 * image.mean()


def test_some_pictures_turn_grey() -> None:
    drawn = [recolour(scene().image, np.random.default_rng(seed)) for seed in range(200)]
    grey = np.mean([np.ptp(picture.astype(int), axis=2).max() <= 1 for picture in drawn])
    assert 0.01 < grey < 0.12


def test_a_scene_can_be_saved_as_a_picture() -> None:
    view = augment(scene(), np.random.default_rng(0), side=32)
    assert Image.fromarray(np.ascontiguousarray(view.image)).size == (32, 32)
