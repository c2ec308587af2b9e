"""Displacement fields on a coarse grid: from moved spots to fields, forward to backward, to pixels.

A field says for every grid node how far the skin that rests there has moved, in pixels. Fields add
up linearly, so one frame is one matrix-vector product. `cv2.remap` wants the opposite (for every
pixel of the frame, where its colour rests), which `inverted` finds by fixed-point iteration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.mesh.arrays import f32, resized, sampled, sampled_field
from pipeline.types import Float32Array, Image

_REACH: Final = 0.52
"""Length scale of the interpolating kernel in face units: how far a moved spot drags its skin."""
_SOFTNESS: Final = 2e-3
"""Ridge of the interpolation: lets neighbouring spots disagree by a hair instead of rippling."""
_DAMPING: Final = 0.62
_CACHE_LINE_PX: Final = 16  # of four bytes, on nearly all processors


@dataclass(frozen=True, slots=True)
class Grid:
    """Nodes every `stride` pixels over a rectangle of the canvas.

    Attributes:
        left, top: canvas pixel of the rectangle's corner.
        columns, rows: number of nodes.
        stride: pixels between nodes; node i lies at pixel `left + i * stride + (stride - 1) / 2`,
            so that `cv2.resize` by `stride` puts node values back in their places.
    """

    left: int
    top: int
    columns: int
    rows: int
    stride: int

    @property
    def width(self) -> int:
        return self.columns * self.stride

    @property
    def height(self) -> int:
        return self.rows * self.stride

    def nodes(self) -> Float32Array:
        """Canvas pixels of all nodes, (rows, columns, 2) float32."""
        middle = (self.stride - 1) / 2
        x = np.arange(self.columns, dtype=np.float32) * self.stride + self.left + middle
        y = np.arange(self.rows, dtype=np.float32) * self.stride + self.top + middle
        return np.stack(np.meshgrid(x, y), axis=-1).astype(np.float32)

    def indices(self) -> Float32Array:
        """Column and row of all nodes, (rows, columns, 2) float32: an identity map."""
        x = np.arange(self.columns, dtype=np.float32)
        y = np.arange(self.rows, dtype=np.float32)
        return np.stack(np.meshgrid(x, y), axis=-1).astype(np.float32)

    def part(self, left: float, top: float, right: float, bottom: float) -> Grid:
        """The nodes of this grid that lie around a rectangle of the canvas, clipped to it."""
        s = self.stride
        c0 = int(np.clip((left - self.left) // s, 0, self.columns - 2))
        r0 = int(np.clip((top - self.top) // s, 0, self.rows - 2))
        c1 = int(np.clip(-((self.left - right) // s), c0 + 2, self.columns))
        r1 = int(np.clip(-((self.top - bottom) // s), r0 + 2, self.rows))
        return self.block(c0, r0, c1, r1)

    def around(self, pixels: tuple[slice, slice]) -> Grid:
        """The nodes around rows and columns of an image of this grid's rectangle."""
        rows, columns = pixels
        return self.part(
            self.left + columns.start,
            self.top + rows.start,
            self.left + columns.stop,
            self.top + rows.stop,
        )

    def beside(self, nodes: tuple[slice, slice]) -> Grid:
        """Some rows and columns of nodes, with one more on every side where there is one."""
        rows, columns = nodes
        return self.block(
            max(columns.start - 1, 0),
            max(rows.start - 1, 0),
            min(columns.stop + 1, self.columns),
            min(rows.stop + 1, self.rows),
        )

    def block(self, left: int, top: int, right: int, bottom: int) -> Grid:
        """Columns `left` to `right` of this grid, rows `top` to `bottom`, ends not included."""
        x, y = self.left + left * self.stride, self.top + top * self.stride
        return Grid(x, y, right - left, bottom - top, self.stride)

    def texture_places(self, oversampling: int) -> Float32Array:
        """Where in a texture each pixel of the rectangle lies, (height, width, 2) float32."""
        pixels = Grid(self.left, self.top, self.width, self.height, 1).nodes()
        return f32((pixels + 0.5) * oversampling - 0.5)

    def cut(self, image: Image) -> Image:
        """The grid's rectangle of a canvas, (height, width, ...); a view."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]

    def slices(self, inner: Grid) -> tuple[slice, slice]:
        """Rows and columns of `inner`'s rectangle in an image of this one's."""
        x, y = inner.left - self.left, inner.top - self.top
        return slice(y, y + inner.height), slice(x, x + inner.width)

    def window(self, inner: Grid) -> tuple[slice, slice]:
        """Rows and columns of `inner`, a part of this grid, as slices into this one's arrays."""
        c = (inner.left - self.left) // self.stride
        r = (inner.top - self.top) // self.stride
        return slice(r, r + inner.rows), slice(c, c + inner.columns)


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A part of the frame that is sampled from a patch of its own.

    Attributes:
        outer: nodes over which its fields are given.
        inner: the part of them that is drawn, away from where inversion lacks neighbours.
        patch: the patch's rectangle, one node per pixel of the texture.
        identity: `outer.indices()`.
        rest: (inner.rows + 2, inner.columns + 2, 2) float32, where in the patch each node of
            `inner` and of the ring around it rests.
        oversampling: texture pixels per frame pixel.
    """

    outer: Grid
    inner: Grid
    patch: Grid
    identity: Float32Array
    rest: Float32Array
    oversampling: int

    @classmethod
    def of(cls, outer: Grid, inner: Grid, patch: Grid, oversampling: int) -> Window:
        """A window whose `inner` is part of `outer`."""
        step = inner.stride
        ring = Grid(inner.left - step, inner.top - step, inner.columns + 2, inner.rows + 2, step)
        rest = (ring.nodes() + 0.5) * oversampling - 0.5 - f32([patch.left, patch.top])
        return cls(outer, inner, patch, outer.indices(), f32(rest), oversampling)

    def nodes(self, forward: Float32Array) -> Float32Array:
        """Where in the patch the nodes of `rest` rest, for a field over `outer`."""
        backward = inverted(forward, self.identity, self.outer.stride)
        ringed = cv2.copyMakeBorder(backward, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
        rows, columns = self.outer.window(self.inner)
        part = ringed[rows.start : rows.stop + 2, columns.start : columns.stop + 2]
        return cast(Float32Array, cv2.scaleAdd(part, -self.oversampling, self.rest))

    def places(self, nodes: Float32Array, part: Grid) -> Float32Array:
        """Where in the patch every pixel of a part of `inner` rests, (height, width, 2) float32.

        Args:
            nodes: of this window, as `nodes` gives them.
        """
        rows, columns = self.inner.window(part)
        step = part.stride
        # Enlarged with its neighbours, or the border would lag behind by half a node.
        ringed = nodes[rows.start : rows.stop + 2, columns.start : columns.stop + 2]
        places = enlarged(ringed, part.width + 2 * step, part.height + 2 * step)
        return places[step:-step, step:-step]

    def sampled(self, image: Image, nodes: Float32Array, part: Grid) -> Image:
        """What every pixel of a part of `inner` shows of an image of the patch.

        Args:
            image: (patch.height, patch.width, 4) uint8.
            nodes, part: as for `places`.
        """
        s = self.oversampling
        left, top = part.left * s - self.patch.left, part.top * s - self.patch.top
        rest = image[top : top + part.height * s, left : left + part.width * s]
        # Sampling waits for each pixel that is in memory only; reading one of every cache line
        # in order does not, and brings in most of them.
        rest.view(np.uint32)[:, ::_CACHE_LINE_PX].max(initial=0)
        return sampled(image, self.places(nodes, part))


def interpolator(spots: Float32Array, at: Float32Array) -> Float32Array:
    """Weights that spread moves of spots over other places: (len(at), len(spots)) float32.

    Gaussian-process interpolation with the Matérn-5/2 kernel (Rasmussen and Williams 2006,
    eq. 4.17): exact at the spots, smooth between them, zero far from all of them.

    Args:
        spots: (n, 2) in face units.
        at: (m, 2) in face units.
    """
    among = _matern(spots, spots)
    among[np.diag_indices_from(among)] += _SOFTNESS
    return np.linalg.solve(among, _matern(at, spots).T).T.astype(np.float32)


def _matern(a: Float32Array, b: Float32Array) -> npt.NDArray[np.float64]:
    dx, dy = (a[:, axis, None].astype(np.float64) - b[:, axis] for axis in (0, 1))
    r = np.sqrt(5.0) / _REACH * np.sqrt(dx * dx + dy * dy)
    return cast(npt.NDArray[np.float64], (1.0 + r + r * r / 3.0) * np.exp(-r))


def inverted(
    forward: Float32Array, identity: Float32Array, stride: float, steps: int = 5
) -> Float32Array:
    """Where the colour at each node rests, relative to the node: (rows, columns, 2) float32.

    Solves b(q) = forward(q - b(q)) by damped iteration, which converges where skin is squeezed by
    less than all of its size and stretched up to threefold.

    Args:
        forward: (rows, columns, 2), displacement of resting skin in pixels.
        identity: `Grid.indices` of its grid.
        stride: pixels between nodes.
        steps: iterations; each halves the error or better.
    """
    backward = forward
    for _ in range(steps):
        places = cv2.scaleAdd(backward, -1.0 / stride, identity)
        found = sampled_field(forward, cast(Float32Array, places))
        backward = cast(
            Float32Array, cv2.addWeighted(found, _DAMPING, backward, 1.0 - _DAMPING, 0.0)
        )
    return backward


def enlarged(field: Float32Array, width: int, height: int) -> Float32Array:
    """A field of nodes as a field of pixels, (height, width, 2) float32."""
    return resized(field, width, height)


def steepest_fold(forward: Float32Array, stride: float) -> float:
    """Smallest Jacobian determinant of the moved grid; at or below 0 the skin folds over."""
    dx = np.diff(forward, axis=1)[:-1] / stride
    dy = np.diff(forward, axis=0)[:, :-1] / stride
    determinant = (1 + dx[..., 0]) * (1 + dy[..., 1]) - dx[..., 1] * dy[..., 0]
    return float(determinant.min())
