"""Implicit questions: enough of them, of many kinds, and none that gives its answer away."""

import re
from collections import Counter

import pytest

from lisa.data.prompts import synonyms
from lisa.errors import DataError
from lisa.nano.data.knowledge import Thing, is_held_out, new_phrasings, read_line, taught, things
from lisa.nano.data.text_files import text_file

KNOWN = things()
THINGS = list(KNOWN.values())
QUESTIONS = [text for thing in THINGS for _, text in thing.questions]
KINDS = {
    "attribute",
    "cause",
    "exclusion",
    "function",
    "knowledge",
    "part",
    "safety",
    "situation",
}
UNTELLING = {"of", "the", "and", "by"}  # words of names that a question may hold
IRREGULAR = {
    "children": "child",
    "dice": "die",
    "feet": "foot",
    "geese": "goose",
    "men": "man",
    "mice": "mouse",
    "people": "person",
    "teeth": "tooth",
    "women": "woman",
}
ENDINGS = ("ies", "ves", "ing", "ers", "es", "ed", "er", "fe", "s", "y", "e", "f")


def stem(word: str) -> str:
    """What a word shares with its plural and its verb: "dries" and "drier" become "dri"."""
    word = IRREGULAR.get(word, word)
    ending = next((e for e in ENDINGS if word.endswith(e) and len(word) - len(e) >= 3), "")
    root = word.removesuffix(ending)
    return root[:-1] if len(root) > 3 and root[-1] == root[-2] else root


def stems(text: str) -> set[str]:
    found = re.findall(r"[a-z]+", text.lower())
    return {stem(word) for word in found if len(word) > 1 and word not in UNTELLING}


def test_the_stems_bring_words_together() -> None:
    for one, other in [
        ("knives", "knife"),
        ("leaves", "leaf"),
        ("berries", "berry"),
        ("turned", "turner"),
        ("hitting", "hitter"),
        ("mice", "mouse"),
        ("houses", "house"),
    ]:
        assert stem(one) == stem(other)
    assert stem("cup") != stem("cupboard")


def test_a_thing_has_eight_questions_or_more_of_five_kinds_or_more() -> None:
    for thing in THINGS:
        kinds = {kind for kind, _ in thing.questions}
        assert len(thing.questions) >= 8, thing.name
        assert len(kinds) >= 5, thing.name
        assert kinds <= KINDS, thing.name


def test_no_question_gives_its_answer_away() -> None:
    told = []
    for thing in THINGS:
        telling = set().union(*(stems(name) for name in (thing.name, *thing.synonyms)))
        told += [(thing.name, text) for _, text in thing.questions if stems(text) & telling]
    assert told == []


def test_there_are_many_things_and_none_twice() -> None:
    assert len(THINGS) >= 700
    names = [thing.name for thing in THINGS]
    assert len(names) == len(set(names))


def test_no_question_is_asked_twice() -> None:
    said = Counter(text.lower().strip(" .?!") for text in QUESTIONS)
    assert [text for text, count in said.items() if count > 1] == []


def test_questions_are_short_and_clean() -> None:
    for text in QUESTIONS:
        assert text == " ".join(text.split())
        assert 4 <= len(text.split()) <= 20, text
        assert "[" not in text and "<" not in text


def test_openings_are_balanced() -> None:
    """Nobody can tell what is asked for from the first word, nor from the mark at the end."""
    openings = Counter(text.split()[0].lower() for text in QUESTIONS)
    assert openings.most_common(1)[0][1] < 0.2 * len(QUESTIONS)
    assert len(openings) > 200
    asked = sum(text.endswith("?") for text in QUESTIONS) / len(QUESTIONS)
    assert 0.35 < asked < 0.65
    for thing in THINGS:
        first = Counter(text.split()[0].lower() for _, text in thing.questions)
        assert first.most_common(1)[0][1] <= len(thing.questions) / 2, thing.name


def test_the_kinds_are_balanced() -> None:
    kinds = Counter(kind for thing in THINGS for kind, _ in thing.questions)
    assert set(kinds) == KINDS
    assert min(kinds.values()) > 0.05 * len(QUESTIONS)
    assert max(kinds.values()) < 0.25 * len(QUESTIONS)


