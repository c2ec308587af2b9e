"""G with less work for the same picture (specification 12): the plain form is `spade_generator`.

- Spectral norm and SPADE's "1 +" are folded into weights.
- Nothing is upsampled. A 3x3 convolution of a nearest-upsampled map has taps that read the same
  cell; they are added up beforehand, per output phase. For `up_1` the hidden map itself has only
  3x3 distinct values per cell of 4x4 pixels, so it is kept condensed and the convolutions after
  it stride over it.
- The InstanceNorm of an upsampled tensor is the upsampled InstanceNorm: statistics are taken
  once, small, for `norm_0` and `norm_s` together.
- No activation lies between `norm_s` and `conv_s`, so beta's way through them is one convolution.

Not used: `fc` and the twelve hidden maps of the middle blocks as one convolution (170 against
152 ms in float32 on one core of an EPYC with AVX-512), and gamma with beta as one outside `up_1`
(40.5 against 37.6 ms for 512 channels).

Tensors are channels-last, one picture at a time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.liveportrait import folding
from pipeline.liveportrait.folding import Folded
from pipeline.liveportrait.spade_generator import (
    HIDDEN,
    NORM_EPS,
    SpadeGenerator,
    SpadeNorm,
    SpadeResBlock,
    SpectralConv2d,
)

_SLOPE = 0.2
_SIDE = 64
_NHWC = torch.channels_last


class FastGenerator:
    """(1, 256, 64, 64) features to the (1, 3, 512, 512) picture in (0, 1), float32.

    Args:
        plain: the network whose weights are taken; it is not changed.
        dtype: of weights and activations.
    """

    def __init__(self, plain: SpadeGenerator, dtype: torch.dtype, device: torch.device) -> None:
        self._dtype = dtype
        self._fc = folding.plain(plain.fc).ready(dtype, device)
        self._middle = [
            _MiddleBlock(block, dtype, device)
            for block in (plain.get_submodule(f"G_middle_{i}") for i in range(6))
            if isinstance(block, SpadeResBlock)
        ]
        self._up_0 = _DoubledBlock(plain.up_0, dtype, device)
        self._up_1 = _QuadrupledBlock(plain.up_1, dtype, device)
        image = plain.conv_img[0]
        assert isinstance(image, torch.nn.Conv2d)
        self._image = folding.plain(image).ready(dtype, device)

    def __call__(self, features: Tensor) -> Tensor:
        segment = features.to(self._dtype).contiguous(memory_format=_NHWC)
        x = _conv(segment, self._fc)
        for block in self._middle:
            x = block(x, segment)
        x = self._up_1(self._up_0(x, segment), segment)
        image = _conv(functional.leaky_relu_(x, _SLOPE), self._image)
        return _squashed(functional.pixel_shuffle(image, 2)).contiguous()


class _MiddleBlock:
    """A residual block at the features' own size."""

    def __init__(self, block: SpadeResBlock, dtype: torch.dtype, device: torch.device) -> None:
        def ready(*parts: Folded) -> list[Folded]:
            return [part.ready(dtype, device) for part in parts]

        self._norms = [
            ready(_shared(norm), *_modulation(norm)) for norm in (block.norm_0, block.norm_1)
        ]
        self._convs = ready(_normalised(block.conv_0), _normalised(block.conv_1))

    def __call__(self, x: Tensor, segment: Tensor) -> Tensor:
        y = x
        for (shared, gamma, beta), conv in zip(self._norms, self._convs, strict=True):
            hidden = functional.relu_(_conv(segment, shared))
            y = _modulated(_whitened(y), _conv(hidden, gamma), _conv(hidden, beta))
            y = _conv(functional.leaky_relu_(y, _SLOPE), conv)
        return y.add_(x)


