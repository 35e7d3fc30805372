"""Questions made from scenes: words for places and sizes are true, and answers fit their masks."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from lisa.data import regions
from lisa.data.regions import (
    Region,
    Scene,
    Target,
    absent_targets,
    foreign_targets,
    pick,
    referring_targets,
    semantic_targets,
    told_apart,
)
from lisa.example import Example
from lisa.nano.data import prompts, questions
from lisa.nano.data.knowledge import Thing
from lisa.nano.data.questions import Asker, eye_examples, label_example, named_places, rename
from lisa.nano.data.views import flip

SIDE = 64
SEEDS = st.integers(0, 2**32 - 1)
QUESTIONS = tuple(("function", f"question {number} about it?") for number in range(8))
KNOWLEDGE = {
    name: Thing(name, (), "", tuple((kind, f"{name}: {text}") for kind, text in QUESTIONS))
    for name in ("cat", "zebra")
}


def rectangle(left: int, top: int, width: int, height: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top : top + height, left : left + width] = True
    return mask


def corners(size: int) -> st.SearchStrategy[int]:
    return st.integers(0, SIDE - size)


RECTANGLES = st.tuples(st.integers(2, 30), st.integers(2, 30)).flatmap(
    lambda size: st.builds(
        rectangle, corners(size[0]), corners(size[1]), st.just(size[0]), st.just(size[1])
    )
)
SEVERAL = st.lists(RECTANGLES, min_size=2, max_size=5)
NAMES = st.sampled_from(["cat", "dog", "cup"])


def scene_of(named: Sequence[tuple[str, np.ndarray]], **fields: object) -> Scene:
    image = np.full((SIDE, SIDE, 3), 128, np.uint8)
    regions = tuple(Region(name, mask) for name, mask in named)
    return replace(Scene(image, regions, ("zebra",), instances=True), **fields)


SCENES = st.lists(st.tuples(NAMES, RECTANGLES), max_size=6).map(scene_of)


def centre(mask: np.ndarray) -> tuple[float, float]:
    """(x, y) of the middle of a rectangle, as shares of the picture; not the way of the code."""
    y, x = np.argwhere(mask)[0] + np.argwhere(mask)[-1] + 1
    return x / 2 / SIDE, y / 2 / SIDE


def words(masks: Sequence[np.ndarray]) -> dict[str, bytes]:
    """What each word picks, in a form that can be compared."""
    return {word: mask.tobytes() for word, mask in told_apart(masks)}


# Words for places and sizes


@settings(deadline=None)
@given(SEVERAL)
def test_a_word_is_true_of_what_it_picks_and_of_nothing_else(masks: list[np.ndarray]) -> None:
    for word, mask in told_apart(masks):
        (index,) = (number for number, other in enumerate(masks) if other is mask)
        others = masks[:index] + masks[index + 1 :]
        (x, y), places = centre(mask), [centre(other) for other in others]
        areas = [other.sum() for other in others]
        margin, ratio = regions.CLEAR_MARGIN, regions.CLEAR_RATIO
        assert {
            "left": all(x < other - margin for other, _ in places),
            "right": all(x > other + margin for other, _ in places),
            "top": all(y < other - margin for _, other in places),
            "bottom": all(y > other + margin for _, other in places),
            "large": mask.sum() > ratio * max(areas),
            "small": min(areas) > ratio * mask.sum(),
        }[word]


@settings(deadline=None)
@given(SEVERAL)
def test_every_clear_difference_gets_its_word(masks: list[np.ndarray]) -> None:
    found = words(masks)
    across = sorted(centre(mask)[0] for mask in masks)
    down = sorted(centre(mask)[1] for mask in masks)
    areas = sorted(int(mask.sum()) for mask in masks)
    assert ("left" in found) == (across[1] - across[0] > regions.CLEAR_MARGIN)
    assert ("right" in found) == (across[-1] - across[-2] > regions.CLEAR_MARGIN)
    assert ("top" in found) == (down[1] - down[0] > regions.CLEAR_MARGIN)
    assert ("bottom" in found) == (down[-1] - down[-2] > regions.CLEAR_MARGIN)
    assert ("large" in found) == (areas[-1] > regions.CLEAR_RATIO * areas[-2])
    assert ("small" in found) == (areas[1] > regions.CLEAR_RATIO * areas[0])


@settings(deadline=None)
@given(SEVERAL)
def test_in_the_mirror_left_is_right_and_nothing_else_changes(masks: list[np.ndarray]) -> None:
    mirrored = words([mask[:, ::-1] for mask in masks])
    sides = {"left": "right", "right": "left"}
    expected = {sides.get(word, word): mask[:, ::-1].tobytes() for word, mask in told_apart(masks)}
    assert mirrored == expected


@settings(deadline=None)
@given(SEVERAL)
def test_upside_down_top_is_bottom(masks: list[np.ndarray]) -> None:
    ends = {"top": "bottom", "bottom": "top"}
    expected = {ends.get(word, word): mask[::-1].tobytes() for word, mask in told_apart(masks)}
    assert words([mask[::-1] for mask in masks]) == expected


@settings(deadline=None)
@given(SCENES)
def test_referring_words_of_a_mirrored_scene_are_true_in_it(scene: Scene) -> None:
    there = {target.phrase: target.mask for target in referring_targets(scene)}
    mirrored = {target.phrase: target.mask for target in referring_targets(flip(scene))}
    assert len(mirrored) == len(there)
    for phrase, mask in there.items():
        word, name = phrase.split()
        word = {"left": "right", "right": "left"}.get(word, word)
        assert np.array_equal(mirrored[f"{word} {name}"], mask[:, ::-1])


def test_what_is_alike_gets_no_word() -> None:
    assert told_apart([rectangle(10, 10, 20, 20), rectangle(12, 12, 20, 20)]) == []


def test_one_thing_or_masks_of_many_things_are_not_told_apart() -> None:
    named = [("cat", rectangle(0, 0, 9, 9)), ("cat", rectangle(50, 50, 9, 9))]
    assert {target.phrase for target in referring_targets(scene_of(named))} == {
        "left cat",
        "right cat",
        "top cat",
        "bottom cat",
    }
    assert referring_targets(scene_of(named[:1])) == []
    assert referring_targets(scene_of(named, instances=False)) == []


@settings(deadline=None)
@given(SCENES)
def test_one_name_is_clearly_at_each_named_place(scene: Scene) -> None:
    unions = {name: scene.union(name) for name in scene.names}
    for word, target in named_places(scene):
        assert np.array_equal(target.mask, unions[target.phrase])
        axis = 1 if word in ("left", "right") else 0
        sign = 1 if word in ("left", "top") else -1
        middles = {name: sign * np.nonzero(mask)[axis].mean() for name, mask in unions.items()}
        assert min(middles, key=middles.__getitem__) == target.phrase


# Targets


@settings(deadline=None)
@given(SCENES)
def test_semantic_targets_hold_all_that_bears_the_name(scene: Scene) -> None:
    targets = semantic_targets(scene)
    assert [target.phrase for target in targets] == scene.names
    for target in targets:
        masks = [region.mask for region in scene.regions if region.name == target.phrase]
        assert np.array_equal(target.mask, np.any(masks, axis=0))
        assert target.present


def test_what_is_there_is_not_absent_even_when_it_was_pasted() -> None:
    fields = {"absent": ("zebra", "cat"), "elsewhere": ("nutmeg", "cat")}
    scene = scene_of([("cat", rectangle(0, 0, 9, 9))], **fields)
    assert [target.phrase for target in absent_targets(scene)] == ["zebra"]
    assert [target.phrase for target in foreign_targets(scene)] == ["nutmeg"]
    for target in (*absent_targets(scene), *foreign_targets(scene)):
        assert not target.present
        assert target.mask.shape == (SIDE, SIDE)


@given(SEEDS, st.integers(0, 5), st.integers(0, 5))
def test_picked_options_are_different(seed: int, size: int, count: int) -> None:
    picked = pick(range(size), count, np.random.default_rng(seed))
    assert len(picked) == len(set(picked)) == min(size, count)


def test_every_option_can_be_picked() -> None:
    picked = {pick("abc", 1, np.random.default_rng(seed))[0] for seed in range(50)}
    assert picked == set("abc")


def test_a_quarter_of_the_targets_get_another_word() -> None:
    target = Target("cat", rectangle(0, 0, 9, 9))
    synonyms = {"cat": ("kitty", "feline")}
    names = [rename(target, np.random.default_rng(n), synonyms).phrase for n in range(400)]
    assert 0.18 < 1 - names.count("cat") / 400 < 0.32
    assert set(names) == {"cat", "kitty", "feline"}
    assert rename(target, np.random.default_rng(0), {}) is target


# Questions


def check(made: Example, scene: Scene) -> None:
    """The masks are those of the phrase in the scene, and the answer says whether it is there."""
    assert made.masks is not None
    word, _, name = made.phrase.rpartition(" ")
    if not len(made.masks):
        assert made.phrase not in scene.names
        assert made.answer == f"There is no {made.phrase} in this picture."
        return
    assert made.answer == f"The {made.phrase}."
    if word:
        masks = [region.mask for region in scene.regions if region.name == name]
        expected = dict(told_apart(masks))[word]
    else:
        expected = scene.union(made.phrase)
    assert np.array_equal(made.masks, expected[np.newaxis])


@settings(deadline=None)
@given(SCENES, SEEDS)
def test_the_eyes_are_asked_by_name_for_what_is_there_and_what_is_not(
    scene: Scene, seed: int
) -> None:
    made = eye_examples(scene, np.random.default_rng(seed), 4, {}, 2)
    assert sum(one.mask.any() for one in made) <= 4
    for one in made:
        assert one.phrase in one.question
        check(one, scene)
    assert len({one.phrase for one in made}) == len(made)  # nothing is asked for twice


@given(SEEDS, st.integers(0, 5), st.integers(0, 5), st.integers(0, 7))
def test_half_of_what_is_missing_is_foreign_where_there_is_enough(
    seed: int, absent: int, foreign: int, missing: int
) -> None:
    names = {"absent": [f"absent {n}" for n in range(absent)]}
    names["elsewhere"] = [f"foreign {n}" for n in range(foreign)]
    scene = scene_of([("cat", rectangle(0, 0, 9, 9))], **names)
    made = eye_examples(scene, np.random.default_rng(seed), 4, {}, missing)
    asked = [one.phrase for one in made if not one.mask.any()]
    found = {kind: sum(name.startswith(kind) for name in asked) for kind in ("absent", "foreign")}
    assert len(set(asked)) == len(asked) == sum(found.values()) <= missing
    assert found["foreign"] == min(foreign, (missing + 1) // 2)
    assert len(asked) == missing or found["absent"] == absent
    assert [one.phrase for one in made if one.mask.any()] == ["cat"]  # whatever is missing


@settings(deadline=None)
@given(SCENES, SEEDS)
def test_an_asker_tells_the_truth(scene: Scene, seed: int) -> None:
    made = Asker(KNOWLEDGE).ask(scene, np.random.default_rng(seed), 6)
    assert len(made) <= 6
    for one in made:
        if one.question in prompts.LISTING_QUESTIONS:
            assert one.masks is None and one.phrase == ""
            assert all(name in str(one.answer) for name in scene.names)
        else:
            check(one, scene)


def asked(knowledge: dict[str, Thing] = KNOWLEDGE, count: int = 3000) -> list[Example]:
    named = [("cat", rectangle(0, 0, 9, 9)), ("cat", rectangle(50, 5, 9, 30))]
    scene = scene_of([*named, ("dog", rectangle(20, 40, 20, 20))], elsewhere=("nutmeg",))
    return Asker(knowledge).ask(scene, np.random.default_rng(0), count)


def test_a_thing_without_questions_is_asked_for_by_name_or_place() -> None:
    silent = {name: replace(thing, questions=()) for name, thing in KNOWLEDGE.items()}
    made = asked(silent)
    assert made and not [one for one in made if "about it?" in one.question]


def test_an_implicit_question_is_one_of_those_known_for_its_target() -> None:
    implicit = [one for one in asked() if "about it?" in one.question]
    assert {one.phrase for one in implicit} == {"cat", "zebra"}
    for name in ("cat", "zebra"):
        known = {text for _, text in KNOWLEDGE[name].questions}
        assert {one.question for one in implicit if one.phrase == name} == known


def test_the_kinds_of_questions_come_as_often_as_said() -> None:
    made = asked()
    listed = [one for one in made if one.masks is None]
    absent = [one for one in made if one.masks is not None and not len(one.masks)]
    implicit = [one for one in made if one.question.startswith("cat: ")]
    shares = [len(kind) / len(made) for kind in (implicit, absent, listed)]
    assert shares == pytest.approx([0.45, 0.18, 0.06], abs=0.03)
    foreign = [one for one in absent if one.phrase == "nutmeg"]
    assert len(foreign) / len(absent) == pytest.approx(0.5, abs=0.05)
    assert {one.phrase for one in absent} == {"zebra", "nutmeg"}
    assert sum(questions.SHARES) == pytest.approx(1)


def test_a_question_for_a_place_is_answered_with_what_is_there() -> None:
    placed = {one.question: one for one in asked() if "What" in one.question}
    for question in prompts.NAMING_QUESTIONS["bottom"]:
        assert placed[question].phrase == "dog"
    for question in prompts.NAMING_QUESTIONS["top"]:
        assert placed[question].phrase == "cat"


def test_nothing_is_asked_of_an_empty_scene_but_what_is_absent() -> None:
    made = Asker({}).ask(scene_of([]), np.random.default_rng(0), 200)
    assert {one.phrase for one in made} == {"zebra"}
    assert Asker({}).ask(scene_of([], absent=()), np.random.default_rng(0), 50) == []


@settings(deadline=None)
@given(SCENES, SEEDS)
def test_the_same_generator_asks_the_same(scene: Scene, seed: int) -> None:
    assume(scene.regions)
    one, two = (Asker(KNOWLEDGE).ask(scene, np.random.default_rng(seed), 4) for _ in range(2))
    assert [(a.question, a.answer) for a in one] == [(b.question, b.answer) for b in two]


def test_what_a_whole_photograph_shows_has_no_known_mask() -> None:
    made = label_example(Image.new("RGB", (8, 8)), "cat", "What is in the middle?")
    assert (made.answer, made.masks, made.phrase) == ("The cat.", None, "cat")
