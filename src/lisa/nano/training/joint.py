"""Stage "mind": the language model learns to answer, name and point, end to end with the decoder.

LoRA on the language model, the head, the projector and ``[SEG]`` are trained on answers, on masks,
and on agreement of each ``[SEG]`` prompt with the prompt of the target's name, which the eyes know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lisa.data.prompts import choose, name_question, present_answer
from lisa.data.reasonseg import ReasonSeg
from lisa.data.regions import Region, Scene, Target, example, pick
from lisa.errors import DataError
from lisa.evaluation.metrics import SegmentationMetrics
from lisa.example import Example
from lisa.model.answers import is_present
from lisa.model.interfaces import Batch
from lisa.nano.data.imagenet import words_of_labels
from lisa.nano.data.knowledge import Thing, new_phrasings, taught, things
from lisa.nano.data.photo_questions import Asked, asked_about
from lisa.nano.data.photos import LabelledPhotos, PhotoFolder, labelled_folders
from lisa.nano.data.prompts import NAMING_QUESTIONS, other_words
from lisa.nano.data.questions import Asker, label_example
from lisa.nano.data.sources import Photos
from lisa.nano.data.text_pairs import defined
from lisa.nano.data.views import crop, flip, recolour, whole
from lisa.nano.model.lisa import NanoModel
from lisa.nano.model.processor import LisaProcessor, pad
from lisa.nano.model.segmenter import NanoAnswering
from lisa.nano.training.lora import adapt_language, adapted
from lisa.nano.training.losses import MaskLossWeights, mask_loss, prompt_loss
from lisa.nano.training.stage import warm_up
from lisa.predict import Segmenter
from lisa.training.loop import Losses, Task
from lisa.training.paper import answer_loss

REASONING_SHARE = 0.15  # of pictures that come from the reasoning samples
ASKED_SHARE = 0.35  # of pictures about which questions were written while looking at them
OPENING = 5  # tokens of the assistant's turn before its first word
SILENT_SHARE = 0.1  # of answers that point without naming
LABELLED_SHARE = 0.15  # of pictures with a label and no mask
SIDED = re.compile(r"\b(left|right)\b", re.IGNORECASE)


class MindTask(Task):
    """Answers, masks, and prompts that agree with names."""

    model: NanoModel

    def __init__(self, model: NanoModel, decoder_rate: float = 0.2) -> None:
        adapt_language(model)
        projector = model.vlm.projector
        decoder = [child for name, child in model.decoder.named_children() if name != "tower"]
        new = [model.head, projector.learned, projector.place_embedding]
        vectors = [
            projector.kind_embedding,
            projector.score_embedding,
            model.vlm.seg_input,
            model.vlm.seg_output,
        ]
        super().__init__(
            model, [*adapted(model), *decoder, model.decoder.output_tokens, *new, *vectors]
        )
        model.decoder.neck.semantic_keys.requires_grad_(False)
        model.decoder.neck.context_keys.requires_grad_(False)
        self.decoder_rate = decoder_rate
        self.weights = MaskLossWeights(here=0.0)

    def parameter_groups(self, learning_rate: float) -> list[dict[str, object]]:
        """The decoder has learnt already and goes on more slowly."""
        trained = [(n, p) for n, p in self.named_parameters() if p.requires_grad]
        return [
            {"params": [p for n, p in trained if ".decoder." not in n], "lr": learning_rate},
            {
                "params": [p for n, p in trained if ".decoder." in n],
                "lr": learning_rate * self.decoder_rate,
            },
        ]

    def forward(self, batch: Batch) -> Losses:
        assert batch.labels is not None
        output = self.model(batch)
        losses = {"text": answer_loss(output.logits, batch.labels)}
        if (
            batch.present is None
            or batch.phrase_ids is None
            or batch.masks is None
            or batch.known is None
        ):
            return losses
        with torch.no_grad():
            taught = self.model.phrase_prompts(batch.phrase_ids[batch.present])
        losses["prompt"] = prompt_loss(output.seg_prompts, taught)
        known = batch.known[batch.present]
        if known.any():
            losses |= mask_loss(
                output.masks.select(known), batch.masks[batch.present][known], self.weights
            )
        return losses


def learn_to_name(model: NanoModel, processor: LisaProcessor, steps: int = 500) -> float:
    """Teach the head names without pictures: what follows "The cup." becomes the prompt of "cup".

    The language model is not changed; the prompts are those that the eyes learnt.
    """
    phrases = sorted({*all_names(), *model.config.concepts})
    hidden = torch.cat(
        [named_states(model, processor, phrases[n : n + 64]) for n in range(0, len(phrases), 64)]
    )
    with torch.no_grad():
        phrase_ids = pad([processor.phrase_ids(phrase) for phrase in phrases], -1)
        taught = model.phrase_prompts(phrase_ids.to(model.device))
    order = torch.Generator().manual_seed(0)

    def loss() -> Tensor:
        some = torch.randint(len(phrases), (512,), generator=order)
        return prompt_loss(model.head(hidden[some]), taught[some])

    model.head.requires_grad_(True)
    return warm_up(list(model.head.parameters()), loss, steps, 2e-3)


@torch.no_grad()
def named_states(model: NanoModel, processor: LisaProcessor, phrases: Sequence[str]) -> Tensor:
    """States [N, H] of the language model at the end of "The {phrase}.", where ``[SEG]`` comes."""
    ids = [
        processor.question_ids(phrase)[-OPENING:]
        + processor.answer_ids(present_answer(phrase))[:-1]
        for phrase in phrases
    ]
    padded = pad(ids, 0).to(model.device)
    lengths = torch.tensor([len(row) for row in ids], device=model.device)
    places = torch.arange(padded.shape[1], device=model.device)
    known = (places < lengths[:, None]).long()
    states = model.vlm.language.model(
        inputs_embeds=model.vlm.embed(padded), attention_mask=known, use_cache=False
    ).last_hidden_state
    return states[torch.arange(len(ids), device=model.device), lengths - 1]


def all_names() -> set[str]:
    """Every name, synonym and kind of the everyday things."""
    known = [word for thing in things().values() for word in (thing.name, *thing.synonyms)]
    return {*known, *(word for words in other_words().values() for word in words)}


def mind_stream(
    root: Path, photos: Photos, side: int, count: int, reasoning: bool
) -> Callable[[np.random.Generator], list[Example]]:
    """A maker of samples: one picture and up to ``count`` questions about it."""
    knowledge = taught() if reasoning else defined()
    asker = Asker(knowledge)
    labelled = labelled_folders(root)
    samples = ReasonSeg(root / "reasonseg_nano", "train239") if reasoning else None
    asked = asked_photos(photos) if reasoning else []

    def draw(random: np.random.Generator) -> list[Example]:
        source = random.random()
        if samples is not None and source < REASONING_SHARE:
            return reasoning_sample(samples, int(random.integers(len(samples))), random, side)
        if asked and source < REASONING_SHARE + ASKED_SHARE:
            photographs, index, about = asked[int(random.integers(len(asked)))]
            return asked_sample(photographs[index], about, random, side, count)
        if labelled and source > 1 - LABELLED_SHARE:
            folder = labelled[int(random.integers(len(labelled)))]
            return labelled_sample(folder, knowledge, random, side)
        return asker.ask(photos.draw(random, side), random, count)

    def make(random: np.random.Generator) -> list[Example]:
        return [sometimes_silent(example, random) for example in draw(random)]

    return make


def tune_stream(root: Path, side: int) -> Callable[[np.random.Generator], list[Example]]:
    """A maker of samples: one of the reasoning samples that have a target, in all its wordings."""
    samples = ReasonSeg(root / "reasonseg_nano", "train239")
    present = [index for index in range(len(samples)) if samples[index].mask.any()]
    if not present:
        raise DataError(
            f"no sample of '{root}/reasonseg_nano/train239' has a target; expected some"
        )

    def make(random: np.random.Generator) -> list[Example]:
        index = present[int(random.integers(len(present)))]
        asked = reasoning_sample(samples, index, random, side)[:-1]  # without the name
        return [sometimes_silent(example, random) for example in asked]

    return make


def sometimes_silent(example: Example, random: np.random.Generator) -> Example:
    """One answer in ten about something present only points, as in the paper's evaluation."""
    silent = random.random() < SILENT_SHARE and is_present(example)
    return replace(example, answer="") if silent else example


