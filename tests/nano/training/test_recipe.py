"""The whole recipe on a tiny model and a tiny data folder, and the files that it leaves."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from helpers.tiny_model import write_starting_model
from helpers.training_data import SIDE, SOURCES, write_training_data
from lisa.checkpoints.checkpoint import read_file
from lisa.checkpoints.directory import build
from lisa.checkpoints.packed import assemble
from lisa.data.stream import Stream
from lisa.errors import DataError, LisaError
from lisa.model.interfaces import Batch
from lisa.model.lisa import LisaModel
from lisa.nano.data import text_pairs
from lisa.nano.data.imagenet import imagenet_classes
from lisa.nano.data.sources import SKETCHED, Photos
from lisa.nano.model import projector
from lisa.nano.model.processor import LisaProcessor
from lisa.nano.training import recipe, symbolic
from lisa.nano.training.grounding import EyesTask
from lisa.nano.training.joint import MindTask, mind_stream
from lisa.nano.training.lora import LORA
from lisa.nano.training.recipe import (
    ASKED,
    DEFINITIONS,
    FROZEN_FILES,
    KINDS,
    NAMES_ONLY,
    SHARED,
    STAGES,
    split_learnt,
    starting_model,
    take_over,
    train,
    write_model,
)
from lisa.nano.training.retrieval import RecallTask
from lisa.nano.training.stage import Run
from lisa.nano.training.symbolic import WordsTask

TRIAL = 0.0016  # of the full steps: 4 for the eyes
LEARNT_FILES = ("lisa", "adapter")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_starting_model(tmp_path_factory.mktemp("source") / "tiny")


@pytest.fixture(scope="module", autouse=True)
def tiny_recipe(source: Path) -> Iterator[None]:
    """The recipe from a tiny model, on two small pictures a step, with a short warming up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "EMBEDDED", str(source))
        patch.setattr(recipe, "EYES", replace(recipe.EYES, pictures=2))
        patch.setattr(recipe, "WORDS", replace(recipe.WORDS, pictures=2))
        patch.setattr(recipe, "MIND", replace(recipe.MIND, pictures=2))
        patch.setattr(recipe, "EYES_SIDE", SIDE // 2)
        patch.setattr(symbolic, "MEASURED", 3)
        patch.setattr(
            projector, "NAME_TOKENS", 64
        )  # the tiny tokenizer spells names letter by letter
        few = text_pairs.glosses()[::200]
        patch.setattr(text_pairs, "glosses", lambda: few)
        patch.setattr(recipe, "learn_words", partial(recipe.learn_words, steps=2))
        patch.setattr(recipe, "learn_to_name", partial(recipe.learn_to_name, steps=2))
        yield


def trial(data: Path, out: Path, **changes: Any) -> Path:
    return train(data, out, device="cpu", steps_scale=TRIAL, **changes)


def a_run(data: Path, out: Path, kind: str = "release") -> Run:
    out.mkdir(parents=True, exist_ok=True)
    return Run(data, out, 0, torch.device("cpu"), True, TRIAL, KINDS[kind])


# From beginning to end


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The out folder of a run that went through."""
    out = tmp_path_factory.mktemp("runs") / "trial"
    assert trial(data, out) == out / "model"
    return out


def test_a_run_leaves_a_model_that_loads(finished: Path, data: Path) -> None:
    names = {path.name for path in (finished / "model").iterdir()}
    weights = {f"{name}.safetensors" for name in (*FROZEN_FILES, *LEARNT_FILES)}
    assert names == weights | {"config.json", "tokenizer.json"}
    model, processor = build(finished / "model", "cpu")
    assert processor.config.image_size == SIDE  # the eyes were trained at another
    assert processor.config.concepts == Photos(data).names
    assert processor.config.trained_on == [
        *SOURCES,
        "stamps",
        SKETCHED,
        "imagelevel_imagenet1000",
        "knowledge",
        DEFINITIONS,
        ASKED,
        "reasonseg_nano/train239",
    ]
    learnt = read_file(finished / "mind.safetensors")
    head = learnt["model.head.layers.0.weight"]
    torch.testing.assert_close(model.head.layers[0].weight, head, atol=1e-3, rtol=1e-3)


def test_published_parts_are_copied_byte_for_byte(finished: Path, source: Path) -> None:
    for name in ("tokenizer.json", *(f"{name}.safetensors" for name in FROZEN_FILES)):
        assert (finished / "model" / name).read_bytes() == (source / name).read_bytes()


def test_the_report_holds_its_pictures_and_figures(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert 'src="data:image/png;base64,' in page
    assert page.count("src=") == page.count('src="data:')  # nothing to fetch
    assert "teacher-forced" in page and "gIoU" in page
    assert "reasonseg_nano/train239" in page


@pytest.mark.parametrize(
    ("stage", "tags"),
    [
        ("eyes", {"loss", "loss_dice", "loss_denied", "val_iou", "val_iou_ccp", "val_absent"}),
        ("self", {"loss", "loss_dice", "val_iou"}),
        ("words", {"loss", "loss_text", "loss_prompt", "val_phrasings", "val_things"}),
        ("mind", {"loss", "loss_text", "loss_prompt", "val_giou", "val_named"}),
    ],
)
def test_losses_and_scores_are_in_tensorboard_files(
    finished: Path, stage: str, tags: set[str]
) -> None:
    plotted: set[str] = set()
    for path in (finished / stage).rglob("events.out.tfevents.*"):
        plotted |= set(EventAccumulator(str(path)).Reload().Tags()["scalars"])
    assert {f"train/{tag}" for tag in tags} <= plotted


def test_a_second_call_trains_nothing(
    finished: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a finished stage is trained again")

    for name in (
        "run_stage",
        "learn_words",
        "learn_to_name",
        "learn_to_recall",
    ):  # nor is it calibrated again
        monkeypatch.setattr(recipe, name, refuse)
    monkeypatch.setattr(recipe, "write_report", lambda *parts: None)
    before = {path.name: path.read_bytes() for path in (finished / "model").iterdir()}
    trial(data, finished)
    after = {path.name: path.read_bytes() for path in (finished / "model").iterdir()}
    assert after == before


# Where it starts


def test_training_starts_from_the_published_parts(source: Path, data: Path) -> None:
    photos = Photos(data)
    model, processor = starting_model(photos, seed=0)
    state = model.state_dict()
    published = assemble(
        {
            k: v
            for name in FROZEN_FILES
            for k, v in read_file(source / f"{name}.safetensors").items()
        }
    )
    theirs = {name for name in state if name.startswith(("vlm.language.", "decoder.tower."))}
    assert published.keys() == theirs - {"vlm.language.lm_head.weight"}
    assert all(value.equal(state[name]) for name, value in published.items())
    assert processor.config is model.config
    assert model.config.concepts == photos.names


def test_the_names_it_writes_pictures_with_are_those_of_photos_and_classes(data: Path) -> None:
    photos = Photos(data)
    model, processor = starting_model(photos, seed=0)
    projector = model.vlm.projector
    for name, row in [
        (photos.names[2], projector.concept_ids[2]),
        (imagenet_classes()[7].name, projector.class_ids[7]),
        (",", projector.comma_id[None]),
    ]:
        ids = [token_id for token_id in row.tolist() if token_id >= 0]
        assert processor.tokenizer.decode(ids).strip() == name


def test_the_seed_decides_the_new_weights_only(data: Path) -> None:
    photos = Photos(data)
    first, same, other = (starting_model(photos, seed)[0].state_dict() for seed in (1, 1, 2))
    assert all(value.equal(same[name]) for name, value in first.items())
    differs = {name for name, value in first.items() if not value.equal(other[name])}
    assert "head.layers.0.weight" in differs
    assert not any(name.startswith(("vlm.language.", "decoder.tower.")) for name in differs)


def test_a_schedule_is_scaled_but_never_empty(data: Path, tmp_path: Path) -> None:
    full = recipe.EYES
    half = replace(a_run(data, tmp_path), steps_scale=0.5).schedule(full)
    assert (half.steps, half.save_every, half.warmup) == (1250, full.save_every, full.warmup)
    least = replace(a_run(data, tmp_path), steps_scale=1e-9).schedule(full)
    assert (least.steps, least.save_every, least.warmup) == (2, 2, 1)
    assert least.learning_rate == full.learning_rate


# What ships


@pytest.fixture
def learnt(data: Path) -> tuple[LisaModel, LisaProcessor]:
    """A model whose every trained number has moved, the low-rank factors among them."""
    model, processor = starting_model(Photos(data), seed=0)
    tasks = EyesTask(model), WordsTask(model), RecallTask(model), MindTask(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in {p for task in tasks for p in task.parameters() if p.requires_grad}:
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model, processor


def test_every_learnt_number_is_written_once(
    learnt: tuple[LisaModel, LisaProcessor], source: Path
) -> None:
    model = learnt[0]
    ours, adapter = split_learnt(model)
    state = model.state_dict()
    frozen = {key for name in FROZEN_FILES for key in read_file(source / f"{name}.safetensors")}
    plain = {key.replace(".base_layer.", ".") for key in state if ".lora_" not in key}
    assert ours.keys() == plain - frozen - {"vlm.language.lm_head.weight"}
    assert len(adapter) == sum(".lora_" in key for key in state) > 0
    assert not ours.keys() & adapter.keys()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    written = sum(value.numel() for value in (*ours.values(), *adapter.values()))
    kept = sum(value.numel() for key, value in state.items() if key in ours and is_kept(model, key))
    assert written == trained + kept
    floats = [value for value in (*ours.values(), *adapter.values()) if value.is_floating_point()]
    assert all(value.dtype == torch.float16 for value in floats)


def is_kept(model: LisaModel, key: str) -> bool:
    """Whether a tensor of our own is none that the last stage trains."""
    parameters = dict(model.named_parameters())
    return key not in parameters or not parameters[key].requires_grad


def test_low_rank_factors_multiply_to_what_was_added(
    learnt: tuple[LisaModel, LisaProcessor],
) -> None:
    model = learnt[0]
    adapter = split_learnt(model)[1]
    layer: Any = model.vlm.language.model.layers[1].mlp.up_proj
    name = "vlm.language.model.layers.1.mlp.up_proj.weight"
    added = adapter[f"{name}.lora_B"].float() @ adapter[f"{name}.lora_A"].float()
    expected = layer.get_delta_weight("default")
    assert LORA.lora_alpha != LORA.r  # so that a forgotten scale is seen
    torch.testing.assert_close(added, expected, atol=2e-3, rtol=2e-2)


def test_what_ships_answers_like_the_model_in_memory(
    learnt: tuple[LisaModel, LisaProcessor], data: Path, tmp_path: Path
) -> None:
    model, processor = learnt
    photos = Photos(data)
    out = write_model(model, processor, a_run(data, tmp_path, kind="zero-shot"), photos)
    loaded, its_processor = build(out, "cpu")
    batch = one_batch(data, processor)
    again = one_batch(data, its_processor)
    assert torch.equal(batch.input_ids, again.input_ids)
    with torch.no_grad():
        expected, actual = model(batch), loaded(again)
    close = partial(torch.testing.assert_close, rtol=0.02)
    close(actual.logits, expected.logits, atol=0.02 * spread(expected.logits))
    close(actual.seg_prompts, expected.seg_prompts, atol=0.02 * spread(expected.seg_prompts))
    masks = expected.masks.low_res_masks
    close(actual.masks.low_res_masks, masks, atol=0.02 * spread(masks))
    assert spread(masks) > 0.01  # there is something to compare
    fields = json.loads((out / "config.json").read_text())
    labelled = "imagelevel_imagenet1000"
    assert fields["trained_on"] == [
        *SOURCES,
        "stamps",
        SKETCHED,
        labelled,
        NAMES_ONLY,
        DEFINITIONS,
    ]


def one_batch(data: Path, processor: LisaProcessor) -> Batch:
    stream = Stream(mind_stream(data, Photos(data), SIDE, 3, True), 100, 0)
    return processor.encode([example for i in range(4) for example in stream[i]])


def spread(values: Tensor) -> float:
    return float(values.std())


# What cannot work, and what is left alone


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        (
            {"stage": "ears"},
            LisaError,
            "there is no stage 'ears'; expected one of eyes, self, words, mind, recall",
        ),
        ({"steps_scale": 0.0}, LisaError, "steps-scale is 0.0; expected more than 0"),
        ({"steps_scale": -1.0}, LisaError, "steps-scale is -1.0; expected more than 0"),
        ({"steps_scale": float("nan")}, LisaError, "steps-scale is nan; expected more than 0"),
        ({"steps_scale": float("inf")}, LisaError, "steps-scale is inf; expected more than 0"),
        (
            {"stage": "tune"},
            LisaError,
            "there is no stage 'tune'; expected one of eyes, self, words, mind, recall",
        ),
        (
            {"kind": "large"},
            LisaError,
            "there is no kind 'large'; expected one of release, zero-shot, ft239",
        ),
        (
            {"kind": "ft239", "start": Path("nowhere")},
            LisaError,
            "'nowhere' is not the folder of a finished zero-shot run",
        ),
        ({"stage": "words"}, LisaError, "stage 'words' goes on from '{out}/eyes.safetensors'"),
        ({"stage": "mind"}, LisaError, "stage 'mind' goes on from '{out}/eyes.safetensors'"),
        ({"device": "toaster"}, LisaError, "device 'toaster' cannot be used"),
        (
            {"data": Path("nowhere")},
            DataError,
            "no training data in 'nowhere'; expected the folders",
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_cannot_work_is_said_in_one_line(
    data: Path, tmp_path: Path, changes: dict[str, Any], kind: type[LisaError], message: str
) -> None:
    out = tmp_path / "out"
    with pytest.raises(kind) as caught:
        train(**{"data": data, "out": out, **changes})
    text = str(caught.value)
    assert text.startswith(message.format(out=out))
    assert "\n" not in text


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages that are run or reloaded, while nothing is trained or written."""
    stages: list[str] = []
    monkeypatch.setattr(recipe, "starting_model", lambda *parts: (None, None))
    monkeypatch.setattr(recipe, "run_or_reload", lambda name, *parts: stages.append(name))
    monkeypatch.setattr(recipe, "write_model", lambda model, processor, run, photos: run.out)
    monkeypatch.setattr(recipe, "write_report", lambda *parts: None)
    monkeypatch.setattr(recipe, "calibrate_once", lambda *parts: None)
    return stages


def test_missing_samples_are_found_before_anything_is_trained(
    data: Path, tmp_path: Path, done: list[str]
) -> None:
    shutil.copytree(data / "photos", tmp_path / "data" / "photos")
    with pytest.raises(DataError, match="train239"):
        train(tmp_path / "data", tmp_path / "out")
    assert done == []
    train(tmp_path / "data", tmp_path / "out", stage="eyes")
    train(tmp_path / "data", tmp_path / "out", kind="zero-shot")
    assert done == ["eyes", *STAGES]


def test_the_tuned_kind_has_one_stage_more(data: Path, tmp_path: Path, done: list[str]) -> None:
    train(data, tmp_path, kind="ft239")
    assert done == [*SHARED, "tune", "recall"]


def test_the_tuned_kind_is_trained_on_from_the_stages_before(
    finished: Path, data: Path, tmp_path: Path
) -> None:
    for name in SHARED:
        shutil.copy(finished / f"{name}.safetensors", tmp_path)
    trial(data, tmp_path, kind="ft239", stage="tune")
    before, after = (read_file(tmp_path / f"{name}.safetensors") for name in ("mind", "tune"))
    assert before.keys() == after.keys()
    assert not all(value.equal(before[name]) for name, value in after.items())
    seen = build(tmp_path / "model", "cpu")[1].config.trained_on
    assert seen[-3:] == [NAMES_ONLY, DEFINITIONS, "reasonseg_nano/train239 (targets present)"]


def write_run(folder: Path, trained_on: list[str]) -> Path:
    """What a finished run leaves, as far as another one looks at it."""
    shutil.copytree(recipe.EMBEDDED, folder / "model")
    fields = json.loads((folder / "model" / "config.json").read_text())
    (folder / "model" / "config.json").write_text(json.dumps(fields | {"trained_on": trained_on}))
    for name in STAGES:
        (folder / f"{name}.safetensors").write_text(f"zero-shot {name}")
    return folder


def test_the_stages_of_a_zero_shot_run_are_taken_over(
    data: Path, tmp_path: Path, done: list[str]
) -> None:
    start = write_run(tmp_path / "zero-shot", ["coco_union", NAMES_ONLY])
    out = tmp_path / "out"
    train(data, out, kind="ft239", start=start)
    assert (out / "mind.safetensors").read_text() == "zero-shot mind"
    (out / "mind.safetensors").write_text("its own")
    take_over(start, out)
    assert (out / "mind.safetensors").read_text() == "its own"


@pytest.mark.parametrize("trained_on", [["knowledge"], []])
def test_only_a_zero_shot_run_is_taken_over(tmp_path: Path, trained_on: list[str]) -> None:
    start = write_run(tmp_path / "release", trained_on)
    with pytest.raises(LisaError, match="is not the folder of a finished zero-shot run"):
        take_over(start, tmp_path)


def test_one_stage_goes_on_from_the_finished_ones_before_it(
    data: Path, tmp_path: Path, done: list[str]
) -> None:
    train(data, tmp_path, stage="eyes")
    assert done == ["eyes"]
    for name in ("eyes", "self"):
        (tmp_path / f"{name}.safetensors").touch()
    with pytest.raises(LisaError, match=r"stage 'mind' goes on from '.*words.safetensors'"):
        train(data, tmp_path, stage="mind")
    (tmp_path / "words.safetensors").touch()
    train(data, tmp_path, stage="mind")
    assert done == ["eyes", "eyes", "self", "words", "mind"]


@pytest.mark.parametrize(
    ("stage", "left"),
    [
        (None, set()),
        ("eyes", set()),
        ("self", {"eyes", "eyes.safetensors"}),
        ("words", {"eyes", "eyes.safetensors", "self", "self.safetensors"}),
    ],
)
def test_starting_anew_removes_what_the_stages_left_and_nothing_else(
    data: Path, tmp_path: Path, done: list[str], stage: str | None, left: set[str]
) -> None:
    (tmp_path / "calibration.json").touch()
    for name in STAGES:
        (tmp_path / name / "checkpoint-2").mkdir(parents=True)
        (tmp_path / f"{name}.safetensors").touch()
    (tmp_path / "notes.txt").touch()
    train(data, tmp_path, resume=False, stage=stage)
    assert {path.name for path in tmp_path.iterdir()} == left | {"notes.txt"}
