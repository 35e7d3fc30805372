"""The whole model against records of the official LISA on the small random checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

from helpers.golden_files import GOLDEN, read_arrays, read_json, stated, tolerance
from lisa.checkpoints.directory import build
from lisa.checkpoints.official_names import LISA_NAMES, renamed
from lisa.model.chat_templates import TEMPLATES, encode_row
from lisa.model.config import OFFICIAL
from lisa.model.interfaces import Batch, Output
from lisa.model.lisa import LisaModel
from lisa.model.mask_decoder import SURE
from lisa.model.processor import FullSizeProcessor
from lisa.training.optim import Recipe, make_optimizer
from lisa.training.paper import answer_loss, official_mask_loss, prepare
from lisa.training.presets import LossWeights

LEAST_NORM = 1e-3  # of gradients that are more than rounding


@dataclass
class Loaded:
    """The converted checkpoint."""

    directory: Path
    model: LisaModel
    processor: FullSizeProcessor


@pytest.fixture
def loaded(official: Path) -> Loaded:
    """As users load it; tests may change it.

    Attention is computed step by step, as in the official code: fused, its rounding can tip a ReLU.
    """
    model, processor = build(official, "cpu")
    for part in (model.decoder.model, model.vlm.model):
        part.set_attn_implementation("eager")
    assert isinstance(processor, FullSizeProcessor)
    return Loaded(official, model, processor)


def close(ours: Any, name: str, expected: np.ndarray, quantity: str) -> None:
    """Within what the manifest states for a quantity of a file."""
    ours = ours.detach().numpy() if isinstance(ours, Tensor) else ours
    np.testing.assert_allclose(ours, expected, err_msg=quantity, **tolerance(name, quantity))


def recorded_batch(
    loaded: Loaded, folder: str, images: list[str], texts: list[str], arrays: dict[str, Any]
) -> Batch:
    """The batch of a record, made from its pictures and conversations."""
    processor, config = loaded.processor, loaded.model.config
    template = TEMPLATES[read_json("model/summary.json")["conv_type"]]
    pictures = processor.encode_pictures([read_image(f"{folder}/{name}") for name in images])
    for seen, expected in zip(pictures.vlm_inputs or [], arrays["images_clip"], strict=True):
        np.testing.assert_array_equal(seen["pixel_values"][0], expected)
    owners = np.repeat(np.arange(len(images)), np.diff(arrays["offset"]))
    rows = [encode_row(text, template, processor.voice.tokenizer) for text in texts]
    width = arrays["input_ids"].shape[1]  # training cuts what is too long
    rows = [row.cut(width, config.seg_token_id, silently=True) for row in rows]
    batch = processor.encode_rows(pictures, list(zip(owners.tolist(), rows, strict=True)))
    batch.sizes = [tuple(size) for size in arrays["original_size_list"].tolist()]
    masks = [arrays[f"gt_masks_{number}"] for number in range(len(images))]
    batch.full_masks = list(map(torch.from_numpy, masks))
    return batch


def read_image(name: str) -> PIL.Image.Image:
    return PIL.Image.open(GOLDEN / name).convert("RGB")


def losses(loaded: Loaded, output: Output, batch: Batch, record: dict[str, Any]) -> Any:
    """The official losses by their names, with the record's weights."""
    weights = LossWeights(
        bce=record.get("bce_loss_weight", LossWeights.bce),
        dice=record.get("dice_loss_weight", LossWeights.dice),
    )
    assert batch.labels is not None and batch.full_masks is not None
    predicted = loaded.processor.predicted_masks(output, batch)
    parts = official_mask_loss(predicted, batch.full_masks, weights)
    parts["mask_loss"] = parts["mask_bce_loss"] + parts["mask_dice_loss"]
    parts["ce_loss"] = answer_loss(output.logits, batch.labels) * record.get("ce_loss_weight", 1)
    parts["loss"] = parts["ce_loss"] + parts["mask_loss"]
    return parts


