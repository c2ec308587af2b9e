"""W: the warping module, feature volume and keypoints to features in the driven pose (spec. 3.3).

Shapes: the feature volume is (B, 32, D, H, W) with D, H, W = 16, 64, 64; keypoints (B, 21, 3) are
(x, y, z), -1 at the centre of the first cell and +1 at the centre of the last one.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.liveportrait.appearance_feature_extractor import VOLUME_CHANNELS, VOLUME_DEPTH
from pipeline.liveportrait.keypoints import KEYPOINTS
from pipeline.liveportrait.sampling import identity_grid, sample

MOTIONS = KEYPOINTS + 1
COMPRESSED = 4
HEATMAP_VARIANCE = 0.01
HOURGLASS_IN = MOTIONS * (COMPRESSED + 1)
ENCODER_WIDTHS = (HOURGLASS_IN, 64, 128, 256, 512, 1024)
DECODER_WIDTHS = ((1024, 512), (1024, 256), (512, 128), (256, 64), (128, 32))
HOURGLASS_OUT = DECODER_WIDTHS[-1][1] + HOURGLASS_IN


class DenseMotion(NamedTuple):
    """What the dense-motion part finds.

    Attributes:
        mask: (B, 22, D, H, W), how much each motion counts in a cell; sums to 1.
        deformation: (B, D, H, W, 3), where each cell is read, as (x, y, z).
        occlusion: (B, 1, H, W) in (0, 1).
    """

    mask: Tensor
    deformation: Tensor
    occlusion: Tensor


class Warped(NamedTuple):
    """What W gives: (B, 1, 64, 64), (B, 16, 64, 64, 3) and (B, 256, 64, 64)."""

    occlusion: Tensor
    deformation: Tensor
    out: Tensor


class ConvNorm3d(nn.Module):
    """Convolution 3x3x3, BatchNorm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels_in, channels_out, 3, padding=1)
        self.norm = nn.BatchNorm3d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.norm(self.conv(x)))


class DownBlock3d(ConvNorm3d):
    """The same, then an average over 2x2 pixels; depth stays."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool3d(super().forward(x), (1, 2, 2))


class UpBlock3d(ConvNorm3d):
    """Nearest neighbour x2 in the plane first, then the same."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.interpolate(x, scale_factor=(1, 2, 2)))


class Encoder(nn.Module):
    """Five halvings; keeps every level for the decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.down_blocks = nn.ModuleList(DownBlock3d(a, b) for a, b in pairwise(ENCODER_WIDTHS))

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = [x]
        for block in self.down_blocks:
            levels.append(block(levels[-1]))
        return levels


class Decoder(nn.Module):
    """Five doublings, each joined with the encoder's level of its size."""

    def __init__(self) -> None:
        super().__init__()
        self.up_blocks = nn.ModuleList(UpBlock3d(a, b) for a, b in DECODER_WIDTHS)
        self.conv = nn.Conv3d(HOURGLASS_OUT, HOURGLASS_OUT, 3, padding=1)
        self.norm = nn.BatchNorm3d(HOURGLASS_OUT)

    def forward(self, levels: list[Tensor]) -> Tensor:
        x = levels[-1]
        for block, level in zip(self.up_blocks, levels[-2::-1], strict=True):
            x = torch.cat((block(x), level), dim=1)
        return functional.relu(self.norm(self.conv(x)))