def test_one_thing_in_ten_is_held_out_and_some_of_every_field() -> None:
    held_out = [thing.held_out for thing in THINGS]
    assert 0.09 < sum(held_out) / len(held_out) < 0.11
    for field in text_file("knowledge").iterdir():
        if field.name.endswith(".jsonl"):
            lines = field.read_text(encoding="utf-8").splitlines()
            assert any(read_line(line, field.name).held_out for line in lines), field.name


def test_a_fifth_of_the_phrasings_is_held_out_whatever_they_are_about() -> None:
    assert 0.15 < sum(map(is_held_out, QUESTIONS)) / len(QUESTIONS) < 0.25
    for kind in KINDS:
        held = [is_held_out(text) for thing in THINGS for k, text in thing.questions if k == kind]
        assert 0.15 < sum(held) / len(held) < 0.25, kind


def test_which_phrasings_are_held_out_never_changes() -> None:
    """Figures of later weights are compared with those of earlier ones."""
    held = [n for n in range(40) if is_held_out(f"question {n}")]
    assert held == [2, 7, 12, 25, 26, 29, 35, 37]


def test_what_is_taught_holds_nothing_that_is_held_out() -> None:
    held_out = {thing.name for thing in THINGS if thing.held_out}
    known = taught()
    assert known.keys() == {thing.name for thing in THINGS} - held_out
    for name, thing in known.items():
        every = KNOWN[name].questions
        assert thing.questions == tuple(q for q in every if not is_held_out(q[1]))
        assert len(thing.questions) >= 5, name
    said = {text for thing in known.values() for _, text in thing.questions}
    unseen = {text for thing in THINGS if thing.held_out for _, text in thing.questions}
    assert not said & unseen


def test_new_phrasings_are_the_other_questions_about_what_is_taught() -> None:
    known, new = taught(), new_phrasings()
    assert len(new) > 600 and new.keys() <= known.keys()
    for name, thing in known.items():
        questions = new[name].questions if name in new else ()
        assert {*questions, *thing.questions} == set(KNOWN[name].questions)
        assert not {*questions} & {*thing.questions}


def test_a_synonym_means_one_thing_only() -> None:
    names = {thing.name for thing in THINGS}
    owners = Counter(synonym for thing in THINGS for synonym in thing.synonyms)
    assert [synonym for synonym, count in owners.items() if count > 1] == []
    assert sorted(names & owners.keys()) == []


def test_names_and_synonyms_are_plain_words() -> None:
    for thing in THINGS:
        for name in (thing.name, *thing.synonyms):
            assert re.fullmatch(r"[a-z][a-z' -]*[a-z]", name), name


def test_each_because_is_a_clause() -> None:
    for thing in THINGS:
        assert thing.because == thing.because.strip().rstrip(".")
        assert 3 <= len(thing.because.split()) <= 15, thing.name


def test_the_order_is_that_of_the_files() -> None:
    assert list(KNOWN) == [thing.name for thing in THINGS]
    assert THINGS[0].name == "hot dog"


def test_a_line_becomes_a_thing() -> None:
    line = (
        '{"thing": "cat", "synonyms": ["kitty"], "because": "it purrs", '
        '"questions": {"function": ["a?", "b?"], "part": ["c"]}}'
    )
    questions = (("function", "a?"), ("function", "b?"), ("part", "c"))
    assert read_line(line, "here") == Thing("cat", ("kitty",), "it purrs", questions)
    held_out = line.replace("{", '{"held_out": true, ', 1)
    assert read_line(held_out, "here").held_out


@pytest.mark.parametrize(
    "line", ["", "{", "[]", '{"thing": "cat"}', '{"thing": "cat", "synonyms": 3}', "null"]
)
def test_a_malformed_line_is_named(line: str) -> None:
    with pytest.raises(DataError) as caught:
        read_line(line, "line 7 of 'home.jsonl'")
    assert str(caught.value).startswith("line 7 of 'home.jsonl' is malformed")
    assert "expected {" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_evaluation_knows_the_same_synonyms() -> None:
    assert synonyms() == {
        name: [*thing.synonyms] for name, thing in KNOWN.items() if thing.synonyms
    }
