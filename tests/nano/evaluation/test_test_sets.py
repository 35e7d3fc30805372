"""Test sets of what training leaves out: what they ask, what they show, and that they stay."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from helpers.coco_folder import rectangle
from helpers.training_data import EVERYDAY, content, write_stamps_of, write_training_data
from lisa.data.regions import Region
from lisa.errors import DataError
from lisa.example import Example
from lisa.nano.data.knowledge import is_held_out, things
from lisa.nano.data.sources import Photos
from lisa.nano.evaluation import test_sets
from lisa.nano.evaluation.test_sets import (
    ByName,
    CompositeSet,
    ReferringSet,
    chosen,
    is_kind_of_the_other,
    what_is_asked,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_training_data(tmp_path_factory.mktemp("data"))
    write_stamps_of(root / "photos" / "stamps", EVERYDAY)
    return root


@pytest.mark.parametrize("kind", ["phrasings", "things"])
def test_scenes_show_eight_things_and_ask_what_was_never_taught(data: Path, kind: str) -> None:
    made = CompositeSet(data, kind, count=6)
    assert (made.name, len(made)) == (f"composite-{kind}", 6)
    for index in range(6):
        scene, asked = made.scene(index)
        assert len(set(scene.names)) == len(scene.regions) == 8
        assert asked.phrase in scene.names
        assert np.array_equal(asked.mask, scene.union(asked.phrase))
        thing = things()[asked.phrase]
        assert asked.question in {text for _, text in thing.questions}
        assert thing.held_out == (kind == "things")
        assert kind == "things" or is_held_out(asked.question)


def test_the_same_scene_comes_out_in_any_order(data: Path) -> None:
    one, two = CompositeSet(data, "things", count=4), CompositeSet(data, "things", count=4)
    forwards = [content(one[index]) for index in range(4)]
    assert [content(two[index]) for index in (3, 2, 1, 0)] == forwards[::-1]
    assert content(CompositeSet(data, "things", seed=1)[0]) != forwards[0]
    assert len(list(one)) == 4


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("bird", "gull", True),
        ("gull", "bird", True),
        ("ostrich", "bird", True),
        ("cat", "cat", True),
        ("cat", "dog", False),
        ("gulab jamun", "cat", False),
    ],
)
def test_a_thing_and_a_kind_of_it_are_never_in_one_scene(one: str, other: str, alike: bool) -> None:
    assert is_kind_of_the_other(one, other) is alike


def test_what_cannot_be_made_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        DataError, match="unknown composite set 'all'; expected phrasings or things"
    ):
        what_is_asked("all", [])
    small = write_training_data(tmp_path)
    monkeypatch.setattr("lisa.nano.data.sketches.SKETCHES", {})
    with pytest.raises(DataError, match="known things for composite scenes"):
        CompositeSet(small, "things")


def test_the_region_that_fits_best_is_chosen() -> None:
    regions = [Region("cat", rectangle(0, 0, 10, 10)), Region("dog", rectangle(20, 20, 10, 10))]
    assert chosen(rectangle(2, 2, 10, 10), regions) == "cat"
    assert chosen(rectangle(8, 8, 20, 20), regions) == "dog"
    assert chosen(rectangle(50, 50, 5, 5), regions) == ""
    assert chosen(np.zeros_like(regions[0].mask), regions) == ""


# Referring


def test_held_out_photographs_are_asked_by_name_and_by_place(data: Path) -> None:
    made = ReferringSet(data)
    trained = {
        scene.image.tobytes()
        for folder in Photos(data).folders.values()
        for scene in (folder[n] for n in range(len(folder)))
    }
    assert len(made) == len(list(made)) > 0
    for asked in made:
        assert asked.image.tobytes() not in trained
        assert asked.mask.any() and asked.phrase in asked.question
        assert asked.tags == {"name"}  # no tiny photograph shows two things of one name
    assert [content(e) for e in made] == [content(e) for e in ReferringSet(data)]
    few = [one[1:] for one in ReferringSet(data, count=3).asked]
    assert len(few) == 3 < len(made) and set(few) <= {one[1:] for one in made.asked}


def test_the_union_of_a_name_holds_the_one_that_is_meant(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = test_sets.seen.__wrapped__

    def two_of_a_name(folder: object, number: int) -> object:
        scene = whole(folder, number)
        regions = tuple(Region("cat", region.mask) for region in scene.regions)
        return test_sets.replace(scene, regions=regions, instances=True)

    monkeypatch.setattr(test_sets, "seen", two_of_a_name)
    made = ReferringSet(data)
    tags = set()
    for index, asked in enumerate(made):
        (tag,) = asked.tags
        tags.add(tag)
        union = made.class_union(index)
        assert not (asked.mask & ~union).any()
        assert (union.sum() > asked.mask.sum()) == (tag == "referring")
    assert tags == {"name", "referring"}


def test_by_name_changes_the_question_alone() -> None:
    picture = PIL.Image.new("RGB", (8, 8))
    mask = np.ones((1, 8, 8), bool)
    asked = Example(picture, "Who barks?", "The dog.", mask, phrase="dog")
    talk = Example(picture, "What is this?", masks=mask)
    made = ByName([asked, talk])
    assert (len(made), made.name) == (2, "list-by-name")
    assert made[0].question == "Segment the dog."
    assert made[0].masks is mask
    assert made[1] is talk
