"""The small vision tower and mask decoder of the embedded model, in plain PyTorch.

``VisionTower`` is EfficientNet-Lite0 with its ImageNet classifier kept: the classifier runs at
every location and its probabilities are the *semantic map*. ``NanoDecoder`` turns a picture and
prompt vectors into masks: a two-way transformer and a hypernetwork in the manner of SAM (arXiv
2304.02643 §3), on a fused stride-16 map, upscaled to stride 4 with skips from the tower.

This file knows tensors. It refuses to know text, files, training, and the size of the user's
picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lisa.model.interfaces import DecodedMasks
from lisa.nano.model.tower import HEAD_CHANNELS, IMAGENET_CLASSES, TowerFeatures, VisionTower

PRIOR_BIAS = -3.0  # before training, a location holds a given thing with probability 0.05
FEATURE_STRIDES = {4: 24, 8: 40, 16: 112, 32: 320 + HEAD_CHANNELS}  # stride -> channels


@dataclass
class ImageFeatures:
    """What is kept of a picture to answer any question about it."""

    stride4: Tensor  # [B, 24, H/4, W/4] skip for the upscaling
    stride8: Tensor  # [B, 40, H/8, W/8] skip for the upscaling
    fused: Tensor  # [B, D, H/16, W/16] what the two-way transformer reads
    context: Tensor  # [B, D, H/32, W/32] what the semantic projector reads
    keys: Tensor  # [B, P, H/32, W/32] the map in prompt space: ``location_logits`` compares the two
    semantic: Tensor  # [B, 1000, H/32, W/32] ImageNet probabilities

    def select(self, index: Tensor) -> ImageFeatures:
        """Rows ``index`` [N] of every map."""
        return ImageFeatures(*(getattr(self, field.name)[index] for field in fields(self)))


class MixerBlock(nn.Module):
    """Depthwise 7x7, then a channel MLP, with a residual (ConvNeXt, arXiv 2201.03545)."""

    def __init__(self, width: int, expansion: int = 3) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.GroupNorm(1, width)
        self.mlp = nn.Sequential(
            nn.Conv2d(width, width * expansion, 1),
            nn.GELU(),
            nn.Conv2d(width * expansion, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(self.depthwise(x)))


class ImageNeck(nn.Module):
    """Tower features -> ImageFeatures: context at stride 32, then a fused map at stride 16."""

    def __init__(
        self, width: int, prompt_size: int, context_blocks: int, fused_blocks: int
    ) -> None:
        super().__init__()
        half = prompt_size // 2
        self.semantic_keys = nn.Linear(IMAGENET_CLASSES, half, bias=False)
        nn.init.normal_(self.semantic_keys.weight, std=0.4)
        self.lateral32 = nn.Conv2d(FEATURE_STRIDES[32], width, 1)
        self.semantic_lateral = nn.Conv2d(half, width, 1)
        self.context = nn.Sequential(*(MixerBlock(width) for _ in range(context_blocks)))
        self.global_context = nn.Linear(width, width)
        self.context_keys = nn.Conv2d(width, half, 1)
        self.lateral16 = nn.Conv2d(FEATURE_STRIDES[16], width, 1)
        self.fused = nn.Sequential(*(MixerBlock(width) for _ in range(fused_blocks)))

    def forward(self, tower: TowerFeatures) -> ImageFeatures:
        known = self.semantic_keys(tower.semantic.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        context = self.lateral32(tower.stride32) + self.semantic_lateral(known)
        context = self.context(context)
        context = context + self.global_context(context.mean((2, 3)))[:, :, None, None]
        size = tower.stride16.shape[-2:]
        up = F.interpolate(context, size=size, mode="bilinear", align_corners=False)
        fused = self.fused(self.lateral16(tower.stride16) + up)
        keys = torch.cat([self.context_keys(context), known], 1)
        return ImageFeatures(tower.stride4, tower.stride8, fused, context, keys, tower.semantic)


class FourierPosition(nn.Module):
    """Random Fourier features of a place in the unit square (arXiv 2006.10739), as in SAM."""

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("frequencies", torch.randn(2, width // 2, generator=generator))

    def forward(self, height: int, width: int) -> Tensor:
        """[H*W, width], row by row."""
        device = self.frequencies.device
        y = (torch.arange(height, device=device) + 0.5) / height * 2 - 1
        x = (torch.arange(width, device=device) + 0.5) / width * 2 - 1
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2)
        angles = 2 * math.pi * grid @ self.frequencies
        return torch.cat([angles.sin(), angles.cos()], -1)


class Attention(nn.Module):
    """Multi-head attention at half the width, as in SAM's decoder."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width // 2) for _ in range(3))
        self.output = nn.Linear(width // 2, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        def split(x: Tensor) -> Tensor:
            return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        q, k, v = split(self.query(query)), split(self.key(key)), split(self.value(value))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.output(mixed.transpose(1, 2).flatten(2))


class TwoWayBlock(nn.Module):
    """Tokens look at each other, tokens look at the image, the image looks at the tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attention = Attention(width, heads)
        self.token_to_image = Attention(width, heads)
        self.image_to_token = Attention(width, heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, width * 4), nn.GELU(), nn.Linear(width * 4, width)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))

    def forward(
        self, tokens: Tensor, image: Tensor, origin: Tensor, position: Tensor
    ) -> tuple[Tensor, Tensor]:
        """``tokens`` [N, T, D], at first ``origin``; ``image`` [N, HW, D] at ``position``."""
        query = tokens + origin
        tokens = self.norms[0](tokens + self.self_attention(query, query, tokens))
        key = image + position
        tokens = self.norms[1](tokens + self.token_to_image(tokens + origin, key, image))
        tokens = self.norms[2](tokens + self.mlp(tokens))
        image = self.norms[3](image + self.image_to_token(key, tokens + origin, tokens))
        return tokens, image


class NanoDecoder(nn.Module):
    """Prompts [N, P] and image features -> masks. One prompt, one mask."""

    def __init__(
        self,
        width: int = 192,
        prompt_size: int = 512,
        heads: int = 6,
        layers: int = 2,
        context_blocks: int = 4,
        fused_blocks: int = 3,
    ) -> None:
        super().__init__()
        self.prompt_size = prompt_size
        self.tower = VisionTower()
        self.neck = ImageNeck(width, prompt_size, context_blocks, fused_blocks)
        self.position = FourierPosition(width)
        self.prompt_token = nn.Linear(prompt_size, width)
        self.output_tokens = nn.Parameter(torch.randn(2, width) * 0.02)  # mask, quality
        self.here = nn.Conv2d(1, width, 1)
        self.blocks = nn.ModuleList(TwoWayBlock(width, heads) for _ in range(layers))
        self.final_attention = Attention(width, heads)
        self.final_norm = nn.LayerNorm(width)
        self.upscale8 = nn.ConvTranspose2d(width, width // 2, 2, stride=2)
        self.skip8 = nn.Conv2d(FEATURE_STRIDES[8], width // 2, 1)
        self.refine8 = separable(width // 2)
        self.upscale4 = nn.ConvTranspose2d(width // 2, width // 4, 2, stride=2)
        self.skip4 = nn.Conv2d(FEATURE_STRIDES[4], width // 4, 1)
        self.refine4 = separable(width // 4)
        self.hypernetwork = mlp(width, width, width // 4)
        self.quality = mlp(width, width, 1)

    def encode_image(self, pixel_values: Tensor) -> ImageFeatures:
        """``pixel_values`` [B, 3, H, W] in [-1, 1], H and W multiples of 32."""
        pixels = pixel_values.contiguous(memory_format=torch.channels_last)  # 3x on a CPU
        return self.neck(self.tower(pixels))

    def decode(self, features: ImageFeatures, prompts: Tensor, image_index: Tensor) -> DecodedMasks:
        """``prompts`` [N, P]; prompt n asks about picture ``image_index[n]`` of ``features``."""
        similarity = location_logits(features.keys[image_index], prompts[:, None])[:, 0]
        fused = features.fused[image_index]  # [N, D, h, w]
        here = F.interpolate(
            similarity[:, None], size=fused.shape[-2:], mode="bilinear", align_corners=False
        )
        image = fused + self.here(here.clamp(-10, 10))
        tokens, image = self.attend(self.prompt_token(prompts), image)
        low_res_masks = self.upscale(tokens[:, 0], image, features, image_index)
        return DecodedMasks(low_res_masks, self.quality(tokens[:, 1])[:, 0], similarity)

    def attend(self, prompt: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Two-way attention: ``prompt`` [N, D] becomes tokens [N, 3, D] and looks at ``image``.

        The image [N, D, h, w] keeps its shape; the tokens are mask, quality and prompt.
        """
        height, width = image.shape[-2:]
        outputs = self.output_tokens.expand(len(prompt), -1, -1)
        origin = tokens = torch.cat([outputs, prompt[:, None]], 1)  # mask, quality, prompt
        position = self.position(height, width)
        pixels = image.flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens, pixels = block(tokens, pixels, origin, position)
        looked = self.final_attention(tokens + origin, pixels + position, pixels)
        tokens = self.final_norm(tokens + looked)
        return tokens, pixels.transpose(1, 2).unflatten(2, (height, width))

    def upscale(
        self, mask_token: Tensor, image: Tensor, features: ImageFeatures, image_index: Tensor
    ) -> Tensor:
        """Stride 16 -> 8 -> 4 with skips, then the hypernetwork's dot product: [N, H/4, W/4]."""
        skip8 = self.skip8(features.stride8)[image_index]
        skip4 = self.skip4(features.stride4)[image_index]
        image = F.gelu(self.upscale8(image) + skip8)
        image = image + self.refine8(image)
        image = F.gelu(self.upscale4(image) + skip4)
        image = image + self.refine4(image)
        return torch.einsum("nc,nchw->nhw", self.hypernetwork(mask_token), image)


def location_logits(keys: Tensor, prompts: Tensor) -> Tensor:
    """Logits of "here" for ``keys`` [N, P, h, w] and M prompts each [N, M, P] -> [N, M, h, w].

    A thing is known in two ways: one half of a prompt asks what was learnt from masks, the other
    what ImageNet's classes say; either is enough (their odds add up).
    """
    learnt, known = map(half_logits, keys.chunk(2, 1), prompts.chunk(2, -1))
    return torch.logaddexp(learnt, known)


def half_logits(keys: Tensor, prompts: Tensor) -> Tensor:
    """The same for one way of knowing.

    The scale is attention's; the bias says that a thing covers few locations.
    """
    return torch.einsum("nphw,nmp->nmhw", keys, prompts) / math.sqrt(prompts.shape[-1]) + PRIOR_BIAS


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two layers with a ReLU between, as LISA's projection and SAM's hypernetwork have them."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def separable(width: int) -> nn.Sequential:
    """Depthwise 3x3 and pointwise convolution."""
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, groups=width), nn.GELU(), nn.Conv2d(width, width, 1)
    )
