"""Reading a volume at points, also where torch has no kernel for it.

`sample` reads with `align_corners=False`, so even the identity grid of this network, which counts
from the centre of the first cell to that of the last, is not an exact copy (specification 3.3,
step 2).
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor
from torch.nn import functional


def identity_grid(depth: int, height: int, width: int, like: Tensor) -> Tensor:
    """(D, H, W, 3) cell centres as (x, y, z), -1 at the first and +1 at the last cell."""
    axes = [torch.arange(n, dtype=like.dtype, device=like.device) for n in (depth, height, width)]
    z, y, x = torch.meshgrid(*(2 * i / (len(i) - 1) - 1 for i in axes), indexing="ij")
    return torch.stack((x, y, z), dim=-1)


def sample(volume: Tensor, grid: Tensor) -> Tensor:
    """Read (N, C, D, H, W) at (N, d, h, w, 3): trilinear, zero outside; (N, C, d, h, w)."""
    if volume.device.type == "mps":  # torch has no three-dimensional grid_sample there
        return sample_by_gather(volume, grid)
    return functional.grid_sample(
        volume, grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )


def sample_by_gather(volume: Tensor, grid: Tensor) -> Tensor:
    """The same in plain tensor operations: eight weighted rows per point.

    Points that are not finite read as not finite.
    """
    batch, channels, *cells = volume.shape
    rows = volume.permute(0, 2, 3, 4, 1).reshape(-1, channels)
    taps = [_taps(grid[..., axis].flatten(1), n) for axis, n in enumerate(reversed(cells))]
    first = torch.arange(batch, device=volume.device)[:, None] * cells[0] * cells[1] * cells[2]
    out = volume.new_zeros((batch * grid[0, ..., 0].numel(), channels))
    for (x, wx), (y, wy), (z, wz) in product(*taps):
        index = first + (z * cells[1] + y) * cells[2] + x
        out.addcmul_(rows.index_select(0, index.flatten()), (wx * wy * wz).reshape(-1, 1))
    return out.reshape(batch, *grid.shape[1:4], channels).permute(0, 4, 1, 2, 3)


def _taps(coordinate: Tensor, cells: int) -> list[tuple[Tensor, Tensor]]:
    """Both neighbours on one axis: index, always inside, and weight, zero where it was not."""
    position = ((coordinate + 1) * cells - 1) / 2
    below = position.floor()
    share = position - below
    return [
        (
            index.nan_to_num(0.0, 0.0, 0.0).clamp(0, cells - 1).long(),
            weight * ((index >= 0) & (index < cells)).to(weight.dtype),
        )
        for index, weight in ((below, 1 - share), (below + 1, share))
    ]