def compare_outputs(
    loaded: Loaded, batch: Batch, output: Output, name: str, arrays: dict[str, Any]
) -> None:
    """States, prompts and masks, whatever of them was recorded."""
    with torch.no_grad():
        hidden = loaded.model.vlm.hidden_states(batch)
    close(hidden[:, ::16], name, arrays["hidden_strided"], "hidden/embeddings")
    before_seg = batch.input_ids[:, 1:] == loaded.model.config.seg_token_id
    close(hidden[:, :-1][before_seg], name, arrays["seg_hidden"], "hidden/embeddings")
    before_seg = torch.nn.functional.pad(before_seg, (0, 1))
    np.testing.assert_array_equal(before_seg, arrays["seg_token_mask"])
    close(output.seg_prompts, name, arrays["pred_embeddings"], "hidden/embeddings")
    quality = np.clip(arrays["iou_pred"][:, 0], SURE, 1 - SURE)
    close(output.masks.iou_logits.sigmoid(), name, quality, "hidden/embeddings")
    predicted = loaded.processor.predicted_masks(output, batch)
    for number, masks in enumerate(predicted):
        close(masks, name, arrays.get(f"pred_masks_{number}", arrays.get("pred_masks")), "masks")
    for key, step in (("low_res_masks", 1), ("low_res_strided", 4)):
        if key in arrays:
            close(output.masks.low_res_masks[:, ::step, ::step], name, arrays[key], "masks")


def records(pattern: str) -> list[str]:
    """Names of the records of the whole model."""
    return sorted(path.stem for path in (GOLDEN / "model").glob(f"{pattern}.npz"))


def load_record(loaded: Loaded, name: str) -> tuple[dict[str, Any], dict[str, Any], Batch]:
    """A record's strings, arrays and batch."""
    record, arrays = read_json(f"model/{name}.json"), read_arrays(f"model/{name}.npz")
    texts = record["conversation_list"]
    return record, arrays, recorded_batch(loaded, "model", record["image_files"], texts, arrays)


@pytest.mark.parametrize("name", records("infer*"))
def test_inference(loaded: Loaded, name: str) -> None:
    _, arrays, batch = load_record(loaded, name)
    with torch.no_grad():
        output = loaded.model(batch)
        features = loaded.model.decoder.encode_image(batch.pixel_values)
    compare_outputs(loaded, batch, output, f"model/{name}.npz", arrays)
    embeddings = features.embeddings[0, ::16, ::4, ::4]
    close(embeddings, f"model/{name}.npz", arrays["image_embeddings_strided"], "hidden/embeddings")


@pytest.mark.parametrize("name", records("train*"))
def test_training(loaded: Loaded, name: str) -> None:
    record, arrays, batch = load_record(loaded, name)
    file = f"model/{name}.npz"
    output = loaded.model.train()(batch)
    compare_outputs(loaded, batch, output, file, arrays)
    ours = losses(loaded, output, batch, record)
    for key, expected in record["losses"].items():
        close(ours[key], file, expected, "losses")
    ours["loss"].backward()
    compare_gradients(loaded.model, record["grad_norms"], file)
    gradients = {key.removeprefix("grad."): arrays[key] for key in arrays if key[:5] == "grad."}
    assert gradients
    for key, expected in gradients.items():
        ours = gradient(loaded.model, key)
        scale = {"rtol": tolerance(file, "grad norms")["rtol"], "atol": LEAST_NORM}
        np.testing.assert_allclose(ours, expected, err_msg=key, **scale)
    rows = loaded.model.vlm.model.get_input_embeddings().weight.grad.norm(dim=1)
    np.testing.assert_allclose(rows, arrays["embed_grad_row_norms"], **scale)


def gradient(model: LisaModel, key: str) -> Tensor:
    """The gradient of a parameter by its official name; zeros where there is none."""
    parameter = model.get_parameter(ours_of(key))
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def ours_of(key: str) -> str:
    """Our name of an official parameter."""
    name = renamed(key, LISA_NAMES)
    assert name is not None, key
    return name


def compare_gradients(model: LisaModel, norms: dict[str, float], file: str) -> None:
    """Norms by official names."""
    for key, expected in norms.items():
        norm = float(gradient(model, key).norm())
        if max(norm, expected or 0) > LEAST_NORM:
            close(norm, file, np.array(expected), "grad norms")