def asked_photos(
    photos: Photos, held_out: bool = False
) -> list[tuple[PhotoFolder, int, tuple[Asked, ...]]]:
    """Photographs that questions were written about: folder, index, questions.

    Args:
        photos: of all folders.
        held_out: those whose questions training leaves out, instead of the others.
    """
    return [
        (folder, index, about[image["file_name"]])
        for source, folder in photos.folders.items()
        for about in (asked_about(source, held_out),)
        for index, image in enumerate(folder.images)
        if image["file_name"] in about
    ]


def asked_sample(
    scene: Scene, asked: Sequence[Asked], random: np.random.Generator, side: int, count: int
) -> list[Example]:
    """At most ``count`` of the questions about a whole photograph, a phrasing each."""
    square = whole_view(scene, [text for one in asked for text in one.texts], random, side)
    image = Image.fromarray(square.image)
    found = []
    for one in pick(asked, count, random):
        target = Target(one.target, square.union(one.target))
        if target.present != one.absent:  # else too small to be seen at this size
            found.append(example(image, choose(one.texts, random), target))
    return found


def whole_view(scene: Scene, texts: Sequence[str], random: np.random.Generator, side: int) -> Scene:
    """A whole photograph in other light; mirrored now and then, unless texts say left or right."""
    if random.random() < 0.5 and not SIDED.search(" ".join(texts)):
        scene = flip(scene)
    return crop(replace(scene, image=recolour(scene.image, random)), whole(scene), side)


