"""W with less work for the same result (specification 12): the plain form is `warping_module`.

Geometry (keypoints, heat maps, mask softmax, deformation) stays in float32 whatever the
networks run in: half precision would quantise small motions (specification 10). With bfloat16's
eight bits the occlusion and the two last convolutions stay in float32, too: for 1.5 % of a frame's
time W's error is a half to a quarter, and the picture up to 3 dB nearer to float32's.

- What depends on the source alone is computed once per source: `WarpSource`.
- A keypoint's motion only translates, so its samples are three one-dimensional interpolations,
  written as small matrix products; heat maps are outer products of three Gaussians.
- BatchNorm is folded; convolutions of upsampled inputs are one kernel per output phase.
- The softmax does not see a common shift: the background's mask kernel is subtracted from the
  others and its logit is 0. Because the mask sums to 1, the deformation is the identity plus the
  masked shifts of the 21 keypoints.
- The 7x7x7 mask convolution runs over 16 slices in two dimensions, then sums over depth. So do
  all others on MPS, where torch has had no or a wrong three-dimensional convolution.
- On CUDA every number of channels is padded with zeros to a multiple of eight: tensor cores take
  no others channels-last in half precision.

Not used: the hourglass input's constant channels as cached bias maps (of the two convolutions'
time 5 to 8 % in float32, which is 0.5 % of a frame, and slower in bfloat16, for 54 MB per
portrait; one core of an EPYC with AVX-512), the mask convolution by FFT (its transformed kernel
alone is 1.5 GB), and the hourglass's convolutions over slices (382 against 265 ms for the first,
1376 against 881 ms for the last, same core, float32; 365 against 302 in bfloat16).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.liveportrait import folding, volumes
from pipeline.liveportrait.folding import Folded
from pipeline.liveportrait.sampling import identity_grid, sample
from pipeline.liveportrait.warping_module import (
    COMPRESSED,
    DECODER_WIDTHS,
    HEATMAP_VARIANCE,
    MOTIONS,
    ConvNorm3d,
    Warped,
    WarpingModule,
    last_dtype,
)

_DEPTH, _SIDE = 16, 64
_TAPS = 7
_MARGIN = _TAPS // 2
_TENSOR_CORE_LANES = 8


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class WarpSource:
    """What W needs of a source, however often it is driven.

    Attributes:
        feature: (1, 32, 16, 64, 64) float32 volume.
        keypoints: (1, 21, 3) float32, x_s.
        compressed: (4, 16, 64, 64) float32, the compressed volume.
        background: (16, 64, 64, 4), its samples at the identity, in the networks' dtype; then
            the zeros that fill the hourglass's input up.
        heat: (16, 64, 64, 21) float32 heat maps of the source's keypoints.
    """

    feature: Tensor
    keypoints: Tensor
    compressed: Tensor
    background: Tensor
    heat: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of it."""
        return self.feature, self.keypoints, self.compressed, self.background, self.heat

    def copied(self) -> WarpSource:
        """The same in memory of its own."""
        return WarpSource(*(tensor.clone() for tensor in self.tensors))


