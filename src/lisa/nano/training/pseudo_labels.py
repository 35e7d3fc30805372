"""Self-training: masks for photographs that have a label and no mask (LISA §5, future work).

The eyes look for what the label says. Their mask is kept only where the classifier agrees with it:
where it recognises the label, and where most of what it recognises lies inside. The kept masks are
written as a folder of photographs like any other, which the eyes then go on learning from. This
file knows when a mask can be trusted; it refuses to know how it is learnt from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F

from lisa.files import write_atomically
from lisa.masks import run_lengths
from lisa.nano.data.imagenet import ImageNetClass, imagenet_classes
from lisa.nano.data.photos import LabelledPhotos, PhotoFolder
from lisa.nano.model.lisa import NanoModel
from lisa.nano.model.processor import LisaProcessor, pad

LEAST_SEEN = 0.5  # probability of the label where the classifier is surest
LEAST_INSIDE = 0.55  # of what the classifier recognises lies in the mask
LEAST_QUALITY = 0.6  # IoU that the decoder predicts for its mask
LEAST_AREA, MOST_AREA = 0.02, 0.85  # of the picture


@dataclass(frozen=True)
class Label:
    """What a label stands for."""

    words: tuple[str, ...]  # true of it, the closest first
    classes: tuple[int, ...]  # ImageNet classes that it names


def labels_by_word(classes: Sequence[ImageNetClass]) -> dict[str, Label]:
    """Every word that is true of some class: what it stands for."""
    found: dict[str, Label] = {}
    for index, c in enumerate(classes):
        true = tuple(dict.fromkeys(word.lower() for word in c.is_a))
        for depth, word in enumerate((*true, c.name.lower())):
            if word in true[:depth]:
                continue
            known = found.get(word, Label(true[depth:] or true, ()))
            found[word] = Label(known.words, (*known.classes, index))
    return found


@torch.inference_mode()
def pseudo_mask(
    model: NanoModel, processor: LisaProcessor, picture: Image.Image, label: Label
) -> np.ndarray | None:
    """What a label names in a picture, bool [H, W]; None where the mask cannot be trusted."""
    features = model.decoder.encode_image(processor.encode_images([picture]).to(model.device))
    seen = features.semantic[0, list(label.classes)].sum(0)  # [h, w]
    if seen.max() < LEAST_SEEN:
        return None
    phrase_ids = pad([processor.phrase_ids(word) for word in label.words[:2]], -1)
    prompts = model.phrase_prompts(phrase_ids.to(model.device))
    rows = torch.zeros(len(prompts), dtype=torch.long, device=model.device)
    decoded = model.decoder.decode(features, prompts, rows)
    best = int(decoded.iou_logits.argmax())
    low_res_mask = decoded.low_res_masks[best]
    if not trusted(low_res_mask, float(decoded.iou_logits[best].sigmoid()), seen):
        return None
    return processor.decode_mask(low_res_mask, (picture.height, picture.width))


def trusted(low_res_mask: Tensor, quality: float, seen: Tensor) -> bool:
    """Whether the classifier's map [h, w] agrees with a mask's logits [H/4, W/4]."""
    inside = low_res_mask > 0
    spread = F.interpolate(seen[None, None], size=inside.shape, mode="bilinear")[0, 0]
    share = float((spread * inside).sum() / spread.sum())
    area = float(inside.float().mean())
    return quality >= LEAST_QUALITY and share >= LEAST_INSIDE and LEAST_AREA <= area <= MOST_AREA


def write_pseudo_masks(
    model: NanoModel,
    processor: LisaProcessor,
    folders: Sequence[LabelledPhotos],
    out: Path,
) -> PhotoFolder:
    """Masks for the photographs of ``folders`` that can be had, as a folder of photographs.

    It holds ``annotations.json`` alone; the photographs stay where they are.
    """
    labels = labels_by_word(imagenet_classes())
    found = []
    for folder in folders:
        for index in track(range(len(folder)), f"pseudo-masks of {folder.folder.name}"):
            pixels, name = folder[index]
            label = labels.get(name.lower())
            picture = Image.fromarray(pixels)
            mask = pseudo_mask(model, processor, picture, label) if label else None
            if label and mask is not None:
                path = folder.folder / "images" / folder.images[index][0]
                found.append((path.resolve(), label.words[0], mask))
    content = json.dumps(as_coco(found)).encode()
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "annotations.json", content)
    return PhotoFolder(out)


def as_coco(found: Sequence[tuple[Path, str, np.ndarray]]) -> dict[str, Any]:
    """Photographs, names and masks in the layout that ``PhotoFolder`` reads."""
    numbers: Mapping[str, int] = {
        name: number for number, name in enumerate(sorted({name for _, name, _ in found}))
    }
    return {
        "info": {"masks": "union per label"},
        "images": [{"id": n, "file_name": str(path)} for n, (path, _, _) in enumerate(found)],
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
        "annotations": [
            {
                "id": n,
                "image_id": n,
                "category_id": numbers[name],
                "segmentation": run_lengths(mask),
            }
            for n, (_, name, mask) in enumerate(found)
        ],
    }
