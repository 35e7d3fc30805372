"""Our parts against records of the official LISA (commit 3cb2d43) on small random weights.

Everything about a case, its name, sizes and tolerance, is read from the folder, so that any
folder of the same layout will do.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import torch

from helpers.golden_files import GOLDEN, read_arrays, read_json, tolerance
from helpers.golden_model import (  # noqa: F401  (the tests of the whole model, and their fixture)
    loaded,
    test_evaluate,
    test_inference,
    test_optimiser_trajectory,
    test_training,
)
from helpers.golden_training import (  # noqa: F401  (the tests of the training loop)
    test_learning_rates,
    test_training_loop,
)
from lisa.checkpoints.checkpoint import Checkpoint
from lisa.checkpoints.convert import convert, lisa_config, model_shapes
from lisa.checkpoints.directory import build
from lisa.checkpoints.inspect import load_check
from lisa.checkpoints.official_names import (
    LISA_NAMES,
    STANDARD_CLIP,
    VISION_TOWER,
    is_computed,
    renamed,
)
from lisa.checkpoints.transfer import merged
from lisa.data.reasonseg import Shape, rasterise
from lisa.evaluation.distributed import Job, work
from lisa.evaluation.evaluate import summarise
from lisa.evaluation.metrics import SegmentationMetrics
from lisa.evaluation.runner import Task
from lisa.example import Example
from lisa.masks import Mask
from lisa.model.chat_templates import TEMPLATES, Row, encode_row, mark_image, stack, text_limit
from lisa.model.geometry import clip_pixels, longest_side_size, restore_masks, sam_pixels
from lisa.model.interfaces import Batch
from lisa.model.llama_tokenizer import LegacyTokenizer
from lisa.result import Result
from lisa.training.optim import PAPER, merge
from lisa.training.paper import (
    answer_loss,
    is_adapted,
    is_trained,
    official_bce_loss,
    official_dice_loss,
    official_mask_loss,
    prepare,
)

pytestmark = pytest.mark.skipif(
    not (GOLDEN / "MANIFEST.json").is_file(),
    reason=f"no official records in '{GOLDEN}'; set LISA_GOLDEN to their folder",
)
VISUAL_TOKENS = 256  # of a picture in the recorded conversations
NEGLIGIBLE_NORM = 1e-3  # of gradients, as the manifest says: smaller ones are not compared


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the recorded LISA checkpoint, its vision tower beside it."""
    folder = tmp_path_factory.mktemp("published")
    (archive,) = (GOLDEN / "checkpoint").glob("*.tar.xz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    (directory,) = [path.parent for path in folder.glob("*/tokenizer.model")]
    return directory


@pytest.fixture(scope="module")
def official(published: Path) -> Path:
    """The same checkpoint as a directory of ours."""
    convert(published, published.parent / "ours")
    return published.parent / "ours"


# -------------------------------------------------------------------- text


def read_tokenizer(name: str) -> LegacyTokenizer:
    return LegacyTokenizer.read(GOLDEN / "tokenizers" / name)


def test_tokenizers() -> None:
    for name, record in read_json("conversations/tokenizer_cases.json").items():
        tokenizer = read_tokenizer(name)
        assert len(tokenizer) == record["length"]
        assert tokenizer.added == record["added"]
        assert tokenizer.encode("[SEG]", bos=False) == record["seg"] == [tokenizer.seg_token_id]
        for kind in ("bos", "eos", "unk", "pad"):
            assert getattr(tokenizer, f"{kind}_token_id") == record[kind]
        for case in record["cases"]:
            assert tokenizer.encode(case["text"]) == case["ids"], case
            assert tokenizer.encode(case["text"], bos=False) == case["ids_no_bos"], case
            assert tokenizer.decode(case["ids"]) == case["decoded"], case
            assert tokenizer.decode(case["ids"], skip_special=True) == case["decoded_skip"], case


def test_templates() -> None:
    records = read_json("conversations/cases.json")
    for name, expected in records["generation_prompts"].items():
        assert TEMPLATES[name].write(["<image>\nQ?"]) == expected
        assert TEMPLATES[name].system == records["templates"][name]["system"]


def written(case: dict[str, Any]) -> list[str]:
    """The conversations of a case as its template writes them."""
    if "conversation_list" in case:
        return list(case["conversation_list"])
    text = TEMPLATES[case["conv_type"]].write(case["turns"])
    assert text == case["prompt_before_replacement"]
    text = mark_image(text) if case["use_mm_start_end"] else text
    assert text == case["prompt"]
    return [text]


def test_conversations() -> None:
    arrays = read_arrays("conversations/arrays.npz")
    for case in read_json("conversations/cases.json")["cases"]:
        tokenizer, template = read_tokenizer(case["tokenizer"]), TEMPLATES[case["conv_type"]]
        rows = [encode_row(text, template, tokenizer) for text in written(case)]
        if not case.get("inference", False):
            limit = text_limit(VISUAL_TOKENS)
            rows = [row.cut(limit, tokenizer.seg_token_id, silently=True) for row in rows]
        for name, ours in stack(rows, tokenizer.pad_token_id).items():
            expected = np.atleast_2d(arrays[f"{case['key']}.{name}"])
            np.testing.assert_array_equal(ours, expected, err_msg=f"{case['key']} {name}")


# ---------------------------------------------------------------- geometry


def digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def test_preprocessing() -> None:
    for case in read_json("preprocess/cases.json")["cases"]:
        image = PIL.Image.open(GOLDEN / "preprocess" / case["image_file"]).convert("RGB")
        record = read_arrays(f"preprocess/{case['name']}.npz")
        clip, (sam, resized) = clip_pixels(image), sam_pixels(image)
        assert list(resized) == case["resize"] == record["resize"].tolist()
        np.testing.assert_array_equal(clip, record["clip_pixel_values"])
        np.testing.assert_array_equal(sam[:, 3::16, 5::16], record["sam_strided_16_3"])
        np.testing.assert_array_equal(sam[:, resized[0] // 2], record["sam_row"])
        assert digest(clip.numpy()) == case["clip_f32_sha256"]
        assert digest(sam.numpy()) == case["sam_f32_sha256"]


def test_sizes() -> None:
    for height, width, *expected in read_json("preprocess/cases.json")[
        "sam_resize_rule_h_w_newh_neww"
    ]:
        assert list(longest_side_size(height, width)) == expected


def test_masks_at_the_pictures_size() -> None:
    whole = {
        path.name: arrays
        for path in sorted((GOLDEN / "model").glob("*.npz"))
        if "low_res_masks" in (arrays := read_arrays(f"model/{path.name}"))
    }
    assert whole, "no record has both low-resolution and full masks"
    for name, arrays in whole.items():
        (resized,), (original,) = arrays["resize_list"], arrays["original_size_list"]
        low_res = torch.from_numpy(arrays["low_res_masks"])
        ours = restore_masks(low_res, tuple(resized.tolist()), tuple(original.tolist()))
        stated = tolerance(f"model/{name}", "masks")
        np.testing.assert_allclose(ours, arrays["pred_masks"], **stated)


# ------------------------------------------------------- losses and scores


def test_loss_primitives() -> None:
    stated, arrays = tolerance("losses/expected.json"), read_arrays("losses/inputs.npz")
    for case in read_json("losses/expected.json"):
        logits = torch.from_numpy(arrays[f"{case['i']}.x"])
        targets = torch.from_numpy(arrays[f"{case['i']}.t"]).float()
        assert list(logits.shape) == case["shape"]
        bce, dice = official_bce_loss(logits, targets), official_dice_loss(logits, targets)
        np.testing.assert_allclose([bce, dice], [case["bce"], case["dice"]], **stated)


def measure(metrics: SegmentationMetrics, logits: np.ndarray, targets: np.ndarray) -> None:
    for logit, target in zip(logits, targets, strict=True):
        metrics.update(logit > 0, target == 1, target == 255, answered=True)


def test_scores() -> None:
    arrays, record = read_arrays("metrics/pairs.npz"), read_json("metrics/expected.json")
    stated = tolerance("metrics/expected.json", "giou/ciou")
    together = SegmentationMetrics()
    for number, image in enumerate(record["images"]):
        pair = [arrays[f"{image['image']}.{kind}"] for kind in ("logits", "target")]
        alone = SegmentationMetrics()
        for metrics, expected in ((alone, "single_image"), (together, "cumulative")):
            measure(metrics, *pair)
            scores, figures = metrics.compute(), record[expected][number]
            np.testing.assert_allclose(scores.gIoU, figures["giou"], **stated)
            np.testing.assert_allclose(scores.cIoU, figures["ciou"], **stated)
    np.testing.assert_allclose(together.compute().cIoU, record["all"]["ciou"], **stated)


def test_intersections_and_unions() -> None:
    """A cumulative IoU of one mask is the quotient of its two counts."""
    arrays = read_arrays("metrics/pairs.npz")
    for image in read_json("metrics/expected.json")["images"]:
        for number, mask in enumerate(image["masks"]):
            metrics = SegmentationMetrics()
            pair = (arrays[f"{image['image']}.{kind}"] for kind in ("logits", "target"))
            measure(metrics, *(values[number : number + 1] for values in pair))
            intersection, union = mask["intersection"][1], mask["union"][1]
            assert metrics.compute().cIoU == intersection / (union + 1e-10)


class Replayed:
    """Answers the recorded logits of the sample whose number is asked for."""

    name = "replayed"

    def __init__(self, logits: list[np.ndarray]) -> None:
        self.logits = logits

    def segment(
        self, image: PIL.Image.Image, question: str, *, answer: str | None = None
    ) -> Result:
        mask = self.logits[int(question)] > 0
        return Result(image, question, "[SEG].", (Mask(mask, "", 0.5),))


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_whole_evaluation(processes: int) -> None:
    """From samples with an ignore region to the figures, divided as among processes."""
    arrays, record = read_arrays("metrics/pairs.npz"), read_json("metrics/expected.json")
    names = [image["image"] for image in record["images"]]
    logits = [logit for name in names for logit in arrays[f"{name}.logits"]]
    targets = [target for name in names for target in arrays[f"{name}.target"]]
    samples = [
        Example(
            image=PIL.Image.new("RGB", target.shape[::-1]),
            question=str(number),
            masks=(target == 1)[np.newaxis],
            ignore=target == 255,
        )
        for number, target in enumerate(targets)
    ]
    job = Job(lambda _: Replayed(logits), lambda: Task(samples, ("teacher-forced",)))
    parts = [work(job, rank, processes, rank) for rank in range(processes)]
    records = [record for part in parts for record in part.records]
    scores = summarise(job.open_task(), records, "teacher-forced", "replayed").scores
    stated = tolerance("metrics/expected.json", "giou/ciou")
    np.testing.assert_allclose(scores.gIoU, record["all"]["giou"], **stated)
    np.testing.assert_allclose(scores.cIoU, record["all"]["ciou"], **stated)


def test_annotated_shapes() -> None:
    """Exact; OpenCV fills slanted borders differently from 4.11 on: there is a record of each."""
    as_new = tuple(map(int, cv2.__version__.split(".")[:2])) >= (4, 11)
    (name,) = [
        path.name
        for path in (GOLDEN / "reasonseg").glob("masks*.npz")
        if ("opencv" in path.name) == as_new
    ]
    masks = read_arrays(f"reasonseg/{name}")
    for case in read_json("reasonseg/cases.json"):
        ours, expected = rasterise(shapes(case), *case["image_size"]), masks[case["name"]]
        if case.get("tie_order_unspecified"):
            ours, expected = ours > 0, expected > 0
        np.testing.assert_array_equal(ours, expected, err_msg=case["name"])


def shapes(case: dict[str, Any]) -> list[Shape]:
    content = (GOLDEN / "reasonseg" / case["json"]).read_bytes()
    try:
        annotation = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError:
        annotation = json.loads(content.decode("cp1252"))
    assert annotation["text"] == case["comments"]
    return [
        Shape(entry["label"], np.array(entry["points"], np.float64).astype(np.int32))
        for entry in annotation["shapes"]
    ]


# ------------------------------------------------------------- checkpoints


def test_a_checkpoint_is_converted_bit_for_bit(published: Path, official: Path) -> None:
    checked = load_check(published)
    assert (checked.kind, checked.complete) == ("official LISA", True), checked.problems
    ours = load_check(official)
    assert (ours.kind, ours.complete) == ("ours", True), ours.problems
    assert ours.seg_token_id == checked.seg_token_id
    theirs, now = Checkpoint(published), Checkpoint(official)
    for key in theirs.tensors:
        if not is_computed(key):
            name = renamed(key, LISA_NAMES)
            assert name and torch.equal(now.read(name), theirs.read(key)), key


def test_key_lists_of_full_size_map_one_to_one() -> None:
    lists = sorted((GOLDEN / "checkpoint").glob("*_state_dict_shapes.json"))
    assert lists
    for path in lists:
        record = json.loads(path.read_text())
        shapes = {key: tuple(shape) for key, shape in record["shapes"].items()}
        assert len(shapes) == record["n_keys"]
        ours = {renamed(key, LISA_NAMES): shapes[key] for key in shapes if not is_computed(key)}
        expected = full_size_shapes(shapes, path)
        assert ours == expected, path.name
        back = {renamed(key, LISA_NAMES, back=True) for key in expected}
        assert back == {key for key in shapes if not is_computed(key)}


def full_size_shapes(shapes: dict[str, tuple[int, ...]], path: Path) -> dict[str, tuple[int, ...]]:
    """The tensors of our model of these sizes, which takes no memory; without its CLIP tower."""
    rows, width = shapes["model.embed_tokens.weight"]
    frequencies = [shape for key, shape in shapes.items() if key.endswith("inv_freq")]
    config = {
        "hidden_size": width,
        "intermediate_size": shapes["model.layers.0.mlp.gate_proj.weight"][0],
        "num_hidden_layers": len(frequencies),
        "num_attention_heads": width // (2 * frequencies[0][0]),
    }
    clip = STANDARD_CLIP | {"hidden_size": shapes["model.mm_projector.weight"][1]}
    made = lisa_config(config, clip, shapes, seg_token_id=rows - 1)
    expected = model_shapes(made, path)
    return {key: shape for key, shape in expected.items() if VISION_TOWER not in key}


# ------------------------------------------------------------------- LoRA


def test_merged_training_output(published: Path, tmp_path: Path) -> None:
    record, arrays = read_json("lora/lora.json"), read_arrays("lora/lora.npz")
    base, prefix = Checkpoint(published), "base_model.model."
    stored = {prefix + key: base.read(key).clone() for key in base.tensors}
    stored |= {
        key.removeprefix("lora."): torch.from_numpy(value)
        for key, value in arrays.items()
        if key.startswith("lora.")
    }
    torch.save(stored, tmp_path / "pytorch_model.bin")
    ours = merged(Checkpoint(tmp_path / "pytorch_model.bin"), record["lora_alpha"])
    assert ours.keys() == base.tensors.keys()
    expected = {key.removeprefix("merged."): key for key in arrays if key.startswith("merged.")}
    assert sorted(expected) == sorted(f"{name}.weight" for name in record["target_modules"])
    for key, name in expected.items():
        np.testing.assert_allclose(ours[key].read(), arrays[name], rtol=0, atol=1e-6)


def test_names_that_are_adapted_and_trained() -> None:
    record = read_json("lora/lora.json")
    layers = [
        name.removeprefix("base_model.model.").removesuffix(".weight")
        for name in record["peft_state_dict_keys"] + record["frozen"]
        if name.endswith("_proj.weight")
    ]
    assert sorted({name for name in layers if is_adapted(name)}) == record["target_modules"]
    assert len(record["trainable"]) == record["n_trainable"]
    assert len(record["frozen"]) == record["n_frozen"]
    assert [name for name in record["trainable"] if not is_trained(name)] == []
    assert [name for name in record["frozen"] if is_trained(name)] == []
    assert PAPER.lora_rank == record["r"] and PAPER.lora_alpha == record["lora_alpha"]


@dataclass
class Adapted:
    """A model with the recorded factors, and what it makes of the recorded conversation."""

    model: Any
    processor: Any
    batch: Batch
    record: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def parameter(self, name: str) -> torch.nn.Parameter:
        """By its official name."""
        ours = renamed(name.removeprefix("base_model.model."), LISA_NAMES)
        assert ours is not None, name
        return self.model.get_parameter(ours)

    def answer(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of the answer, and of the masks at the picture's size."""
        output = self.model(self.batch)
        (masks,) = self.processor.predicted_masks(output, self.batch)
        return output.logits, masks

    def losses(self) -> dict[str, torch.Tensor]:
        """As the official code names them."""
        logits, masks = self.answer()
        assert self.batch.labels is not None
        ce_loss = answer_loss(logits, self.batch.labels)
        parts = official_mask_loss([masks], [torch.from_numpy(self.arrays["gt_mask"])[None]])
        mask_loss = sum(parts.values())
        loss = ce_loss + mask_loss
        return parts | {"ce_loss": ce_loss, "mask_loss": mask_loss, "loss": loss}


@pytest.fixture
def adapted(official: Path) -> Adapted:
    record, arrays = read_json("lora/lora.json"), read_arrays("lora/lora.npz")
    model, processor = build(official, "cpu")
    # Attention in the official order of operations: a ReLU of the head is so close to its kink
    # that gradients change by a hundredth with the last bits of what it reads.
    model.vlm.model.set_attn_implementation("eager")
    prepare(model, replace(PAPER, lora_dropout=0.0))
    with PIL.Image.open(GOLDEN / "lora" / "img.png") as image:
        pictures = processor.encode_pictures([image.convert("RGB")])
        size = (image.height, image.width)
    row = Row(arrays["input_ids"][0].tolist(), arrays["labels"][0].tolist())
    batch = processor.encode_rows(pictures, [(0, row)])
    batch.sizes = [size]
    made = Adapted(model, processor, batch, record, arrays)
    with torch.no_grad():
        for key, factor in arrays.items():
            if key.startswith("lora."):
                made.parameter(key.removeprefix("lora.")).copy_(torch.from_numpy(factor))
    return made


def test_parameters_that_are_trained(adapted: Adapted) -> None:
    trained = {id(parameter) for parameter in adapted.model.parameters() if parameter.requires_grad}
    assert trained == {id(adapted.parameter(name)) for name in adapted.record["trainable"]}
    assert len(trained) == adapted.record["n_trainable"]


def test_losses_and_gradients_with_factors(adapted: Adapted) -> None:
    losses = adapted.losses()
    stated = tolerance("model/train.json", "losses")
    for name, value in adapted.record["losses_dropout_off"].items():
        np.testing.assert_allclose(losses[name].item(), value, **stated, err_msg=name)
    losses["loss"].backward()
    stated = tolerance("model/train.json", "grad norms")
    for name, norm in adapted.record["grad_norms"].items():
        if norm > NEGLIGIBLE_NORM:
            gradient = adapted.parameter(name).grad
            assert gradient is not None, name
            np.testing.assert_allclose(gradient.norm().item(), norm, **stated, err_msg=name)


def test_merged_factors(adapted: Adapted) -> None:
    merge(adapted.model)
    for key, values in adapted.arrays.items():
        if key.startswith("merged."):
            weight = adapted.parameter(key.removeprefix("merged."))
            np.testing.assert_allclose(weight.detach().numpy(), values, rtol=0, atol=1e-6)
    with torch.no_grad():
        _, masks = adapted.answer()
    stated = tolerance("model/train.npz", "masks")
    np.testing.assert_allclose(masks.numpy(), adapted.arrays["merged_pred_masks"], **stated)
