"""F: the appearance feature extractor, a picture to a feature volume (specification 3.1)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

VOLUME_CHANNELS = 32
VOLUME_DEPTH = 16


class ConvNorm(nn.Module):
    """Convolution 3x3, BatchNorm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.norm(self.conv(x)))


class DownBlock(ConvNorm):
    """The same, then an average over 2x2 pixels."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(super().forward(x), 2)


class ResBlock3d(nn.Module):
    """Pre-activation residual block over a volume."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)
        self.norm1 = nn.BatchNorm3d(channels)
        self.norm2 = nn.BatchNorm3d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv1(functional.relu(self.norm1(x)))
        y = self.conv2(functional.relu(self.norm2(y)))
        return x + y


class AppearanceFeatureExtractor(nn.Module):
    """(B, 3, 256, 256) picture in [0, 1] to the (B, 32, 16, 64, 64) feature volume."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ConvNorm(3, 64)
        self.down_blocks = nn.ModuleList([DownBlock(64, 128), DownBlock(128, 256)])
        self.second = nn.Conv2d(256, VOLUME_CHANNELS * VOLUME_DEPTH, 1)
        self.resblocks_3d = nn.Sequential()
        for index in range(6):
            self.resblocks_3d.add_module(f"3dr{index}", ResBlock3d(VOLUME_CHANNELS))

    def forward(self, image: Tensor) -> Tensor:
        x: Tensor = self.first(image)
        for block in self.down_blocks:
            x = block(x)
        x = self.second(x)
        volume: Tensor = self.resblocks_3d(
            x.reshape(len(x), VOLUME_CHANNELS, VOLUME_DEPTH, x.shape[-2], x.shape[-1])
        )
        return volume
