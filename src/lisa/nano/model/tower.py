"""EfficientNet-Lite0 with its ImageNet classifier at every place.

This file knows one published network; it refuses to know what its features are for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

# EfficientNet-Lite0: (expansion, output channels, repeats, stride, kernel) of each stage.
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
IMAGENET_CLASSES = 1000


@dataclass
class TowerFeatures:
    """What the tower saw, finest first. H and W are the input's height and width."""

    stride4: Tensor  # [B, 24, H/4, W/4]
    stride8: Tensor  # [B, 40, H/8, W/8]
    stride16: Tensor  # [B, 112, H/16, W/16]
    stride32: Tensor  # [B, 320 + 1280, H/32, W/32] the last stage and what the classifier reads
    semantic: Tensor  # [B, 1000, H/32, W/32] ImageNet probabilities, summing to 1 at each location


class ConvNorm(nn.Sequential):
    """Convolution, batch norm (epsilon 1e-3 as TensorFlow trained it), and ReLU6 unless linear."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3),
        ]
        super().__init__(*layers, *([] if linear else [nn.ReLU6()]))


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; the input is added where the shapes agree (MobileNetV2)."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        width = inputs * expansion
        expand = [ConvNorm(inputs, width, 1)] if expansion != 1 else []
        self.layers = nn.Sequential(
            *expand,
            ConvNorm(width, width, kernel, stride, groups=width),
            ConvNorm(width, outputs, 1, linear=True),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class VisionTower(nn.Module):
    """EfficientNet-Lite0 with its classifier (arXiv 1905.11946; Lite: ReLU6, no squeezing)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, STEM_CHANNELS, 3, stride=2)
        self.stages = nn.ModuleList()
        channels = STEM_CHANNELS
        for expansion, outputs, repeats, stride, kernel in STAGES:
            first = InvertedResidual(channels, outputs, expansion, kernel, stride)
            others = [
                InvertedResidual(outputs, outputs, expansion, kernel, 1) for _ in range(1, repeats)
            ]
            self.stages.append(nn.Sequential(first, *others))
            channels = outputs
        self.head = ConvNorm(channels, HEAD_CHANNELS, 1)
        self.classifier = nn.Linear(HEAD_CHANNELS, IMAGENET_CLASSES)

    def forward(self, pixel_values: Tensor) -> TowerFeatures:
        """``pixel_values`` [B, 3, H, W] in [-1, 1], H and W multiples of 32."""
        maps = []
        x = self.stem(pixel_values)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        head = self.head(x)
        logits = self.classifier(head.permute(0, 2, 3, 1))  # [B, H/32, W/32, 1000]
        semantic = logits.softmax(-1).permute(0, 3, 1, 2)
        return TowerFeatures(maps[1], maps[2], maps[4], torch.cat([x, head], 1), semantic)
