"""The ImageNet classes: all there, in the classifier's order, with words that are true of them."""

import re

import numpy as np
import pytest

from lisa.nano.data.imagenet import ImageNetClass, imagenet_classes, word_table, words_of_labels

CLASSES = imagenet_classes()


def test_a_thousand_classes_in_the_order_of_their_identifiers() -> None:
    identifiers = [one.wnid for one in CLASSES]
    assert len(CLASSES) == 1000
    assert identifiers == sorted(set(identifiers))  # the classifier's order, and no class twice
    assert all(re.fullmatch(r"n\d{8}", identifier) for identifier in identifiers)


@pytest.mark.parametrize(
    ("index", "word"),
    [
        (0, "tench"),
        (207, "golden retriever"),
        (281, "tabby"),
        (504, "coffee mug"),
        (967, "espresso"),
    ],
)
def test_known_indices_of_the_classifier(index: int, word: str) -> None:
    assert word in CLASSES[index].is_a


def test_every_class_has_a_name_and_words() -> None:
    for one in CLASSES:
        assert one.name.strip() == one.name != ""
        assert one.is_a and all(word.strip() == word != "" for word in one.is_a)
        assert len(set(one.is_a)) == len(one.is_a)


def test_what_is_a_cat_is_no_dog() -> None:
    words, table = word_table(CLASSES)
    cats, dogs = (table[words.index(word)] for word in ("cat", "dog"))
    assert cats[281:286].all()
    assert dogs[151:269].all()
    assert not (cats & dogs).any()
    assert (cats | dogs <= table[words.index("animal")]).all()


def test_the_table_says_which_classes_a_word_is_true_of() -> None:
    words, table = word_table(CLASSES)
    assert words == sorted(set(words))
    assert (table.shape, table.dtype) == ((len(words), 1000), bool)
    assert table.any(axis=1).all()  # no word without a class
    for index in (0, 281, 999):
        true = {words[row] for row in np.flatnonzero(table[:, index])}
        assert true == {CLASSES[index].name, *CLASSES[index].is_a}


def test_the_words_of_a_label_are_the_names_and_kinds_of_its_class() -> None:
    words = words_of_labels()
    assert {"tabby", "cat", "animal"} <= set(words["tabby"])
    assert "dog" not in words["tabby"]
    for label, true in words.items():
        assert label == true[0] and all(word == word.lower() for word in true)
    assert len(words) > 990  # "crane" is a bird and a machine


def test_the_table_of_two_classes() -> None:
    classes = [ImageNetClass("n1", "tabby", ("cat",)), ImageNetClass("n2", "lynx", ("cat", "wild"))]
    words, table = word_table(classes)
    assert words == ["cat", "lynx", "tabby", "wild"]
    assert table.tolist() == [[True, True], [False, True], [True, False], [False, True]]