def test_optimiser_trajectory(loaded: Loaded) -> None:
    """The recorded recipe: two batches an update, and the learning rates of the record."""
    record = read_json("model/trajectory.json")
    (entry,) = [
        entry
        for entry in read_json("MANIFEST.json")["files"]
        if entry["path"] == "model/trajectory.json"
    ]
    model = loaded.model.train()
    parameters = prepare(model, Recipe(lora_rank=0))
    frozen = {name for name, value in model.named_parameters() if is_language(name)}
    parameters = [v for n, v in model.named_parameters() if v.requires_grad and n not in frozen]
    before = {n: v.detach().clone() for n, v in model.named_parameters()}
    optimizer, _ = make_optimizer(parameters)
    batches = [load_record(loaded, name)[::2] for name in ("train", "train_vqa_only")]
    for step in record["steps"]:
        for (strings, batch), expected in zip(batches, step["micro"], strict=True):
            ours = losses(loaded, model(batch), batch, strings)
            for key, value in expected.items():
                np.testing.assert_allclose(
                    ours[key].item(), value, **stated(entry["what"], "losses"), err_msg=key
                )
            (ours["loss"] / len(batches)).backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, Recipe.max_grad_norm)
        expected_norm = step["grad_norm_before_clip"]
        np.testing.assert_allclose(norm, expected_norm, **stated(entry["what"], "grad norms"))
        optimizer.param_groups[0]["lr"] = step["lr"]
        optimizer.step()
        optimizer.zero_grad()
    for key, expected in record["final_delta_norms"].items():
        moved = (model.get_parameter(ours_of(key)).detach() - before[ours_of(key)]).norm()
        if not key.endswith("k_proj.bias"):  # moved by rounding alone
            np.testing.assert_allclose(
                moved, expected, **stated(entry["what"], "final_delta_norms"), err_msg=key
            )


def is_language(name: str) -> bool:
    """The language model's layers, which the recorded recipe freezes."""
    return name.startswith("vlm.") and "embed_tokens" not in name and "lm_head" not in name


def speaking(loaded: Loaded, conversation: str) -> FullSizeProcessor:
    """The processor for a record's template, which takes the question as it is."""
    loaded.model.config.compat = OFFICIAL
    loaded.model.config.conversation = conversation
    return FullSizeProcessor.from_directory(loaded.directory, loaded.model.config)


def test_evaluate(loaded: Loaded) -> None:
    for case in read_json("evaluate/cases.json"):
        name, size = f"evaluate/{case['name']}.npz", tuple(case["original_size"])
        arrays, processor = read_arrays(name), speaking(loaded, case["conv_type"])
        asked = processor.question_ids(case["user_text"])
        np.testing.assert_array_equal(asked, arrays["input_ids"][0])
        pictures = processor.encode_pictures([read_image(f"evaluate/{case['image_file']}")])
        (answer,) = loaded.model.generate(
            loaded.model.encode_images(pictures),
            [asked],
            [0],
            end_token_id=processor.end_token_id,
            max_new_tokens=case["max_new_tokens"],
        )
        ended = [processor.end_token_id] * (len(answer.token_ids) < case["max_new_tokens"])
        assert answer.token_ids + ended == case["new_ids"]
        assert asked + case["new_ids"] == arrays["output_ids"][0].tolist()
        assert len(answer.prompts) == case["n_masks"]
        close(answer.prompts, name, arrays["pred_embeddings"], "embeddings")
        close(
            processor.restore(answer.masks.low_res_masks, size), name, arrays["pred_masks"], "masks"
        )
        low_res = answer.masks.low_res_masks[:, ::4, ::4]
        close(low_res, name, arrays["low_res_strided"], "masks")
        _, masks = processor.decode(answer, size)
        for mask, logits in zip(masks, arrays["pred_masks"], strict=True):
            certain = abs(logits) > 1e-3
            np.testing.assert_array_equal(mask.mask[certain], logits[certain] > 0)