class FastWarping:
    """A source, driven: the same as the plain W, one picture at a time.

    Args:
        plain: the network whose weights are taken; it is not changed.
        dtype: of weights and activations in the hourglass and, unless it is bfloat16, after it.
        lanes: numbers of channels are padded to a multiple of this; the device's if not given.
        by_slices: convolve volumes in two dimensions; where the device needs it if not given.
    """

    def __init__(
        self,
        plain: WarpingModule,
        dtype: torch.dtype,
        device: torch.device,
        *,
        lanes: int | None = None,
        by_slices: bool | None = None,
    ) -> None:
        self._dtype, self._last_dtype = dtype, last_dtype(dtype)
        lanes = lanes or (_TENSOR_CORE_LANES if device.type == "cuda" else 1)
        by_slices = device.type == "mps" if by_slices is None else by_slices
        dense = plain.dense_motion_network
        compress = folding.with_norm(dense.compress, dense.norm)
        self._compress = Folded(*(t.float().to(device) for t in compress))
        encoder, decoder = dense.hourglass.encoder, dense.hourglass.decoder
        order = _input_order(lanes)
        self._padding = order.count(None)

        def ready(folded: Folded) -> Folded:
            volume = folded.weight.dim() == 5
            return (folding.sliced(folded) if by_slices and volume else folded).ready(dtype, device)

        def ready_last(folded: Folded) -> Folded:
            return folded.ready(self._last_dtype, device)

        down = [folding.with_norm(block.conv, block.norm) for block in _blocks(encoder.down_blocks)]
        down[0] = folding.taking_inputs(down[0], order)
        self._down = [ready(folded) for folded in down]
        self._up = [
            [
                [ready(phase) for phase in row]
                for row in folding.phases(
                    folding.with_norm(block.conv, block.norm), folding.DOUBLED
                )
            ]
            for block in _blocks(decoder.up_blocks)
        ]
        width = DECODER_WIDTHS[-1][1]
        last = [*range(width), *(c if c is None else width + c for c in order)]
        final = folding.taking_inputs(folding.with_norm(decoder.conv, decoder.norm), last)
        self._last = ready(folding.with_more_outputs(final, lanes))
        features = len(self._last.bias)
        mask = folding.with_more_inputs(folding.plain(dense.mask), features)
        sliced = folding.without_bias(folding.sliced(_relative(mask)))
        self._mask = folding.with_more_outputs(sliced, lanes).ready(dtype, device)
        self._mask_bias = _relative(mask).bias.float().to(device)
        occlusion = _tap_matrices(folding.plain(dense.occlusion), features)
        self._occlusion = ready_last(occlusion)
        self._third = ready_last(folding.with_norm(plain.third.conv, plain.third.norm))
        self._fourth = ready_last(folding.plain(plain.fourth))
        self._grid = identity_grid(_DEPTH, _SIDE, _SIDE, like=torch.zeros(1, device=device))

    def prepare(self, feature: Tensor, kp_source: Tensor) -> WarpSource:
        """Do what depends on the source alone.

        Args:
            feature: (1, 32, 16, 64, 64) float32. kp_source: (1, 21, 3) float32.
        """
        compressed = functional.relu(volumes.pointwise(feature, self._compress))
        background = sample(compressed, self._grid[None])[0].permute(1, 2, 3, 0)
        background = functional.pad(background, (0, self._padding))
        return WarpSource(
            feature.contiguous(),
            kp_source,
            compressed[0],
            background.to(self._dtype).contiguous(),
            self._heat_maps(kp_source),
        )

    def __call__(self, source: WarpSource, kp_driving: Tensor) -> Warped:
        """Drive a source with (1, 21, 3) float32 keypoints; all results are float32."""
        shift = source.keypoints[0] - kp_driving[0]
        features = self._hourglass(self._hourglass_input(source, kp_driving, shift))
        mask = functional.softmax(self._mask_logits(features), dim=-1)
        deformation = torch.matmul(mask[..., 1:], shift).add_(self._grid)[None]
        occlusion = self._occlude(features)
        moved = sample(source.feature, deformation).reshape(1, -1, _SIDE, _SIDE)
        moved = moved.to(self._last_dtype).contiguous(memory_format=torch.channels_last)
        third = functional.conv2d(moved, *self._third, padding=1)
        fourth = functional.conv2d(functional.leaky_relu_(third, 0.01), *self._fourth)
        out = fourth.float() * occlusion
        return Warped(occlusion, deformation, out)

    def _hourglass_input(self, source: WarpSource, kp_driving: Tensor, shift: Tensor) -> Tensor:
        """(16, 109, 64, 64): background samples, heat maps, samples of the 21 motions.

        With padding, that many more behind the background's.
        """
        heat = self._heat_maps(kp_driving).sub_(source.heat)
        moved = volumes.translated(source.compressed, shift).permute(2, 3, 4, 0, 1).flatten(3)
        parts = (source.background, heat.to(self._dtype), moved.to(self._dtype))
        return torch.cat(parts, dim=-1).permute(0, 3, 1, 2)

    def _heat_maps(self, keypoints: Tensor) -> Tensor:
        """(16, 64, 64, 21): exp(-|g - kp|^2 / 2v) as a product of three Gaussians."""
        grid = self._grid
        axes = (grid[0, 0, :, 0], grid[0, :, 0, 1], grid[:, 0, 0, 2])
        x, y, z = (
            torch.exp((axis[:, None] - keypoints[0, :, i]).square_() * (-0.5 / HEATMAP_VARIANCE))
            for i, axis in enumerate(axes)
        )
        return z[:, None, None] * (y[:, None] * x)

    def _hourglass(self, x: Tensor) -> Tensor:
        """(16, 109, 64, 64) to (16, 142, 64, 64)."""
        levels = [x]
        for conv in self._down:
            levels.append(functional.avg_pool2d(volumes.convolved_relu(levels[-1], conv), 2))
        x = levels.pop()
        for row, level in zip(self._up, reversed(levels), strict=True):
            x = torch.cat((volumes.upsampled_convolved_relu(x, row), level), dim=1)
        return volumes.convolved_relu(x, self._last)

    def _mask_logits(self, features: Tensor) -> Tensor:
        """(16, 64, 64, 22) float32, the background's first and zero."""
        parts = functional.conv2d(features, self._mask.weight, padding=_MARGIN)
        logits = features.new_zeros((_DEPTH, _SIDE, _SIDE, MOTIONS), dtype=torch.float32)
        moving = logits[..., 1:]
        moving += self._mask_bias
        volumes.add_over_depth(moving.permute(0, 3, 1, 2), parts, _TAPS)
        return logits

    def _occlude(self, features: Tensor) -> Tensor:
        """(1, 1, 64, 64) float32: each tap as a matrix product, then one sum over the taps."""
        pixels = features.permute(0, 2, 3, 1).reshape(_DEPTH, -1, features.shape[1])
        pixels = pixels.to(self._last_dtype)
        taps = torch.bmm(pixels, self._occlusion.weight).sum(0, dtype=torch.float32)
        logits = functional.fold(taps.t()[None], (_SIDE, _SIDE), (_TAPS, _TAPS), padding=_MARGIN)
        return torch.sigmoid(logits + self._occlusion.bias.float())