class Hourglass(nn.Module):
    """(B, 110, D, H, W) to (B, 142, D, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder = Decoder()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.decoder(self.encoder(x))
        return out


class DenseMotionNetwork(nn.Module):
    """Where each cell of the driven volume is read in the source volume."""

    def __init__(self) -> None:
        super().__init__()
        self.hourglass = Hourglass()
        self.mask = nn.Conv3d(HOURGLASS_OUT, MOTIONS, 7, padding=3)
        self.compress = nn.Conv3d(VOLUME_CHANNELS, COMPRESSED, 1)
        self.norm = nn.BatchNorm3d(COMPRESSED)
        self.occlusion = nn.Conv2d(HOURGLASS_OUT * VOLUME_DEPTH, 1, 7, padding=3)

    def forward(self, feature: Tensor, *, kp_source: Tensor, kp_driving: Tensor) -> DenseMotion:
        batch, _, depth, height, width = feature.shape
        grid = identity_grid(depth, height, width, like=kp_driving)
        motions = self._motions(grid, kp_source, kp_driving)
        compressed = functional.relu(self.norm(self.compress(feature)))
        sampled = sample(
            compressed.repeat_interleave(MOTIONS, dim=0), motions.flatten(0, 1).to(feature.dtype)
        ).view(batch, MOTIONS, COMPRESSED, depth, height, width)
        heat = self._heat_maps(grid, kp_driving) - self._heat_maps(grid, kp_source)
        heat = functional.pad(heat, (0, 0, 0, 0, 0, 0, 1, 0))
        joined = torch.cat((heat[:, :, None].to(sampled.dtype), sampled), dim=2).flatten(1, 2)
        features = self.hourglass(joined)
        mask = functional.softmax(self.mask(features).float(), dim=1)
        # A product and a sum, not a contraction: autocast would run that in half precision.
        deformation = (mask.to(motions.dtype)[..., None] * motions).sum(1)
        with _last_layers(feature.device):
            occlusion = torch.sigmoid(self.occlusion(_wide(features).flatten(1, 2)))
        return DenseMotion(mask, deformation, occlusion)

    @staticmethod
    def _motions(grid: Tensor, kp_source: Tensor, kp_driving: Tensor) -> Tensor:
        """(B, 22, D, H, W, 3): the identity, then the identity moved by each keypoint."""
        shift = functional.pad(kp_source - kp_driving, (0, 0, 1, 0))
        return grid + shift[:, :, None, None, None, :]

    @staticmethod
    def _heat_maps(grid: Tensor, keypoints: Tensor) -> Tensor:
        """(B, 21, D, H, W): a Gaussian around each keypoint."""
        offset = grid - keypoints[:, :, None, None, None, :]
        return torch.exp(-0.5 * offset.square().sum(-1) / HEATMAP_VARIANCE)


class ThirdBlock(nn.Module):
    """Convolution 3x3, BatchNorm, LeakyReLU over the flattened volume."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(VOLUME_CHANNELS * VOLUME_DEPTH, 256, 3, padding=1)
        self.norm = nn.BatchNorm2d(256)

    def forward(self, x: Tensor) -> Tensor:
        return functional.leaky_relu(self.norm(self.conv(x)), 0.01)


class WarpingModule(nn.Module):
    """The source's feature volume, moved to the driven keypoints and flattened for the decoder.

    The two keypoint sets go by keyword: implementations disagree about their order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dense_motion_network = DenseMotionNetwork()
        self.third = ThirdBlock()
        self.fourth = nn.Conv2d(256, 256, 1)

    def forward(self, feature: Tensor, *, kp_source: Tensor, kp_driving: Tensor) -> Warped:
        motion: DenseMotion = self.dense_motion_network(
            feature, kp_source=kp_source, kp_driving=kp_driving
        )
        moved = sample(feature, motion.deformation.to(feature.dtype)).flatten(1, 2)
        with _last_layers(feature.device):
            out: Tensor = self.fourth(self.third(_wide(moved)))
        return Warped(motion.occlusion, motion.deformation, out * motion.occlusion)


def last_dtype(dtype: torch.dtype) -> torch.dtype:
    """What the occlusion, `third` and `fourth` run in where the rest runs in `dtype`.

    bfloat16 has eight bits, and what these lose of them is in every part of the picture.
    """
    return torch.float32 if dtype == torch.bfloat16 else dtype


def _wide(x: Tensor) -> Tensor:
    return x.to(last_dtype(x.dtype))


def _last_layers(device: torch.device) -> AbstractContextManager[Any]:
    """Autocast as it is, or none of it where it is bfloat16's."""
    narrow = torch.is_autocast_enabled(device.type)
    if narrow and last_dtype(torch.get_autocast_dtype(device.type)) == torch.float32:
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
