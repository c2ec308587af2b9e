"""Volumes as batches of slices: convolved, upsampled and moved.

A volume of (1, C, D, H, W) is kept as (D, C, H, W), channels innermost in memory: the same bytes
are the volume and a batch of D pictures.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.liveportrait.folding import Folded

_TAPS = 3


def translated(volume: Tensor, shift: Tensor) -> Tensor:
    """Sample a volume at the identity moved by each of K shifts: (K, C, D, H, W).

    Args:
        volume: (C, D, H, W). shift: (K, 3) as (x, y, z).
    """
    channels, depth, height, width = volume.shape
    x, y, z = (_reading(n, shift[:, i]) for i, n in enumerate((width, height, depth)))
    moved = torch.matmul(z, volume.transpose(0, 1).reshape(depth, -1))
    moved = moved.reshape(-1, depth, channels, height, width).transpose(1, 2)
    moved = torch.matmul(y[:, None, None], moved)
    return torch.matmul(moved, x.transpose(1, 2)[:, None, None])


def _reading(cells: int, shift: Tensor) -> Tensor:
    """(K, N, N) matrices that read an axis of N cells, each cell moved by a shift.

    Cell i reads at ((2i/(N-1) - 1 + shift + 1) N - 1)/2 with two linear taps, zero outside.
    """
    index = torch.arange(cells, dtype=shift.dtype, device=shift.device)
    position = ((2 * index / (cells - 1) + shift[:, None]) * cells - 1) / 2
    return torch.clamp_(1 - (position[..., None] - index).abs_(), min=0)


def pointwise(volume: Tensor, conv: Folded) -> Tensor:
    """A 1x1x1 convolution of (1, C, D, H, W), as one in two dimensions."""
    flat = functional.conv2d(volume.flatten(2, 3), conv.weight[..., 0], conv.bias)
    return flat.reshape(*flat.shape[:2], *volume.shape[2:])


def convolved_relu(x: Tensor, conv: Folded) -> Tensor:
    """Convolution and ReLU of (D, C, H, W)."""
    return functional.relu_(convolved(x, conv))


def convolved(x: Tensor, conv: Folded) -> Tensor:
    """Convolution of (D, C, H, W), every axis padded by one; by slices if `folding.sliced`."""
    if conv.weight.dim() == 5:
        out = functional.conv3d(x.transpose(0, 1)[None], conv.weight, conv.bias, padding=1)
        return out[0].transpose(0, 1)
    parts = functional.conv2d(x, conv.weight, padding=1)
    out = conv.bias[:, None, None].expand(len(x), -1, *parts.shape[2:]).contiguous()
    return add_over_depth(out, parts, _TAPS)


def add_over_depth(out: Tensor, parts: Tensor, taps: int) -> Tensor:
    """Add every depth tap's result for the slice that it reads to the slice it counts for.

    Args:
        out: (D, C, H, W). parts: (D, taps C or more, H, W), one block of C for each tap.
    """
    depth, channels = out.shape[:2]
    for tap in range(taps):
        offset = tap - taps // 2
        to = slice(max(0, -offset), depth - max(0, offset))
        of = slice(max(0, offset), depth - max(0, -offset))
        out[to] += parts[of, tap * channels : (tap + 1) * channels]
    return out


def upsampled_convolved_relu(x: Tensor, rows: list[list[Folded]]) -> Tensor:
    """Convolution and ReLU of (D, C, H, W) upsampled to (D, C, 2H, 2W)."""
    depth, _, height, width = x.shape
    channels = len(rows[0][0].bias)
    out = x.new_empty((depth, 2 * height, 2 * width, channels)).permute(0, 3, 1, 2)
    for p, row in enumerate(rows):
        for q, conv in enumerate(row):
            phase = convolved(x, conv)
            out[:, :, p::2, q::2] = phase[:, :, p : p + height, q : q + width]
    return functional.relu_(out)
