"""Stage "words": the language model learns to choose among names before it sees a picture.

Imagined scenes become visual tokens as the projector would write them; LoRA on the language model,
the head and ``[SEG]`` are trained on answers, and on agreement of each ``[SEG]`` prompt with the
prompt of the target's name, which the eyes know. No pixel and no mask is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lisa.data.prompts import absent_answer, present_answer
from lisa.example import Example
from lisa.model.config import LisaConfig
from lisa.model.interfaces import Batch
from lisa.model.lisa import Answer
from lisa.nano.data.imagenet import imagenet_classes
from lisa.nano.data.knowledge import Thing, new_phrasings, taught, things
from lisa.nano.data.prompts import other_words
from lisa.nano.data.symbolic import Asked, Imagination, ImaginedScene, Seen
from lisa.nano.data.text_pairs import defined
from lisa.nano.model.candidates import collect, first_pass
from lisa.nano.model.lisa import NanoModel
from lisa.nano.model.processor import LisaProcessor, pad
from lisa.nano.model.projector import CLASS, CONCEPT, FoundNames, SemanticProjector, mean_embeddings
from lisa.nano.model.retriever import LEAST_SEEN
from lisa.nano.model.vlm import Prefix
from lisa.nano.training.lora import adapt_language, adapted
from lisa.nano.training.losses import prompt_loss
from lisa.training.loop import Losses, Task
from lisa.training.paper import answer_loss

CELLS = 12  # imagined things are found at one of CELLS x CELLS locations
NO_PICTURE = Image.new("RGB", (1, 1))  # an imagined scene has none
MEASURED = 48  # scenes of a validation
NOT_SEEN = (-8.0, math.log(LEAST_SEEN))  # what the eyes say about a name that is nowhere


@dataclass
class ImaginedBatch:
    """Imagined scenes as tensors: K names a scene, concepts first, then classes."""

    text: Batch  # without pixels and masks
    ids: Tensor  # [B, K, L] tokens of the names, padded with -1; a free slot is all -1
    cells: Tensor  # [B, K] where each is, row by row
    scores: Tensor  # [B, K]
    shares: Tensor  # [B, K, grid, grid] how much of each cell of the projector's grid it covers

    def to(self, device: torch.device | str) -> ImaginedBatch:
        """The same batch on ``device``."""
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})


class WordsTask(Task):
    """Answers about imagined scenes, and prompts that agree with names."""

    model: NanoModel

    def __init__(self, model: NanoModel) -> None:
        adapt_language(model)
        projector = model.vlm.projector
        super().__init__(
            model,
            [
                *adapted(model),
                model.head,
                projector.place_embedding,
                projector.kind_embedding,
                projector.score_embedding,
                model.vlm.seg_input,
                model.vlm.seg_output,
            ],
        )

    def forward(self, batch: ImaginedBatch) -> Losses:  # type: ignore[override]
        model, text = self.model, batch.text
        assert text.labels is not None and text.present is not None
        assert text.phrase_ids is not None
        hidden = model.vlm.hidden_states(text, visual_tokens(model, batch))
        logits, seg_prompts, _ = model.read(hidden, text)
        with torch.no_grad():
            named = model.phrase_prompts(text.phrase_ids[text.present])
        return {
            "text": answer_loss(logits, text.labels),
            "prompt": prompt_loss(seg_prompts, named),
        }


def visual_tokens(model: NanoModel, batch: ImaginedBatch) -> Tensor:
    """Imagined scenes as the projector would write them: [B, V, H]."""
    projector, embed = model.vlm.projector, model.vlm.embed
    names = mean_embeddings(embed, batch.ids.flatten(0, 1)).unflatten(0, batch.ids.shape[:2])
    weights = batch.scores[..., None, None] * batch.shares
    seen = torch.einsum("bkhw,bkd->bdhw", weights, names)
    seen = seen / weights.sum(1, keepdim=True).clamp(min=1)
    places = projector.place_tokens(seen)
    return torch.cat([places, projector.spell(found_names(projector, batch), embed)], 1)


def found_names(projector: SemanticProjector, batch: ImaginedBatch) -> FoundNames:
    """The names as if the eyes had found them."""
    where = projector.place_vectors(CELLS, CELLS)[batch.cells]
    concepts = min(projector.found[0], batch.ids.shape[1])
    kinds = torch.full((batch.ids.shape[1],), CLASS, device=batch.ids.device)
    kinds[:concepts] = CONCEPT
    return FoundNames(batch.ids, where, batch.scores, kinds)


# ------------------------------------------------------------------ scenes -> batch


def encode_scenes(scenes: Sequence[ImaginedScene], processor: LisaProcessor) -> ImaginedBatch:
    """Imagined scenes, a row each."""
    rows = [[as_example(asked) for asked in scene.asked] for scene in scenes]
    text = processor.encode_text(rows)
    asked = [one for scene in scenes for one in scene.asked]
    text.phrase_ids = pad([processor.phrase_ids(one.phrase) for one in asked], -1)
    text.present = torch.tensor([one.present for one in asked])
    slots = [reported(scene, processor.config) for scene in scenes]
    names = [[name_ids(seen, processor) for seen in row] for row in slots]
    longest = max(len(ids) for row in names for ids in row)
    grid = processor.config.grid
    return ImaginedBatch(
        text=text,
        ids=torch.stack([pad([*row, [-1] * longest], -1)[:-1] for row in names]),
        cells=torch.tensor([[cell(seen) for seen in row] for row in slots]),
        scores=torch.tensor([[seen.score if seen else 0.0 for seen in row] for row in slots]),
        shares=torch.stack([torch.stack([share(seen, grid) for seen in row]) for row in slots]),
    )


def as_example(asked: Asked) -> Example:
    """A question with its answer; it points unless what is meant is absent."""
    answer = (present_answer if asked.present else absent_answer)(asked.phrase)
    masks = None if asked.present else np.zeros((0, 1, 1), bool)
    return Example(NO_PICTURE, asked.question, answer, masks, phrase=asked.phrase)


def reported(scene: ImaginedScene, config: LisaConfig) -> list[Seen | None]:
    """One for each slot of the projector."""
    concepts = [*scene.concepts, *[None] * (config.found_concepts - len(scene.concepts))]
    return [*concepts, *scene.classes, *[None] * (config.found_classes - len(scene.classes))]


def name_ids(seen: Seen | None, processor: LisaProcessor) -> list[int]:
    """Tokens of a name; of a free slot none."""
    return processor.phrase_ids(seen.name) if seen else []


def cell(seen: Seen | None) -> int:
    """Where on the eyes' map a thing is."""
    return int(seen.y * CELLS) * CELLS + int(seen.x * CELLS) if seen else 0


