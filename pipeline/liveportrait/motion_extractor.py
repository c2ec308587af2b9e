"""M: the motion extractor, ConvNeXt-V2-tiny with seven heads (specification 3.2)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

DEPTHS = (3, 3, 9, 3)
WIDTHS = (96, 192, 384, 768)
HEADS = {"kp": 63, "scale": 1, "pitch": 66, "yaw": 66, "roll": 66, "t": 3, "exp": 63}
_EPS = 1e-6


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of (B, C, H, W), biased variance."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        deviation = torch.sqrt(centred.square().mean(1, keepdim=True) + _EPS)
        return self.weight[:, None, None] * (centred / deviation) + self.bias[:, None, None]


class ResponseNorm(nn.Module):
    """Global response normalisation of channels-last (B, H, W, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        response = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        relative = response / (response.mean(-1, keepdim=True) + _EPS)
        normed: Tensor = self.gamma * (x * relative) + self.beta + x
        return normed


class Block(nn.Module):
    """Depthwise 7x7, LayerNorm, C -> 4C, GELU, response normalisation, 4C -> C, residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=_EPS)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.grn = ResponseNorm(4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.pwconv2(self.grn(functional.gelu(self.pwconv1(y))))
        return x + y.permute(0, 3, 1, 2)


class Detector(nn.Module):
    """The backbone and its heads; a level of its own because checkpoints name it."""

    def __init__(self) -> None:
        super().__init__()
        self.downsample_layers = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(3, WIDTHS[0], 4, stride=4), ChannelNorm(WIDTHS[0]))]
        )
        for narrow, wide in pairwise(WIDTHS):
            self.downsample_layers.append(
                nn.Sequential(ChannelNorm(narrow), nn.Conv2d(narrow, wide, 2, stride=2))
            )
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width) for _ in range(depth)))
            for depth, width in zip(DEPTHS, WIDTHS, strict=True)
        )
        self.norm = nn.LayerNorm(WIDTHS[-1], eps=_EPS)
        for name, size in HEADS.items():
            self.add_module(f"fc_{name}", nn.Linear(WIDTHS[-1], size))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = image
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x))
        x = self.norm(x.mean((-2, -1)))
        return {name: self.get_submodule(f"fc_{name}")(x) for name in HEADS}


class MotionExtractor(nn.Module):
    """(B, 3, 256, 256) picture in [0, 1] to the raw heads; `keypoints.refine` reads them.

    The heads, each (B, size): `kp` and `exp` 63, `scale` 1, `t` 3, and the logits of 66 angle
    bins `pitch`, `yaw`, `roll`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.detector = Detector()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        heads: dict[str, Tensor] = self.detector(image)
        return heads
