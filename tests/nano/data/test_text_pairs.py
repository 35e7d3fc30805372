"""Texts and the names they are about."""

from pathlib import Path

import pytest

from helpers.training_data import write_training_data
from lisa.data.reasonseg import ReasonSeg
from lisa.nano.data.knowledge import Thing, is_held_out, taught, things
from lisa.nano.data.text_pairs import (
    FREELY,
    Pair,
    asked_questions,
    defined,
    glosses,
    named,
    questions,
    sample_questions,
)


def test_definitions_are_many_and_of_no_thing_that_is_held_out() -> None:
    pairs = glosses()
    kept = {
        word
        for thing in things().values()
        if thing.held_out
        for word in (thing.name, *thing.synonyms)
    }
    assert len(pairs) > 3000
    assert not kept & {pair.name for pair in pairs}


def test_a_definition_does_not_hold_its_word() -> None:
    for pair in glosses():
        assert f" {pair.name} " not in f" {pair.text} ", pair


def test_things_are_defined_for_those_who_may_read_no_question() -> None:
    texts = {pair.text for pair in glosses()}
    learnt, kept = defined(), defined(held_out=True)
    assert learnt.keys() == kept.keys() == taught().keys()
    asked = [
        {text for thing in part.values() for _, text in thing.questions} for part in (learnt, kept)
    ]
    assert not asked[0] & asked[1] and len(asked[0]) > 2 * len(asked[1]) > 0
    assert all(map(is_held_out, asked[1] & texts)) and asked[1] & texts
    assert "Find this: a lightweight handheld collapsible canopy." in asked[0] | asked[1]
    implicit = {text for thing in things().values() for _, text in thing.questions}
    assert not implicit & (asked[0] | asked[1])


def test_questions_about_known_things_go_with_their_names() -> None:
    thing = Thing("cup", ("mug",), "it holds tea", (("function", "holds tea"), ("part", "an ear")))
    assert questions({"cup": thing}) == [Pair("holds tea", "cup"), Pair("an ear", "cup")]
    assert {pair.name for pair in questions(taught())} <= taught().keys()


def test_questions_about_photographs_that_are_kept_are_others() -> None:
    learnt = {pair.text for pair in asked_questions(["coco_union", "ccp"])}
    kept = {pair.text for pair in asked_questions(["coco_union", "ccp"], held_out=True)}
    assert len(learnt) > 5 * len(kept) > 0
    assert len(learnt & kept) <= 2  # short ones may be thought of twice


def test_samples_give_all_their_wordings(tmp_path: Path) -> None:
    root = write_training_data(tmp_path)
    samples = ReasonSeg(root / "reasonseg_nano", "train239")
    pairs = sample_questions(samples)
    assert [pair.text for pair in pairs[:1]] == [samples.questions(0)[0]]
    assert len(pairs) == sum(len(samples.questions(n)) for n in range(len(samples)))


@pytest.mark.parametrize("count", [0, 20])
def test_what_names_its_target_is_answered_freely(count: int) -> None:
    pairs = named(["cup", "dog"], count)
    assert {pair.name for pair in pairs} == {FREELY}
    spoken = [pair.text for pair in pairs if "cup" in pair.text or "dog" in pair.text]
    assert len(spoken) == count
    assert pairs == named(["cup", "dog"], count) and (not count or pairs != named(["cup"], count))
