"""Imagined scenes: what is reported, what is asked, and that questions are true of the scene."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lisa.nano.data import prompts, symbolic
from lisa.nano.data.imagenet import ImageNetClass
from lisa.nano.data.knowledge import Thing
from lisa.nano.data.symbolic import Asked, Imagination, ImaginedScene, Seen, at_a_place, surest

SEEDS = st.integers(0, 2**32 - 1)
THINGS = 400
SCENES = 400  # to look through for shares
PLACES = {text: place for place, texts in prompts.NAMING_QUESTIONS.items() for text in texts}


def thing(number: int) -> Thing:
    questions = tuple(("function", f"Riddle {n} about {number:03}?") for n in range(4))
    return Thing(f"thing {number:03}", (f"synonym {number:03}",), "", questions)


KNOWLEDGE = {one.name: one for one in map(thing, range(THINGS))}
CLASSES = [  # of the first fifty things, in capitals as WordNet may have it, and some of nothing
    *(ImageNetClass(f"n{n:08}", f"class {n:03}", (f"Thing {n:03}",)) for n in range(50)),
    *(ImageNetClass(f"n{n:08}", f"class {n:03}", ("nonsense",)) for n in range(50, 80)),
]
PLAIN = {name: Thing(name, (), "", one.questions) for name, one in KNOWLEDGE.items()}


def imagination(**changes: Any) -> Imagination:
    """Of things with one word each, all of them reported."""
    fields = {"knowledge": PLAIN, "kinds": {}, "classes": CLASSES}
    return Imagination(**{**fields, "concepts": 99, "found_classes": 99, **changes})


@contextmanager
def constants(**values: Any) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setattr(symbolic, name, value)
        yield


def scenes(made: Imagination, count: int = 8, number: int = SCENES) -> list[ImaginedScene]:
    return [made.scene(np.random.default_rng(seed), count) for seed in range(number)]


def riddle_of(asked: Asked) -> str | None:
    """The thing that an implicit question is about."""
    return f"thing {asked.question[-4:-1]}" if asked.question.startswith("Riddle") else None


def share(flags: list[bool]) -> float:
    return sum(flags) / len(flags)


# What is reported


@settings(deadline=None)
@given(SEEDS, st.integers(0, 9), st.integers(0, 5), st.integers(0, 6))
def test_reports_are_the_surest_ones_and_lie_in_the_picture(
    seed: int, concepts: int, found_classes: int, count: int
) -> None:
    made = imagination(knowledge=KNOWLEDGE, concepts=concepts, found_classes=found_classes)
    scene = made.scene(np.random.default_rng(seed), count)
    assert len(scene.asked) == count
    assert len(scene.concepts) <= concepts and len(scene.classes) <= found_classes
    for seen in (scene.concepts, scene.classes):
        scores = [one.score for one in seen]
        assert scores == sorted(scores, reverse=True)
        assert all(0 < one.score < 1 and 0 < one.size < 1 for one in seen)
        assert all(0 <= one.y < 1 and 0 <= one.x < 1 for one in seen)


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_the_same_generator_makes_up_the_same(seed: int) -> None:
    one, two = (imagination().scene(np.random.default_rng(seed), 4) for _ in range(2))
    assert one == two


def test_other_generators_make_up_other_scenes() -> None:
    made = scenes(imagination(), number=20)
    assert len({scene.concepts for scene in made}) == 20


@given(st.lists(st.floats(0, 1), max_size=8), st.integers(0, 9))
def test_the_surest_come_first(scores: list[float], count: int) -> None:
    seen = [Seen(str(number), 0, 0, 1, score) for number, score in enumerate(scores)]
    kept = surest(seen, count)
    assert [one.score for one in kept] == sorted(scores, reverse=True)[:count]
    assert set(kept) <= set(seen) and len(set(kept)) == len(kept)


def test_a_few_things_are_overlooked() -> None:
    """With places asked for as well, since these may be held by what is overlooked."""
    reported = [
        one.phrase in {seen.name for seen in scene.concepts}
        for scene in scenes(imagination())
        for one in scene.asked
        if one.present
    ]
    assert 1 - share(reported) == pytest.approx(symbolic.OVERLOOKED_SHARE, abs=0.03)


def test_half_of_the_scenes_hold_things_that_go_together() -> None:
    """What stands near in the list; one of many things of the whole list hardly ever does."""
    with constants(PRESENT=(5, 9), FALSE=(0, 1), SHARES=(1, 0, 0, 0), OVERLOOKED_SHARE=0):
        made = scenes(imagination(), 0)
    spans = []
    for scene in made:
        numbers = [int(one.name.split()[1]) for one in scene.concepts]
        assert 5 <= len(numbers) == len(set(numbers)) < 9
        spans.append(max(numbers) - min(numbers) < symbolic.NEIGHBOURS)
    assert share(spans) == pytest.approx(0.5, abs=0.08)


def test_things_of_a_kind_are_seen_as_that_every_other_time_or_by_a_synonym() -> None:
    made = imagination(knowledge=KNOWLEDGE, kinds={"tool": list(KNOWLEDGE)[:200]})
    asked = [one for scene in scenes(made) for one in scene.asked if riddle_of(one) and one.present]
    words: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for one in asked:
        name = str(riddle_of(one))
        assert one.phrase in (name, f"synonym {name.split()[1]}", "tool")
        words[name < "thing 200"][one.phrase.split()[0]] += 1
    for of_a_kind, expected in (
        (True, {"tool": 0.5, "synonym": 0.075}),
        (False, {"synonym": 0.15}),
    ):
        found = words[of_a_kind]
        shares = {word: number / found.total() for word, number in found.items() if word != "thing"}
        assert shares == pytest.approx(expected, abs=0.06)


def test_classes_are_those_of_things_at_their_place_and_unsure_ones_of_nothing() -> None:
    with constants(OVERLOOKED_SHARE=0, FALSE=(0, 1), SHARES=(1, 0, 0, 0)):
        made = scenes(imagination(), 0)
    sure = 0
    for scene in made:
        places = {one.name: (one.y, one.x, one.size) for one in scene.concepts}
        for one in scene.classes:
            name = f"thing {one.name.split()[1]}"
            if one.score > 0.4:
                assert places[name] == (one.y, one.x, one.size)
                sure += 1
    assert sure > 50


# What is asked


def test_questions_are_true_of_what_is_there() -> None:
    with constants(OVERLOOKED_SHARE=0, FALSE=(1, 2)):  # one false name a scene
        made = scenes(imagination())
    for scene in made:
        names = {one.name for one in scene.concepts}
        there = {one.phrase for one in scene.asked if one.present}
        assert there <= names
        for one in scene.asked:
            assert riddle_of(one) in (None, one.phrase)
            assert riddle_of(one) or one.phrase in one.question or one.question in PLACES
            assert one.present or one.phrase not in there


def test_what_is_absent_is_not_there() -> None:
    with constants(OVERLOOKED_SHARE=0, FALSE=(1, 2), SHARES=(0, 0, 0, 1)):
        made = scenes(imagination())
    reported = [
        one.phrase in {seen.name for seen in scene.concepts if seen.score > 0.45}
        for scene in made
        for one in scene.asked
    ]
    assert not any(reported)
    assert not any(one.present for scene in made for one in scene.asked)


def test_the_kinds_of_questions_come_as_often_as_said() -> None:
    asked = [one for scene in scenes(imagination()) for one in scene.asked]
    implicit = [riddle_of(one) is not None for one in asked]
    assert sum(symbolic.SHARES) == pytest.approx(1)
    assert share([not one.present for one in asked]) == pytest.approx(0.22, abs=0.03)
    assert share([one.question in PLACES for one in asked]) == pytest.approx(0.05, abs=0.02)
    assert share(implicit) == pytest.approx(0.64 + 0.22 * 0.7, abs=0.03)
    absent = [flag for flag, one in zip(implicit, asked, strict=True) if not one.present]
    assert share(absent) == pytest.approx(0.7, abs=0.05)


def test_a_thing_without_questions_is_asked_for_by_name() -> None:
    silent = {name: Thing(name, (), "", ()) for name in KNOWLEDGE}
    asked = [one for scene in scenes(imagination(knowledge=silent)) for one in scene.asked]
    assert all(one.phrase in one.question or one.question in PLACES for one in asked)
    assert {one.present for one in asked} == {True, False}


@given(st.lists(st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)), max_size=5, unique=True), SEEDS)
@settings(max_examples=300, deadline=None)
def test_a_place_is_asked_for_where_one_thing_is_clearly_outermost(
    centres: list[tuple[float, float]], seed: int
) -> None:
    seen = [Seen(str(n), y, x, 0.3, 0.9) for n, (y, x) in enumerate(centres)]
    asked = at_a_place(seen, np.random.default_rng(seed))
    if asked is None:
        return
    one = seen[int(asked.phrase)]
    others = [other for other in seen if other is not one]
    clearly = symbolic.PLACE_MARGIN - 1e-9
    assert asked.present and others
    assert {
        "left": all(other.x - one.x >= clearly for other in others),
        "right": all(one.x - other.x >= clearly for other in others),
        "top": all(other.y - one.y >= clearly for other in others),
        "bottom": all(one.y - other.y >= clearly for other in others),
    }[PLACES[asked.question]]


def test_every_side_is_asked_for() -> None:
    corners = [Seen(f"{y}{x}", y, x, 0.3, 0.9) for y, x in [(0.1, 0.3), (0.9, 0.7), (0.5, 0.5)]]
    asked = [at_a_place(corners, np.random.default_rng(seed)) for seed in range(40)]
    answers = {PLACES[one.question]: one.phrase for one in asked if one}
    assert answers == {"top": "0.10.3", "left": "0.10.3", "bottom": "0.90.7", "right": "0.90.7"}


@pytest.mark.parametrize("seen", [[], [Seen("cat", 0.5, 0.5, 0.3, 0.9)]])
def test_one_thing_is_at_no_place(seen: list[Seen]) -> None:
    assert at_a_place(seen, np.random.default_rng(0)) is None


def test_things_side_by_side_are_at_no_place() -> None:
    seen = [Seen(str(n), 0.5 + n / 100, 0.5 + n / 100, 0.3, 0.9) for n in range(3)]
    assert not any(at_a_place(seen, np.random.default_rng(seed)) for seed in range(20))
