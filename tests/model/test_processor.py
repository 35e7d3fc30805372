"""Meaning to tensors for models of full size, and masks back to the picture's own size."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from helpers.lively_model import picture
from helpers.llama_tokenizer import llama_tokenizer
from helpers.parts import DECODERS, SIDE, VLMS, decoder_fields, tiny_processor, vlm_fields
from lisa.errors import DataError, ModelError, QuestionError
from lisa.example import Example
from lisa.model.config import LisaConfig
from lisa.model.geometry import clip_pixels, sam_pixels
from lisa.model.interfaces import (
    IGNORE_LABEL,
    PADDING_SEGMENT,
    PICTURE_SEGMENT,
    DecodedMasks,
    Generated,
    Output,
)
from lisa.model.processor import (
    FullSizeProcessor,
    training_answer,
    usual_image_processor,
)
from lisa.model.text_processor import OfficialText

WIDE = picture(64, 40)


def official_processor(**changes: str) -> FullSizeProcessor:
    words = llama_tokenizer()
    config = LisaConfig.from_parts(
        vlm_fields("llava"),
        decoder_fields("sam"),
        seg_token_id=words.seg_token_id,
        conversation="llava_v1",
        **changes,
    )
    return FullSizeProcessor(OfficialText(words, config), None, config)


def example(name: str = "cat", image: PIL.Image.Image = WIDE, there: bool = True) -> Example:
    masks = np.zeros((int(there), image.height, image.width), dtype=bool)
    masks[:, 8:24, 16:48] = True
    return Example(image, f"What is the {name}?", f"It is the {name}", masks, phrase=name)


# ------------------------------------------------------------------- pictures


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_mask_comes_back_where_it_was(decoder: str) -> None:
    """A mask drawn on the picture as the decoder sees it is restored to the picture's size."""
    processor = tiny_processor("llava", decoder)
    pixels = np.zeros((40, SIDE, 3), np.uint8)
    pixels[8:24, 16:48] = 255
    seen = processor.decoder_pixels(PIL.Image.fromarray(pixels))
    assert seen.shape == (3, processor.config.image_size, processor.config.image_size)
    bright = F.interpolate(seen[None, :1], (128, 128), mode="bilinear")[0]
    low_res = torch.where(bright > 0, 5.0, -5.0)
    masks = processor.restore(low_res, (40, SIDE))
    target = torch.from_numpy(pixels[..., 0] > 0)
    union = ((masks[0] > 0) | target).sum()
    assert ((masks[0] > 0) & target).sum() / union > 0.85
    assert np.array_equal(processor.decode_mask(low_res[0], (40, SIDE)), (masks[0] > 0).numpy())


def test_the_mask_threshold_is_a_probability() -> None:
    processor = tiny_processor("llava", "sam2", mask_threshold=0.9)
    logits = torch.tensor([[0.9, 0.91]]).logit().expand(2, 2)
    assert processor.decode_mask(logits, (1, 2)).tolist() == [[False, True]]


def test_official_pictures() -> None:
    processor = official_processor()
    pictures = processor.encode_pictures([WIDE])
    assert pictures.vlm_inputs is not None and pictures.picture_ids is not None
    assert torch.equal(pictures.vlm_inputs[0]["pixel_values"][0], clip_pixels(WIDE, 32))
    assert torch.equal(pictures.pixel_values[0], sam_pixels(WIDE, SIDE)[0])
    assert pictures.picture_ids == [[processor.vlm.image_token_id] * 16]


@pytest.mark.parametrize("vlm", VLMS)
def test_only_what_the_model_takes_is_kept(vlm: str) -> None:
    pictures = tiny_processor(vlm, "sam").encode_pictures([WIDE, picture(30, 60)])
    assert pictures.vlm_inputs is not None and pictures.picture_ids is not None
    for inputs, ids in zip(pictures.vlm_inputs, pictures.picture_ids, strict=True):
        assert tuple(inputs) == tiny_processor(vlm, "sam").language_family.image_inputs
        assert all(isinstance(value, Tensor) for value in inputs.values())
        assert ids


# ------------------------------------------------------------------- batches


def test_a_batch() -> None:
    processor = tiny_processor("llava", "sam")
    other = picture(30, 60)
    examples = [example(), example("left cat", there=False), example("cat", other)]
    batch = processor.encode(examples)
    assert batch.row_image is not None and batch.full_masks is not None
    assert batch.row_image.tolist() == [0, 0, 1]
    assert len(batch.pixel_values) == 2
    assert batch.sizes == [(40, 64), (60, 30)]
    assert [len(masks) for masks in batch.full_masks] == [1, 1]
    assert torch.equal(batch.full_masks[0][0], torch.from_numpy(examples[0].mask))
    assert batch.vlm_inputs is not None and len(batch.vlm_inputs["pixel_values"]) == 3
    segs = (batch.input_ids == processor.config.seg_token_id).sum(1)
    assert segs.tolist() == [1, 0, 1]
    assert batch.labels is not None
    assert (batch.labels[batch.segments == PICTURE_SEGMENT] == IGNORE_LABEL).all()
    supervised = batch.labels != IGNORE_LABEL
    assert torch.equal(batch.labels[supervised], batch.input_ids[supervised])
    assert (batch.labels[batch.segments == PADDING_SEGMENT] == IGNORE_LABEL).all()