def reasoning_sample(
    samples: ReasonSeg, index: int, random: np.random.Generator, side: int
) -> list[Example]:
    """All phrasings of one sample and its name; mirrored where no text says left or right."""
    sample, texts = samples[index], samples.questions(index)
    region = Region(sample.phrase, sample.mask)
    scene = Scene(np.asarray(sample.image), (region,), (), False)
    square = whole_view(scene, [*texts, sample.phrase], random, side)
    image = Image.fromarray(square.image)
    target = Target(sample.phrase, square.union(sample.phrase))
    if sample.mask.any() and not target.present:
        return []  # too small to be seen at this size
    questions = [*texts, name_question(sample.phrase, random)]
    return [example(image, question, target) for question in questions]


def labelled_sample(
    folder: LabelledPhotos,
    knowledge: Mapping[str, Thing],
    random: np.random.Generator,
    side: int,
) -> list[Example]:
    """Questions about what a whole photograph shows, in words the language model knows."""
    pixels, label = folder[int(random.integers(len(folder)))]
    names = everyday_names(label.lower(), knowledge)
    if not names:
        return []
    image = Image.fromarray(recolour(pixels, random)).resize(
        (side, side), Image.Resampling.BILINEAR
    )
    examples = [label_example(image, names[0], choose(NAMING_QUESTIONS["middle"], random))]
    for name in names[:2]:
        asked = [name_question(name, random)]
        asked += [text for _, text in pick(knowledge[name].questions, 2, random)]
        examples += [label_example(image, name, question) for question in asked]
    return examples


def everyday_names(label: str, knowledge: Mapping[str, Thing]) -> list[str]:
    """The known things that a label names, the closest first."""
    words = dict.fromkeys((label, *words_of_labels().get(label, ())))
    return [word for word in words if word in knowledge]


def held_out_questions(root: Path, reasoning: bool, count: int = 24) -> list[Example]:
    """Questions that training leaves out about whole photographs that it leaves out."""
    photos, asker = Photos(root, "held-out"), Asker(new_phrasings())
    random = np.random.default_rng(0)
    asked: list[Example] = []
    for name in ("coco_union", "voc_animals", "ccp"):
        folder = photos.folders.get(name, ())
        for scene in (folder[n] for n in range(len(folder))):
            kind = asker.implicit if reasoning else asker.named
            found = kind(scene, Image.fromarray(scene.image), random)
            asked += [found] if found else []
    return asked[:: max(1, len(asked) // count)]


def iou_by_question(
    model: NanoModel, processor: LisaProcessor, asked: Sequence[Example]
) -> dict[str, float]:
    """What a user would get: mean IoU of generated answers, and how often they name the target."""
    segmenter = Segmenter(NanoAnswering(model, processor))
    results = [segmenter.segment(example.image, example.question) for example in asked]
    metrics = SegmentationMetrics()
    for result, known in zip(results, asked, strict=True):
        metrics.update(result.mask, known.mask, answered=bool(result.masks))
    named = [example.phrase in result.text for result, example in zip(results, asked, strict=True)]
    return {"val_giou": metrics.compute().gIoU, "val_named": float(np.mean(named))}
