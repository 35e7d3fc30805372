"""Masks for photographs with a label: which are trusted, and what is written of them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.training_data import write_labelled
from lisa.model.lisa import LisaModel
from lisa.nano.data.imagenet import ImageNetClass, imagenet_classes
from lisa.nano.data.photos import LabelledPhotos
from lisa.nano.model.processor import LisaProcessor
from lisa.nano.training import pseudo_labels
from lisa.nano.training.pseudo_labels import (
    Label,
    labels_by_word,
    pseudo_mask,
    trusted,
    write_pseudo_masks,
)

CLASSES = imagenet_classes()


def square(side: int, first: int, last: int) -> torch.Tensor:
    """Mask logits [side, side] of a square from ``first`` up to ``last``."""
    logits = torch.full((side, side), -5.0)
    logits[first:last, first:last] = 5.0
    return logits


def peak(row: int, column: int, value: float = 0.9) -> torch.Tensor:
    """What a classifier sees [4, 4]: one place."""
    seen = torch.full((4, 4), 1e-4)
    seen[row, column] = value
    return seen


@pytest.mark.parametrize(
    ("logits", "quality", "seen", "agreed"),
    [
        (square(32, 4, 20), 0.8, peak(1, 1), True),
        (square(32, 4, 20), 0.8, peak(3, 3), False),  # recognised elsewhere
        (square(32, 4, 20), 0.3, peak(1, 1), False),  # the decoder is not sure
        (square(32, 0, 32), 0.8, peak(1, 1), False),  # everything
        (square(32, 12, 13), 0.8, peak(1, 1), False),  # next to nothing
    ],
)
def test_a_mask_is_trusted_where_the_classifier_agrees(
    logits: torch.Tensor, quality: float, seen: torch.Tensor, agreed: bool
) -> None:
    assert trusted(logits, quality, seen) is agreed


def test_a_label_stands_for_its_class_and_a_kind_for_all_of_its_classes() -> None:
    labels = labels_by_word(CLASSES)
    tabby = 281
    assert labels["tabby"].classes == (tabby,)
    assert labels["tabby"].words[0] == "tabby" and "cat" in labels["tabby"].words
    assert tabby in labels["cat"].classes and len(labels["cat"].classes) >= 5
    assert labels["cat"].words[0] == "cat" and "tabby" not in labels["cat"].words


def test_a_class_can_be_called_by_a_name_that_is_not_among_its_words() -> None:
    labels = labels_by_word([ImageNetClass("n1", "Drake", ("male duck", "duck", "bird"))])
    assert labels["drake"] == Label(("male duck", "duck", "bird"), (0,))
    assert labels["duck"] == Label(("duck", "bird"), (0,))


def test_what_the_classifier_does_not_recognise_gets_no_mask(
    tiny: tuple[LisaModel, LisaProcessor], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, label = Image.new("RGB", (50, 40)), Label(("cat",), (281, 282))
    monkeypatch.setattr(pseudo_labels, "trusted", lambda *parts: True)
    assert pseudo_mask(*tiny, picture, label) is None
    monkeypatch.setattr(pseudo_labels, "LEAST_SEEN", 0.0)
    mask = pseudo_mask(*tiny, picture, label)
    assert mask is not None and (mask.shape, mask.dtype) == ((40, 50), bool)


def test_the_masks_become_a_folder_of_photographs(
    tiny: tuple[LisaModel, LisaProcessor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_labelled(tmp_path / "labelled", ("cat", "banana", "no such thing"))
    folder = LabelledPhotos(tmp_path / "labelled")
    size = Image.fromarray(folder[0][0]).size
    half = np.zeros(size[::-1], bool)
    half[: size[1] // 2] = True

    def found(model: object, processor: object, picture: object, label: Label) -> object:
        return half if label.words[0] == "cat" else None

    monkeypatch.setattr(pseudo_labels, "pseudo_mask", found)
    photos = write_pseudo_masks(*tiny, [folder], tmp_path / "masks")
    cats = sum(label == "cat" for _, label in folder.images)
    assert len(photos) == cats > 0
    scene = photos[0]
    assert scene.names == ["cat"]
    np.testing.assert_array_equal(scene.union("cat"), half)
    assert {p.name for p in (tmp_path / "masks").iterdir()} == {"annotations.json"}
    assert json.loads((tmp_path / "masks" / "annotations.json").read_text())["categories"]