def test_a_target_needs_a_mask() -> None:
    with pytest.raises(DataError, match="has no masks"):
        tiny_processor("llava", "sam").encode([replace(example(), masks=None)])


LONG = "the umbrella in this image " * 60


@pytest.mark.parametrize(
    ("answer", "count", "written", "targets"),
    [
        ("Sure, it is [SEG].", 1, "Sure, it is [SEG].", 1),
        ("It is [SEG]. the left cat", 1, "It is [SEG]. the left cat", 1),
        ("the cat", 1, "the cat [SEG]", 1),
        ("the cat [SEG] and a cat [SEG].", 2, "the cat [SEG] and a cat [SEG].", 2),
        ("It is [SEG].", 2, "It is [SEG].", 1),  # both in one
        ("a [SEG] b [SEG] c [SEG]", 2, "a b c [SEG]", 1),  # does not fit: one for all
        ("It is [SEG].", 0, "It is .", 0),
    ],
)
def test_an_answer_keeps_its_own_seg(answer: str, count: int, written: str, targets: int) -> None:
    """As the paper's answers have it, in the middle of a sentence."""
    masks = np.zeros((count, WIDE.height, WIDE.width), bool)
    for number in range(count):
        masks[number, number] = True
    asked = Example(WIDE, "What is the cat?", answer, masks, phrase="cat")
    assert training_answer(asked) == written
    batch = tiny_processor("llava", "sam").encode([asked])
    (found,) = batch.full_masks
    assert len(found) == targets
    assert int((batch.input_ids == tiny_processor("llava", "sam").config.seg_token_id).sum()) == (
        targets
    )
    if targets == count:
        assert np.array_equal(found.numpy(), masks)
    elif targets:
        assert np.array_equal(found.numpy(), masks.any(0)[None])


def test_what_is_cut_off_must_not_hold_the_answer() -> None:
    asked = replace(example(), question=LONG)
    with pytest.raises(QuestionError, match=r"what is cut off holds a \[SEG\]"):
        official_processor().encode([asked])
    batch = official_processor(compat="official").encode([asked])
    assert batch.input_ids.shape[1] == 512
    assert len(tiny_processor("llava", "sam").encode([asked]).input_ids[0]) > 180


def test_masks_of_a_batch_are_given_by_picture() -> None:
    processor = tiny_processor("llava", "sam")
    batch = processor.encode([example(), example("left cat"), example("cat", picture(30, 60))])
    low_res = torch.arange(3.0)[:, None, None].expand(3, 16, 16)
    masks = DecodedMasks(low_res, torch.zeros(3), torch.zeros(3, 0, 0))
    output = Output(torch.zeros(0), torch.zeros(3, 1), torch.tensor([0, 1, 2]), masks)
    by_picture = processor.predicted_masks(output, batch)
    assert [tuple(masks.shape) for masks in by_picture] == [(2, 40, 64), (1, 60, 30)]
    assert [masks.flatten(1).mean(1).tolist() for masks in by_picture] == [[0, 1], [2]]


# ------------------------------------------------------------------- answers


def test_an_answer_and_its_masks() -> None:
    processor = tiny_processor("llava", "sam")
    ids = processor.answer_ids("It is the left cat [SEG]")[:-1]
    masks = DecodedMasks(torch.ones(1, 16, 16), torch.zeros(1), torch.zeros(1, 0, 0))
    text, (mask,) = processor.decode(Generated(ids, masks, torch.zeros(1, 32)), (40, 64))
    assert text == "It is the left cat"
    assert (mask.phrase, mask.score) == ("It is the left cat", 0.5)
    assert mask.mask.shape == (40, 64) and mask.mask.all()


# --------------------------------------------------------------------- files


@pytest.mark.parametrize("vlm", VLMS)
def test_a_processor_survives_the_disk(vlm: str, tmp_path: Path) -> None:
    processor = tiny_processor(vlm, "sam")
    processor.save(tmp_path)
    again = FullSizeProcessor.from_directory(tmp_path, processor.config)
    for one, other in zip(
        processor.encode_pictures([WIDE]).vlm_inputs or [],
        again.encode_pictures([WIDE]).vlm_inputs or [],
        strict=True,
    ):
        assert one.keys() == other.keys()
        for name in one:
            assert torch.equal(one[name], other[name]), name
    assert again.question_ids("What is the cat?") == processor.question_ids("What is the cat?")


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read the tokenizer in .*tokenizer\.json"):
        FullSizeProcessor.from_directory(tmp_path, tiny_processor("llava", "sam").config)


def test_a_broken_image_processor_is_named(tmp_path: Path) -> None:
    processor = tiny_processor("llava", "sam")
    processor.save(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"cannot use .*preprocessor_config\.json"):
        FullSizeProcessor.from_directory(tmp_path, processor.config)


def test_official_models_need_no_image_processor() -> None:
    assert usual_image_processor(official_processor().config) is None
