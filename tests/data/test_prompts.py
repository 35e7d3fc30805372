"""Templates: every one says the name once, and answers are sentences."""

import numpy as np
import pytest

from lisa.data.prompts import (
    NAME_QUESTIONS,
    PAPER_PHRASE_QUESTIONS,
    absent_answer,
    choose,
    listed,
    name_question,
    paper_answer,
    paper_explained_question,
    paper_question,
    paper_validation_question,
    present_answer,
)
from lisa.example import SEG_TOKEN
from lisa.nano.data.prompts import (
    LISTING_QUESTIONS,
    NAMING_QUESTIONS,
    listing_answer,
    other_words,
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


def test_questions_of_the_paper() -> None:
    random = np.random.default_rng(0)
    phrases = {paper_question("The LAMP", random) for _ in range(100)}
    assert phrases == {template.format("the lamp") for template in PAPER_PHRASE_QUESTIONS}
    sentences = {paper_question("What is lit?", random, sentence=True) for _ in range(100)}
    assert sentences == {
        "What is lit? Please respond with segmentation mask.",
        "What is lit? Please output segmentation mask.",
    }
    explained = {paper_explained_question("What is lit?", random) for _ in range(100)}
    assert len(explained) == 3
    assert all(question.startswith("What is lit? Please output") for question in explained)


def test_validation_of_the_paper_asks_one_way() -> None:
    phrase = "What is Lamp in this image? Please output segmentation mask."
    assert paper_validation_question("Lamp") == phrase
    sentence = paper_validation_question("What is lit?", sentence=True)
    assert sentence == "What is lit? Please output segmentation mask."


def test_answers_of_the_paper_have_one_place_for_the_mask() -> None:
    random = np.random.default_rng(0)
    answers = {paper_answer(random) for _ in range(100)}
    assert len(answers) == 5
    assert all(answer.count(SEG_TOKEN) == 1 for answer in answers)


@pytest.mark.parametrize(
    ("words", "text"), [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_words_are_listed(words: list[str], text: str) -> None:
    assert listed(words) == text
