"""G: the SPADE decoder, warped features to the picture (specification 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

SEGMENT_CHANNELS = 256
HIDDEN = 128
NORM_EPS = 1e-5
_SLOPE = 0.2


class SpectralConv2d(nn.Module):
    """A convolution whose checkpoint holds the weight before its spectral normalisation.

    The weight in use is `weight_orig` over u . reshape(weight_orig, [out, -1]) . v, with the
    stored vectors as they are (specification 2.2).
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, channels_in: int, channels_out: int, kernel: int, bias: bool = True) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels_out)) if bias else None
        self.weight_orig = nn.Parameter(torch.zeros(channels_out, channels_in, kernel, kernel))
        self.register_buffer("weight_u", torch.zeros(channels_out))
        self.register_buffer("weight_v", torch.zeros(channels_in * kernel * kernel))

    def weight(self) -> Tensor:
        """The normalised weight."""
        sigma = torch.dot(self.weight_u, torch.mv(self.weight_orig.flatten(1), self.weight_v))
        return self.weight_orig / sigma

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(
            x, self.weight(), self.bias, padding=self.weight_orig.shape[-1] // 2
        )


class SpadeNorm(nn.Module):
    """InstanceNorm whose scale and shift come from a map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(
            nn.Conv2d(SEGMENT_CHANNELS, HIDDEN, 3, padding=1), nn.ReLU()
        )
        self.mlp_gamma = nn.Conv2d(HIDDEN, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(HIDDEN, channels, 3, padding=1)

    def forward(self, x: Tensor, segment: Tensor) -> Tensor:
        hidden = self.mlp_shared(functional.interpolate(segment, size=x.shape[-2:]))
        gamma: Tensor = self.mlp_gamma(hidden)
        beta: Tensor = self.mlp_beta(hidden)
        return functional.instance_norm(x, eps=NORM_EPS) * (1 + gamma) + beta


class SpadeResBlock(nn.Module):
    """Residual block; the shortcut is learned where the width changes."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        middle = min(channels_in, channels_out)
        self.learned_shortcut = channels_in != channels_out
        self.conv_0 = SpectralConv2d(channels_in, middle, 3)
        self.conv_1 = SpectralConv2d(middle, channels_out, 3)
        self.norm_0 = SpadeNorm(channels_in)
        self.norm_1 = SpadeNorm(middle)
        if self.learned_shortcut:
            self.conv_s = SpectralConv2d(channels_in, channels_out, 1, bias=False)
            self.norm_s = SpadeNorm(channels_in)

    def forward(self, x: Tensor, segment: Tensor) -> Tensor:
        shortcut = self.conv_s(self.norm_s(x, segment)) if self.learned_shortcut else x
        y = self.conv_0(functional.leaky_relu(self.norm_0(x, segment), _SLOPE))
        y = self.conv_1(functional.leaky_relu(self.norm_1(y, segment), _SLOPE))
        out: Tensor = shortcut + y
        return out


class SpadeGenerator(nn.Module):
    """(B, 256, 64, 64) features to the (B, 3, 512, 512) picture in (0, 1).

    The features are both the signal and the map that modulates it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Conv2d(SEGMENT_CHANNELS, 512, 3, padding=1)
        for index in range(6):
            self.add_module(f"G_middle_{index}", SpadeResBlock(512, 512))
        self.up_0 = SpadeResBlock(512, 256)
        self.up_1 = SpadeResBlock(256, 64)
        self.conv_img = nn.Sequential(nn.Conv2d(64, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, segment: Tensor) -> Tensor:
        x = self.fc(segment)
        for index in range(6):
            x = self.get_submodule(f"G_middle_{index}")(x, segment)
        x = self.up_0(functional.interpolate(x, scale_factor=2), segment)
        x = self.up_1(functional.interpolate(x, scale_factor=2), segment)
        return torch.sigmoid(self.conv_img(functional.leaky_relu(x, _SLOPE)))