def share(seen: Seen | None, grid: int) -> Tensor:
    """How much of each cell a square thing covers: [grid, grid]."""
    if seen is None:
        return torch.zeros(grid, grid)
    edges = torch.arange(grid) / grid

    def along(centre: float) -> Tensor:
        low, high = centre - seen.size / 2, centre + seen.size / 2
        return ((edges + 1 / grid).clamp(max=high) - edges.clamp(min=low)).clamp(min=0) * grid

    return along(seen.y)[:, None] * along(seen.x)


# ------------------------------------------------------------------ stream and measure


def words_stream(
    config: LisaConfig, count: int, reasoning: bool
) -> Callable[[np.random.Generator], list[ImaginedScene]]:
    """A maker of samples: one imagined scene with ``count`` questions."""
    imagination = imagine(taught() if reasoning else defined(), config)
    return lambda random: [imagination.scene(random, count)]


def imagine(knowledge: dict[str, Thing], config: LisaConfig) -> Imagination:
    """Imagination with the projector's slots."""
    return Imagination(
        knowledge,
        other_words(),
        imagenet_classes(),
        config.found_concepts,
        config.found_classes,
    )


def held_out_scenes(config: LisaConfig) -> dict[str, list[ImaginedScene]]:
    """Scenes of eight things, seen clearly, with one implicit question each that was never taught.

    "phrasings": new questions about taught things; "things": questions about things that no
    question was taught about.
    """
    known = things()
    new = {
        "phrasings": new_phrasings(),
        "things": {name: thing for name, thing in known.items() if thing.held_out},
    }
    return {name: eight_things(part, known, name == "things") for name, part in new.items()}


