"""EfficientNet-Lite0 as it was published: its keys, and what they mean, from the paper's table."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

# EfficientNet-B0's stages as the paper's table 1 has them (arXiv 1905.11946): kernel, stride,
# expansion, output channels, repeats. Lite0 takes them over; it leaves squeeze-and-excitation out.
PAPER_STAGES = [
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
]


def published_forward(state: Mapping[str, Tensor], pixels: Tensor) -> tuple[list[Tensor], Tensor]:
    """EfficientNet-Lite0 under its published keys: the map after each stage, and the head's."""

    def norm(name: str, x: Tensor) -> Tensor:
        leaves = ("running_mean", "running_var", "weight", "bias")
        mean, var, weight, bias = (state[f"{name}.{leaf}"][:, None, None] for leaf in leaves)
        return (x - mean) / (var + 1e-3).sqrt() * weight + bias

    def convolve(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        groups = x.shape[1] // weight.shape[1]
        return F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, 1, groups)

    def relu6(x: Tensor) -> Tensor:
        return x.clamp(0, 6)

    x = relu6(norm("_bn0", convolve("_conv_stem", pixels, 2)))
    maps, number = [], 0
    for kernel, stride, expansion, _, repeats in PAPER_STAGES:
        for repeat in range(repeats):
            block, inputs = f"_blocks.{number}", x
            if expansion > 1:
                x = relu6(norm(f"{block}._bn0", convolve(f"{block}._expand_conv", x)))
            assert state[f"{block}._depthwise_conv.weight"].shape[-1] == kernel
            depthwise = convolve(f"{block}._depthwise_conv", x, stride if repeat == 0 else 1)
            x = norm(
                f"{block}._bn2",
                convolve(f"{block}._project_conv", relu6(norm(f"{block}._bn1", depthwise))),
            )
            x = x + inputs if repeat else x
            number += 1
        maps.append(x)
    return maps, relu6(norm("_bn1", convolve("_conv_head", x)))


def published_state(seed: int = 0) -> dict[str, Tensor]:
    """Random weights under the published keys of EfficientNet-Lite0."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def convolution(name: str, outputs: int, inputs: int, kernel: int) -> None:
        values = torch.randn(outputs, inputs, kernel, kernel, generator=generator)
        state[f"{name}.weight"] = values * math.sqrt(2 / (inputs * kernel * kernel))

    def norm(name: str, width: int) -> None:
        for leaf, low in (
            ("weight", 0.8),
            ("bias", -0.1),
            ("running_mean", -0.1),
            ("running_var", 0.5),
        ):
            state[f"{name}.{leaf}"] = low + torch.rand(width, generator=generator) * 0.3
        state[f"{name}.num_batches_tracked"] = torch.tensor(1)

    convolution("_conv_stem", 32, 3, 3)
    norm("_bn0", 32)
    inputs, number = 32, 0
    for kernel, _, expansion, outputs, repeats in PAPER_STAGES:
        for _ in range(repeats):
            block, width = f"_blocks.{number}", inputs * expansion
            if expansion > 1:
                convolution(f"{block}._expand_conv", width, inputs, 1)
                norm(f"{block}._bn0", width)
            convolution(f"{block}._depthwise_conv", width, 1, kernel)
            norm(f"{block}._bn1", width)
            convolution(f"{block}._project_conv", outputs, width, 1)
            norm(f"{block}._bn2", outputs)
            inputs, number = outputs, number + 1
    convolution("_conv_head", 1280, inputs, 1)
    norm("_bn1", 1280)
    state["_fc.weight"] = torch.randn(1000, 1280, generator=generator) * 0.05
    state["_fc.bias"] = torch.randn(1000, generator=generator) * 0.05
    return state
