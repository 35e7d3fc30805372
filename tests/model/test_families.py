"""Any vision-language model with any mask decoder: trained, asked, saved and loaded again."""

import re
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from helpers.parts import DECODERS, EYES, IMAGE_ID, SIDE, TEMPLATE, TEXT, VLMS, tiny_processor
from helpers.paths import DOCS
from lisa import load
from lisa.checkpoints.directory import FullSizeModel, save
from lisa.example import Example
from lisa.model import mask_decoder, vlm
from lisa.model.answering import ModelAnswering
from lisa.model.interfaces import Batch
from lisa.model.lisa import LisaModel
from lisa.model.processor import FullSizeProcessor
from lisa.predict import Segmenter
from lisa.result import Result
from lisa.training.paper import answer_loss, official_mask_loss

STEPS, RATE = 150, 4e-3
CHECKED_EVERY = 10


def example(side: str, colour: tuple[int, int, int]) -> Example:
    """A picture with a rectangle at one side, and a question about it."""
    mask = np.zeros((1, 48, SIDE), dtype=bool)
    mask[0, 8:40, slice(0, 32) if side == "left" else slice(32, 64)] = True
    pixels = np.full((48, SIDE, 3), 40, np.uint8)
    pixels[mask[0]] = colour
    image = PIL.Image.fromarray(pixels)
    return Example(image, f"What is the {side} cat?", "It is the cat", mask, phrase="cat")


EXAMPLES = [example("left", (250, 60, 60)), example("right", (60, 60, 250))]


def new_model(processor: FullSizeProcessor) -> LisaModel:
    torch.manual_seed(0)
    return FullSizeModel(processor.config).train()


def loss_of(model: LisaModel, processor: FullSizeProcessor, batch: Batch) -> torch.Tensor:
    """The paper's loss."""
    output = model(batch)
    masks = processor.predicted_masks(output, batch)
    assert batch.labels is not None and batch.full_masks is not None
    losses = official_mask_loss(masks, batch.full_masks)
    return answer_loss(output.logits, batch.labels) + sum(losses.values())


def iou(ours: np.ndarray, target: np.ndarray) -> float:
    return float((ours & target).sum() / (ours | target).sum())


def overfit(model: LisaModel, processor: FullSizeProcessor) -> None:
    """Train until both masks are right and both answers are sure, or the steps are used up."""
    batch = processor.encode(EXAMPLES)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    for step in range(STEPS):
        loss = loss_of(model, processor, batch)
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            every_part_learns(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % CHECKED_EVERY == 0 and learnt(model, processor):
            return


def every_part_learns(model: LisaModel) -> None:
    """Gradients reach the eyes, the words, the head, and both sides of the mask decoder."""
    parts = {"vlm": model.vlm, "head": model.head, "decoder": model.decoder.model.mask_decoder}
    parts["image encoder"] = model.decoder.model.vision_encoder
    parts["words"] = model.vlm.model.get_input_embeddings()
    for name, part in parts.items():
        norms = [p.grad.norm() for p in part.parameters() if p.grad is not None]
        assert norms and sum(norms) > 0, name


def learnt(model: LisaModel, processor: FullSizeProcessor) -> bool:
    """Whether both answers, generated, have the right mask."""
    model.eval()
    results = [ask(Segmenter(ModelAnswering(model, processor)), one) for one in EXAMPLES]
    model.train()
    return all(is_right(result, one) for result, one in zip(results, EXAMPLES, strict=True))


def ask(segmenter: Segmenter, one: Example) -> Result:
    return segmenter.segment(one.image, one.question)


def is_right(result: Result, one: Example) -> bool:
    is_said = result.text == one.answer and len(result.masks) == 1
    return is_said and iou(result.masks[0].mask, one.mask) > 0.9


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("vlm", VLMS)
def test_a_pair_learns_answers_and_survives_the_disk(
    vlm: str, decoder: str, tmp_path: Path
) -> None:
    template = TEMPLATE if list(VLMS).index(vlm) % 2 else None
    processor = tiny_processor(vlm, decoder, template)
    model = new_model(processor)
    overfit(model, processor)
    segmenter = Segmenter(ModelAnswering(model.eval(), processor))
    before = [ask(segmenter, one) for one in EXAMPLES]
    for result, one in zip(before, EXAMPLES, strict=True):
        assert is_right(result, one)
    save(model, processor, tmp_path / "saved")
    loaded = load(tmp_path / "saved", "cpu")
    for one, result in zip(EXAMPLES, before, strict=True):
        again = ask(loaded, one)
        assert again.text == result.text
        assert np.array_equal(again.masks[0].mask, result.masks[0].mask)
        assert again.masks[0].score == pytest.approx(result.masks[0].score, abs=1e-5)
    given = loaded.segment(EXAMPLES[0].image, EXAMPLES[0].question, answer="[SEG].")
    assert (len(given.masks), given.text) == (1, ".")
    assert loaded.chat(EXAMPLES[1].image).ask(EXAMPLES[1].question).text == before[1].text
    together = loaded.segment_batch([(one.image, one.question) for one in EXAMPLES])
    assert [one.text for one in together] == [one.text for one in before]


def test_official_models_also_answer_a_seg_in_the_question() -> None:
    processor = tiny_processor("llava", "sam", compat="official")
    model = new_model(processor).eval()
    question = "What is [SEG] the cat [SEG]?"
    result = Segmenter(ModelAnswering(model, processor)).segment(
        EXAMPLES[0].image, question, answer="It [SEG]"
    )
    assert [mask.phrase for mask in result.masks] == ["", "", "It"]
    ours = Segmenter(ModelAnswering(model, tiny_processor("llava", "sam")))
    assert len(ours.segment(EXAMPLES[0].image, question, answer="It [SEG]").masks) == 1


def test_the_page_about_adding_a_model_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it adds can be trained."""
    page = (DOCS / "adding-a-model.md").read_text()
    blocks = re.findall(
        r"```python\n# (?:vision-language model|mask decoder)\n(.*?)```", page, re.S
    )
    assert [len(block.splitlines()) <= 20 for block in blocks] == [True, True]
    for module in (vlm, mask_decoder):
        monkeypatch.setattr(module, "FAMILIES", dict(module.FAMILIES))
    monkeypatch.delitem(mask_decoder.FAMILIES, "sam_hq")
    for block in blocks:
        exec(block, {})
    eyes = EYES | {"model_type": "siglip_vision_model", "vision_use_head": False}
    fields = {"text_config": TEXT, "vision_config": eyes, "image_token_id": IMAGE_ID}
    monkeypatch.setitem(VLMS, "deepseek_vl", fields)
    processor = tiny_processor("deepseek_vl", "sam_hq")
    model = new_model(processor)
    overfit(model, processor)
    assert learnt(model, processor)