def eight_things(
    asked: dict[str, Thing], known: dict[str, Thing], all_new: bool
) -> list[ImaginedScene]:
    """Scenes of eight things, one of ``asked`` asked for; ``all_new``: the others are, too."""
    random = np.random.default_rng(0)
    names, others = list(asked), list(asked if all_new else known)
    scenes = []
    for _ in range(MEASURED):
        target = names[int(random.integers(len(names)))]
        rest = [name for name in random.permutation(others)[:8].tolist() if name != target][:7]
        order = random.permutation([target, *rest]).tolist()
        seen = tuple(
            Seen(name, random.random(), random.random(), 0.3, 0.9 - 0.05 * n)
            for n, name in enumerate(order)
        )
        questions = asked[target].questions
        text = questions[int(random.integers(len(questions)))][1]
        scenes.append(ImaginedScene(seen, (), (Asked(text, target, True),)))
    return scenes


@torch.no_grad()
def choices(
    model: NanoModel, processor: LisaProcessor, scenes: dict[str, list[ImaginedScene]]
) -> dict[str, float]:
    """How often the right one of eight things is named in a generated answer."""
    return {
        f"val_{name}": float(
            np.mean(
                [
                    said.startswith(present_answer(scene.asked[0].phrase))
                    for scene, said in zip(part, answers(model, processor, part), strict=True)
                ]
            )
        )
        for name, part in scenes.items()
    }


def answers(
    model: NanoModel, processor: LisaProcessor, scenes: Sequence[ImaginedScene]
) -> list[str]:
    """What is said to the first question about each scene."""
    batch = encode_scenes(scenes, processor).to(model.device)
    prefix_ids = torch.tensor([processor.prefix_ids()] * len(scenes), device=model.device)
    prefix = model.vlm.encode_prefix(prefix_ids, visual_tokens(model, batch))
    rows = torch.arange(len(scenes), device=model.device)
    questions = [processor.question_ids(scene.asked[0].question) for scene in scenes]
    given = recalled(model, processor, scenes, prefix)
    started = [Answer(one, max_new_tokens=10) for one in given]
    said = model.answer(prefix, rows, questions, started, processor.end_token_id)
    return [processor.read(one.token_ids) for one in said]


def recalled(
    model: NanoModel, processor: LisaProcessor, scenes: Sequence[ImaginedScene], prefix: Prefix
) -> list[list[int] | None]:
    """The answers (ids) that are recalled; None where the language model answers freely."""
    recall = model.vlm.recall
    if recall is None:
        return [None] * len(scenes)
    names = processor.config.recall_names
    seen = torch.stack([as_seen(scene, names) for scene in scenes]).to(model.device)
    rows = torch.arange(len(scenes), device=model.device)
    questions = [scene.asked[0].question for scene in scenes]
    said = list(map(present_answer, names))
    first = first_pass(model.vlm, processor, prefix, rows, questions, seen, said)
    found = recall.choose(collect(model.vlm, first))
    return [None if one is None else processor.answer_ids(said[one.name]) for one in found]


def as_seen(scene: ImaginedScene, names: Sequence[str]) -> Tensor:
    """What the eyes would say about each name [K, SEEN]."""
    seen = torch.tensor([NOT_SEEN] * len(names))
    for one in scene.concepts:
        if one.name in names:
            sure = torch.tensor(one.score)
            seen[names.index(one.name)] = torch.stack([sure.logit(), sure.log()])
    return seen