def _blocks(modules: nn.ModuleList) -> list[ConvNorm3d]:
    return [block for block in modules if isinstance(block, ConvNorm3d)]


def _input_order(lanes: int) -> list[int | None]:
    """Channels of the plain hourglass input in this form's order, without the zero heat map.

    The plain order is, per motion, its heat map and its four samples. None stands for a channel
    of zeros that makes their number a multiple of `lanes`.
    """
    stride = COMPRESSED + 1
    background = [1 + c for c in range(COMPRESSED)]
    heat = [k * stride for k in range(1, MOTIONS)]
    moved = [k * stride + 1 + c for k in range(1, MOTIONS) for c in range(COMPRESSED)]
    padding = [None] * (-(len(background) + len(heat) + len(moved)) % lanes)
    return [*background, *padding, *heat, *moved]


def _relative(mask: Folded) -> Folded:
    """The 21 motions' mask kernels less the background's."""
    return Folded(mask.weight[1:] - mask.weight[:1], mask.bias[1:] - mask.bias[:1])


def _tap_matrices(occlusion: Folded, features: int) -> Folded:
    """(16, features, 49): per slice, channel and tap; taps turned, as `fold` spreads them."""
    weight = occlusion.weight[0].reshape(-1, _DEPTH, _TAPS, _TAPS).flip(2, 3)
    matrices = weight.flatten(2).transpose(0, 1)
    padding = (0, 0, 0, features - matrices.shape[1])
    return Folded(functional.pad(matrices, padding).contiguous(), occlusion.bias)