class _DoubledBlock:
    """`up_0`: (1, 512, 64, 64) to (1, 256, 128, 128); its input counts as upsampled x2."""

    def __init__(self, block: SpadeResBlock, dtype: torch.dtype, device: torch.device) -> None:
        def ready(*parts: Folded) -> list[Folded]:
            return [part.ready(dtype, device) for part in parts]

        norms = (block.norm_0, block.norm_s, block.norm_1)
        shared = folding.stacked([_shared(norm) for norm in norms])
        self._shared = [ready(*row) for row in folding.phases(shared, folding.DOUBLED)]
        self._gamma_0, self._beta_0 = ready(*_modulation(block.norm_0))
        self._gamma_1, self._beta_1 = ready(*_modulation(block.norm_1))
        shortcut = _normalised(block.conv_s)
        gamma_s, beta_s = _modulation(block.norm_s)
        self._gamma_s, self._beta_s = ready(gamma_s, _through(shortcut, beta_s))
        self._conv_0, self._conv_1, self._conv_s = ready(
            _normalised(block.conv_0), _normalised(block.conv_1), shortcut
        )

    def __call__(self, x: Tensor, segment: Tensor) -> Tensor:
        hidden_0, hidden_s, hidden_1 = self._hidden(segment)
        small = _whitened(x)
        y = _modulated_doubled(small, _conv(hidden_0, self._gamma_0), _conv(hidden_0, self._beta_0))
        y = _whitened(_conv(functional.leaky_relu_(y, _SLOPE), self._conv_0))
        y = _modulated(y, _conv(hidden_1, self._gamma_1), _conv(hidden_1, self._beta_1))
        y = _conv(functional.leaky_relu_(y, _SLOPE), self._conv_1)
        scaled = _scaled_doubled(small, _conv(hidden_s, self._gamma_s))
        return y.add_(_conv(scaled, self._conv_s)).add_(_conv(hidden_s, self._beta_s))

    def _hidden(self, segment: Tensor) -> list[Tensor]:
        maps = [
            segment.new_empty((1, HIDDEN, 2 * _SIDE, 2 * _SIDE)).contiguous(memory_format=_NHWC)
            for _ in range(3)
        ]
        for p, row in enumerate(self._shared):
            for q, conv in enumerate(row):
                hidden = functional.relu_(_cells(segment, conv, p, q))
                for index, whole in enumerate(maps):
                    part = hidden[:, index * HIDDEN : (index + 1) * HIDDEN]
                    whole[:, :, p::2, q::2] = part
        return maps


