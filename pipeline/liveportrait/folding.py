"""Exact algebra on weights, done once when they are loaded (specification 12.2 and 12.3).

Everything is computed in float64 and rounded once, to the dtype that runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

Conv = nn.Conv2d | nn.Conv3d
Norm = nn.BatchNorm2d | nn.BatchNorm3d

# How the three taps of a kernel fall onto the cells of a nearest-upsampled input, one matrix
# per output phase: rows are the distinct cells read, in ascending order.
_ALL: Final = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
_JOIN_LAST: Final = ((1, 0, 0), (0, 1, 1))
_JOIN_FIRST: Final = ((1, 1, 0), (0, 0, 1))
_JOIN_ALL: Final = ((1, 1, 1),)
Taps = tuple[tuple[int, ...], ...]

# x2: an even pixel reads the cell before and its own, an odd one its own and the next.
DOUBLED: Final[tuple[Taps, ...]] = (_JOIN_LAST, _JOIN_FIRST)
# x4: the first pixel of a cell, the two inner ones (which are equal) and the last.
QUADRUPLED: Final[tuple[Taps, ...]] = (_JOIN_LAST, _JOIN_ALL, _JOIN_FIRST)
# A second convolution over such a x4 result, whose cells are (first, inner, last).
AFTER_QUADRUPLED: Final[tuple[Taps, ...]] = (_ALL, _JOIN_LAST, _JOIN_FIRST, _ALL)


class Folded(NamedTuple):
    """A convolution's weight and bias, float64 until `ready`."""

    weight: Tensor
    bias: Tensor

    def ready(self, dtype: torch.dtype, device: torch.device) -> Folded:
        """The same in the dtype and on the device that run, channels innermost.

        Not so on MPS, which keeps its own order and has been wrong about others.
        """
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        weight = self.weight.to(dtype).to(device)  # in this order: not every device knows float64
        if self.weight.dim() in formats and device.type != "mps":
            weight = weight.contiguous(memory_format=formats[self.weight.dim()])
        return Folded(weight, self.bias.to(dtype).to(device))


def plain(conv: Conv) -> Folded:
    """A convolution as it is."""
    assert conv.bias is not None
    return Folded(conv.weight.double(), conv.bias.double())


def with_norm(conv: Conv, norm: Norm) -> Folded:
    """A convolution and the BatchNorm after it as one convolution."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    folded = plain(conv)
    gain = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    shape = (-1, *(1,) * (folded.weight.dim() - 1))
    bias = (folded.bias - norm.running_mean.double()) * gain + norm.bias.double()
    return Folded(folded.weight * gain.reshape(shape), bias)


def stacked(parts: Sequence[Folded]) -> Folded:
    """Convolutions of one input as one convolution with all their outputs."""
    return Folded(torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts]))


def merged_taps(weight: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """The kernel of one output phase: taps that read the same cell are added.

    Args:
        weight: (out, in, ..., 3, 3).
        rows, columns: which taps fall together on either axis.
    """
    return _joined(_joined(weight, -2, rows), -1, columns)


def _joined(weight: Tensor, axis: int, taps: Taps) -> Tensor:
    slices = weight.unbind(axis)
    chosen = ([slices[i] for i, used in enumerate(row) if used] for row in taps)
    return torch.stack([reduce(torch.add, group) for group in chosen], dim=axis)


def phases(folded: Folded, taps: Sequence[Taps]) -> list[list[Folded]]:
    """Every phase's convolution, by row phase and column phase."""
    return [
        [Folded(merged_taps(folded.weight, rows, columns), folded.bias) for columns in taps]
        for rows in taps
    ]


def taking_inputs(folded: Folded, channels: Sequence[int | None]) -> Folded:
    """A convolution of rearranged channels, None where there is nothing to read."""
    zeros = torch.zeros_like(folded.weight[:, 0])
    taken = [zeros if c is None else folded.weight[:, c] for c in channels]
    return Folded(torch.stack(taken, dim=1), folded.bias)


def with_more_inputs(folded: Folded, count: int) -> Folded:
    """A convolution of `count` channels, those behind its own not read."""
    own = folded.weight.shape[1]
    return taking_inputs(folded, [*range(own), *[None] * (count - own)])


def with_more_outputs(folded: Folded, lanes: int) -> Folded:
    """A convolution whose outputs are followed by zeros, up to a multiple of `lanes`."""
    more = -len(folded.bias) % lanes
    weight = torch.cat((folded.weight, folded.weight.new_zeros(more, *folded.weight.shape[1:])))
    return Folded(weight, functional.pad(folded.bias, (0, more)))


def sliced(conv: Folded) -> Folded:
    """A kernel over a volume as one over slices: all outputs of the first depth tap, and so on."""
    return Folded(conv.weight.permute(2, 0, 1, 3, 4).flatten(0, 1), conv.bias)


def without_bias(conv: Folded) -> Folded:
    """A kernel whose bias is added later; outputs are as many as the weight has."""
    return Folded(conv.weight, conv.weight.new_zeros(len(conv.weight)))
