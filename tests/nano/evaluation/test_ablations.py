"""Controls: each is without what it claims to be without, and still answers as a segmenter does."""

import PIL.Image
import pytest
import torch

from helpers.lively_model import picture
from lisa.model.lisa import LisaModel
from lisa.nano.evaluation.ablations import (
    CentreEllipse,
    LargestThing,
    WithoutLanguageModel,
    WithoutNames,
    nameless,
)
from lisa.nano.model.processor import LisaProcessor
from lisa.nano.model.segmenter import NanoAnswering
from lisa.predict import Segmenter, ask

QUESTIONS = ["what is the cat", "a cup and the umbrella"]


def test_an_ellipse_is_in_the_middle_of_any_picture() -> None:
    control = CentreEllipse()
    for width, height in ((100, 50), (40, 80), (1, 1)):
        mask = control.segment(PIL.Image.new("RGB", (width, height)), "what?").mask
        assert mask.shape == (height, width)
        assert (mask == mask[::-1]).all() and (mask == mask[:, ::-1]).all()
    wide = control.segment(PIL.Image.new("RGB", (1000, 500)), "what?").mask
    assert wide.mean() == pytest.approx(0.6**2 * 3.14159 / 4, abs=0.002)


def test_the_largest_thing_does_not_depend_on_the_question(segmenter: Segmenter) -> None:
    control = LargestThing(segmenter)
    one, two = (control.segment(picture(), question) for question in QUESTIONS)
    assert one.mask.tobytes() == two.mask.tobytes()
    assert len(one.masks) == 1 and one.mask.any()
    others = [control.segment(picture(seed=seed), QUESTIONS[0]).mask.tobytes() for seed in (1, 2)]
    assert {*others, one.mask.tobytes()} != {others[0]}


def test_the_largest_of_the_surest_is_taken(segmenter: Segmenter) -> None:
    control = LargestThing(segmenter)
    model, processor = control.model, control.processor
    features = model.decoder.encode_image(processor.encode_images([picture()]))
    with torch.no_grad():
        prompts = control.surest_prompts(features)
        rows = torch.zeros(len(prompts), dtype=torch.long)
        masks = model.decoder.decode(features, prompts, rows).low_res_masks
    assert len(prompts) == processor.config.found_concepts
    areas = (masks > 0).flatten(1).sum(1)
    size = (40, 48)
    expected = processor.decode_mask(masks[int(areas.argmax())], size)
    assert (control.segment(picture(), "what?").mask == expected).all()


def test_without_the_language_model_a_question_is_the_mean_of_its_tokens(
    tiny: tuple[LisaModel, LisaProcessor],
) -> None:
    model, processor = tiny
    control = WithoutLanguageModel(model, processor)
    results = Segmenter(control).segment(picture(), QUESTIONS)
    assert [len(result.masks) for result in results] == [1, 1]
    assert [result.text for result in results] == ["", ""]
    pairs = [(picture(seed=seed), question) for seed, question in enumerate(QUESTIONS)]
    images = control.encode([image for image, _ in pairs])
    asked = [ask(n, question, None) for n, question in enumerate(QUESTIONS)]
    generated = control.generate(images, asked)
    for one, question in zip(generated, QUESTIONS, strict=True):
        ids = torch.tensor(processor.phrase_ids(question))
        with torch.no_grad():
            mean = model.vlm.embed(ids).mean(0)
            expected = model.vlm.projector.name_prompt(mean)
        torch.testing.assert_close(one.prompts[0], expected, atol=1e-5, rtol=1e-4)


def test_without_names_the_language_model_is_told_nothing_of_what_is_found(
    tiny: tuple[LisaModel, LisaProcessor],
) -> None:
    model, processor = tiny
    projector, config = model.vlm.projector, processor.config
    features = model.decoder.encode_image(processor.encode_images([picture(), picture(seed=3)]))
    with torch.no_grad():
        told, untold = model.vlm.visual_embeddings(features), nameless(projector, features)
        names = projector.concept_ids.clone()
        projector.concept_ids.fill_(5)
        again = nameless(projector, features)
        projector.concept_ids.copy_(names)
    assert told.shape == untold.shape == (2, config.visual_tokens, model.vlm.hidden_size)
    assert not untold[:, config.grid**2 :].any()
    assert not torch.equal(told, untold)
    assert torch.equal(again, untold)


def test_without_names_answers_differ(tiny: tuple[LisaModel, LisaProcessor]) -> None:
    whole, control = Segmenter(NanoAnswering(*tiny)), Segmenter(WithoutNames(*tiny))
    asked = [(picture(seed=seed), QUESTIONS[0]) for seed in range(4)]
    own = [result.text for result in whole.segment_batch(asked)]
    assert [result.text for result in control.segment_batch(asked)] != own