class _QuadrupledBlock:
    """`up_1`: (1, 256, 128, 128) to (1, 64, 256, 256).

    The input counts as upsampled x2 and the features as upsampled x4. The condensed hidden map
    has the rows and columns (first, inner, last) of every cell, 192 in all, with a border of one
    zero row. It is kept twice, from column 0 and from column 1, so that every phase's
    convolution reads a contiguous block.
    """

    def __init__(self, block: SpadeResBlock, dtype: torch.dtype, device: torch.device) -> None:
        def ready(*parts: Folded) -> list[Folded]:
            return [part.ready(dtype, device) for part in parts]

        def after(*parts: Folded) -> list[list[Folded]]:
            rows = folding.phases(folding.stacked(parts), folding.AFTER_QUADRUPLED)
            return [ready(*row) for row in rows]

        norms = (block.norm_0, block.norm_s, block.norm_1)
        shared = folding.stacked([_shared(norm) for norm in norms])
        self._shared = [ready(*row) for row in folding.phases(shared, folding.QUADRUPLED)]
        shortcut = _normalised(block.conv_s)
        gamma_s, beta_s = _modulation(block.norm_s)
        self._norm_0 = after(*_modulation(block.norm_0))
        self._norm_s = after(gamma_s, _through(shortcut, beta_s))
        self._norm_1 = after(*_modulation(block.norm_1))
        self._conv_0, self._conv_1, self._conv_s = ready(
            _normalised(block.conv_0), _normalised(block.conv_1), shortcut
        )

    def __call__(self, x: Tensor, segment: Tensor) -> Tensor:
        hidden_0, hidden_s, hidden_1 = self._hidden(segment)
        small = _whitened(x)
        side = 4 * _SIDE
        y = small.new_empty((1, small.shape[1], side, side)).contiguous(memory_format=_NHWC)
        out = small.new_empty((1, len(self._conv_1.bias), side, side)).contiguous(
            memory_format=_NHWC
        )
        for p in range(4):
            for q in range(4):
                cell = small[:, :, p // 2 :: 2, q // 2 :: 2]
                gamma, beta = hidden_0.convolved(self._norm_0[p][q], p, q).chunk(2, dim=1)
                modulated = functional.leaky_relu_(torch.addcmul(beta, cell, gamma), _SLOPE)
                y[:, :, p::4, q::4] = modulated
                both = hidden_s.convolved(self._norm_s[p][q], p, q)
                scaled = cell * both[:, : small.shape[1]]
                shortcut = _conv(scaled, self._conv_s)
                out[:, :, p::4, q::4] = shortcut.add_(both[:, small.shape[1] :])
        y = _whitened(_conv(y, self._conv_0))
        for p in range(4):
            for q in range(4):
                cell = y[:, :, p::4, q::4]
                gamma, beta = hidden_1.convolved(self._norm_1[p][q], p, q).chunk(2, dim=1)
                cell.copy_(functional.leaky_relu_(torch.addcmul(beta, cell, gamma), _SLOPE))
        return out.add_(_conv(y, self._conv_1))

    def _hidden(self, segment: Tensor) -> list[_Condensed]:
        maps = [_Condensed.zeros(segment) for _ in range(3)]
        for p, row in enumerate(self._shared):
            for q, conv in enumerate(row):
                hidden = functional.relu_(_cells(segment, conv, p, q))
                for index, condensed in enumerate(maps):
                    condensed.put(hidden[:, index * HIDDEN : (index + 1) * HIDDEN], p, q)
        return maps


class _Condensed(NamedTuple):
    """A hidden map of `up_1`: (1, 128, 194, 192) twice, rows -1 to 192.

    Attributes:
        even: columns 0 to 191. odd: columns 1 to 192.
    """

    even: Tensor
    odd: Tensor

    @classmethod
    def zeros(cls, like: Tensor) -> _Condensed:
        shape = (1, 3 * _SIDE + 2, 3 * _SIDE, HIDDEN)
        even, odd = (like.new_zeros(shape).permute(0, 3, 1, 2) for _ in range(2))
        return cls(even, odd)

    def put(self, cells: Tensor, p: int, q: int) -> None:
        """Set the values of row phase p and column phase q, each of three."""
        rows = slice(1 + p, -1, 3)
        self.even[:, :, rows, q::3] = cells
        if q == 0:
            self.odd[:, :, rows, 2:-1:3] = cells[..., 1:]
        else:
            self.odd[:, :, rows, q - 1 :: 3] = cells

    def convolved(self, conv: Folded, p: int, q: int) -> Tensor:
        """(1, C, 64, 64): output pixels of row phase p and column phase q, each of four."""
        first = min(p, 2)
        rows = slice(first, first + 3 * (_SIDE - 1) + conv.weight.shape[2])
        source = self.even if q < 2 else self.odd
        padding = (0, 1 if q == 0 else 0)
        return functional.conv2d(
            source[:, :, rows], conv.weight, conv.bias, stride=3, padding=padding
        )


def _cells(segment: Tensor, conv: Folded, p: int, q: int) -> Tensor:
    """One phase of a convolution over upsampled features, at the features' own size.

    A phase of two taps reads its cell and the one before (phase 0) or after.
    """
    height, width = conv.weight.shape[2:]
    out = functional.conv2d(segment, conv.weight, conv.bias, padding=(height - 1, width - 1))
    if height == 2:
        out = out[:, :, :-1] if p == 0 else out[:, :, 1:]
    if width == 2:
        out = out[..., :-1] if q == 0 else out[..., 1:]
    return out


def _conv(x: Tensor, conv: Folded) -> Tensor:
    return functional.conv2d(x, conv.weight, conv.bias, padding=conv.weight.shape[-1] // 2)


def _squashed(x: Tensor) -> Tensor:
    """The sigmoid in float32; not a number where a half overflowed, rather than white or black."""
    x = x.float()
    return torch.sigmoid(x).add_(x * 0.0)


def _whitened(x: Tensor) -> Tensor:
    """InstanceNorm of one picture, by the kernel for BatchNorm, which knows channels-last."""
    return functional.batch_norm(x, None, None, training=True, eps=NORM_EPS)


def _modulated(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    return torch.addcmul(beta, x, gamma)


def _doubled(x: Tensor) -> Tensor:
    """(1, C, H, W) as (H, 2, W, 2, C), every value standing for 2x2 pixels."""
    return x[0].permute(1, 2, 0)[:, None, :, None].expand(-1, 2, -1, 2, -1)


def _pairs(x: Tensor) -> Tensor:
    """(1, C, 2H, 2W) as (H, 2, W, 2, C)."""
    return x[0].permute(1, 2, 0).unfold(0, 2, 2).unfold(1, 2, 2).permute(0, 3, 1, 4, 2)


def _modulated_doubled(small: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """beta + upsampled(small) gamma, in place of gamma."""
    _pairs(gamma).mul_(_doubled(small))
    return gamma.add_(beta)


def _scaled_doubled(small: Tensor, gamma: Tensor) -> Tensor:
    """upsampled(small) gamma, in place of gamma."""
    _pairs(gamma).mul_(_doubled(small))
    return gamma


def _shared(norm: SpadeNorm) -> Folded:
    conv = norm.mlp_shared[0]
    assert isinstance(conv, torch.nn.Conv2d)
    return folding.plain(conv)


def _modulation(norm: SpadeNorm) -> tuple[Folded, Folded]:
    """1 + gamma, and beta."""
    gamma, beta = folding.plain(norm.mlp_gamma), folding.plain(norm.mlp_beta)
    return Folded(gamma.weight, gamma.bias + 1), beta


def _normalised(conv: SpectralConv2d) -> Folded:
    """The convolution with its spectral norm divided out."""
    weight = conv.weight_orig.double()
    sigma = torch.dot(conv.weight_u.double(), weight.flatten(1) @ conv.weight_v.double())
    bias = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.double()
    return Folded(weight / sigma, bias)


def _through(pointwise: Folded, conv: Folded) -> Folded:
    """A convolution and then a 1x1 convolution without bias, as one."""
    mix = pointwise.weight[:, :, 0, 0]
    return Folded(torch.einsum("om,mcij->ocij", mix, conv.weight), mix @ conv.bias)
