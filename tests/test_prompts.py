"""Templates: every one says the name once, and answers are sentences."""

import numpy as np
import pytest

from lisa.data.prompts import (
    LISTING_QUESTIONS,
    NAME_QUESTIONS,
    NAMING_QUESTIONS,
    absent_answer,
    choose,
    listing_answer,
    name_question,
    other_words,
    present_answer,
    with_article,
)


def test_each_template_holds_the_name_once() -> None:
    assert len(set(NAME_QUESTIONS)) == len(NAME_QUESTIONS)
    for template in NAME_QUESTIONS:
        assert template.format("striped cat").count("striped cat") == 1


def test_every_template_is_used() -> None:
    made = {name_question("cat", np.random.default_rng(seed)) for seed in range(300)}
    assert made == {template.format("cat") for template in NAME_QUESTIONS}


def test_a_name_is_taken_as_it_is() -> None:
    questions = {name_question("{0} [SEG]", np.random.default_rng(seed)) for seed in range(50)}
    assert all("{0} [SEG]" in question for question in questions)


def test_questions_for_places_and_lists_name_nothing() -> None:
    texts = [*LISTING_QUESTIONS, *(text for texts in NAMING_QUESTIONS.values() for text in texts)]
    assert len(set(texts)) == len(texts)
    assert not any("{" in text for text in texts)
    for place in ("left", "right", "top", "bottom"):
        assert all(place in text for text in NAMING_QUESTIONS[place])


def test_choosing_is_even_and_depends_on_the_generator_alone() -> None:
    chosen = [choose(("a", "b", "c"), np.random.default_rng(seed)) for seed in range(600)]
    assert chosen == [choose(("a", "b", "c"), np.random.default_rng(seed)) for seed in range(600)]
    assert all(150 < chosen.count(option) < 250 for option in "abc")


def test_one_choice_is_one_draw() -> None:
    """Samples are made again from their seed: the number of draws is part of the recipe."""
    random, other = np.random.default_rng(0), np.random.default_rng(0)
    choose(("a", "b", "c"), random)
    other.integers(3)
    assert random.random() == other.random()


def test_answers() -> None:
    assert present_answer("left dog") == "The left dog."
    assert absent_answer("dog") == "There is no dog in this picture."


@pytest.mark.parametrize(
    ("names", "answer"),
    [
        (["cat"], "A cat."),
        (["cat", "dog"], "A cat and a dog."),
        (["cat", "dog", "hot dog"], "A cat, a dog and a hot dog."),
        (["socks", "umbrella", "glass"], "Socks, an umbrella and a glass."),
    ],
)
def test_a_list_is_a_sentence(names: list[str], answer: str) -> None:
    assert listing_answer(names) == answer


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cup", "a cup"),
        ("apple", "an apple"),
        ("Eiffel tower", "an Eiffel tower"),
        ("socks", "socks"),
        ("wine glass", "a wine glass"),
    ],
)
def test_articles_go_by_the_look_of_the_word(name: str, said: str) -> None:
    assert with_article(name) == said


def test_other_words_are_other_words() -> None:
    words = other_words()
    assert len(words) > 20
    for name, others in words.items():
        assert others and len(set(others)) == len(others), name
        assert name not in others
        assert all(word == word.strip().lower() for word in (name, *others))


def test_no_template_spells_the_special_token() -> None:
    placed = [text for texts in NAMING_QUESTIONS.values() for text in texts]
    texts = [*NAME_QUESTIONS, *LISTING_QUESTIONS, *placed, present_answer("x"), absent_answer("x")]
    assert not any("[" in text for text in texts)
