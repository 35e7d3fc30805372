"""Our parts against records of the official LISA (commit 3cb2d43) on small random weights.

Everything about a case, its name, sizes and tolerance, is read from the folder, so that any
folder of the same layout will do.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import torch

from lisa.data.reasonseg import Shape, rasterise
from lisa.metrics import SegmentationMetrics
from lisa.model.conversation import TEMPLATES, encode_row, mark_image, stack, text_limit
from lisa.model.geometry import clip_pixels, longest_side_size, restore_masks, sam_pixels
from lisa.model.legacy_tokenizer import LegacyTokenizer
from lisa.training.loss import official_bce_loss, official_dice_loss
from lisa.training.optim import PAPER, is_adapted, is_trained

GOLDEN = Path(os.environ.get("LISA_GOLDEN", Path(__file__).parents[2] / "shared" / "golden"))
pytestmark = pytest.mark.skipif(
    not (GOLDEN / "MANIFEST.json").is_file(),
    reason=f"no official records in '{GOLDEN}'; set LISA_GOLDEN to their folder",
)
VISUAL_TOKENS = 256  # of a picture in the recorded conversations


def read_json(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


def read_arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / name) as arrays:
        return dict(arrays)


def tolerance(name: str, quantity: str = "") -> dict[str, float]:
    """``rtol`` and ``atol`` that the manifest states for a file, after the word ``quantity``."""
    (entry,) = [entry for entry in read_json("MANIFEST.json")["files"] if entry["path"] == name]
    stated = re.search(re.escape(quantity) + r"[^,;:]*?(atol|rtol)[^,;:]*", entry["tolerance"])
    assert stated, f"no tolerance of '{quantity}' for {name}: {entry['tolerance']}"
    figures = dict(re.findall(r"(atol|rtol) (\d[\d.e-]*)", stated[0]))
    return {kind: float(figures.get(kind, 0)) for kind in ("rtol", "atol")}


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


# ------------------------------------------------------------------- LoRA


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
